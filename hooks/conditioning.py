"""Models that must be told the task of each text (PHA, Task-level MoE), and which row of theirs a task is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from routing import Prompt, TaskError, TaskSet

__all__ = ["Conditioning"]


class Conditioning:
    """What a model is given beside a text; nothing for most models.

    Args:
        model: any transformers model. One with `config.tasks` and a method `task_ids` is told tasks by name.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        named = callable(getattr(model, "task_ids", None))
        self.tasks: tuple[str, ...] = tuple(getattr(model.config, "tasks", None) or ()) if named else ()

    @property
    def is_needed(self) -> bool:
        """Whether the model knows tasks by name."""
        return bool(self.tasks)

    @property
    def retrieves(self) -> bool:
        """Whether the model can find a task of its own for a text of another."""
        # Where even the encoder's adapters belong to tasks, a text without one cannot be read.
        by_task = getattr(self._model.config, "adapter_source", None) == "task"
        return callable(getattr(self._model, "retrieved_tasks", None)) and not by_task

    def knows(self, task: str) -> bool:
        """Whether a task is one of the model's, under its own name or another that its configuration gives it."""
        answer = getattr(self._model, "knows_task", None)
        return bool(answer(task)) if callable(answer) else task in self.tasks

    def foreign(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """Tasks that the model does not know, and for which it retrieves the nearest of its own.

        Raises:
            TaskError: the model cannot run a task that it does not know.
        """
        unknown = tuple(each for each in dict.fromkeys(tasks) if not self.knows(each)) if self.is_needed else ()
        if unknown and not self.retrieves:
            msg = (
                f"This {type(self._model).__name__} is told tasks and has no row for the tasks "
                f"{', '.join(unknown)}; it knows {', '.join(self.tasks)}. "
                "Leave those tasks out, or rename them to the ones that the model was trained on."
            )
            raise TaskError(msg)
        return unknown

    @torch.no_grad()
    def arguments(self, prompts: Sequence[Prompt], ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """What a forward over these texts is given besides: `task_ids`, or nothing.

        A text of a task that PHA does not know runs with the adapters of the prototype that its retriever finds.
        """
        if not self.is_needed:
            return {}
        known = [self.knows(each.task) for each in prompts]
        names = [each.task if own else self.tasks[0] for each, own in zip(prompts, known, strict=True)]
        task_ids = self._model.task_ids(names).to(ids.device)
        if not all(known):
            foreign = ~torch.tensor(known, device=ids.device)
            task_ids[foreign] = self._model.retrieved_tasks(ids[foreign], mask[foreign]).to(task_ids)
        return {"task_ids": task_ids}

    def encoding(self, arguments: dict[str, Tensor]) -> AbstractContextManager[Any]:
        """What must be open while the encoder is called by itself: its layers, too, may belong to tasks."""
        if "task_ids" in arguments:
            if callable(getattr(self._model, "routed", None)):
                return self._model.routed(self._model.routes(arguments["task_ids"]))
            if callable(getattr(self._model, "told", None)):
                return self._model.told(arguments["task_ids"])
        return nullcontext()

    def as_read(self, tasks: TaskSet) -> TaskSet:
        """The prompts as the model was trained to read them: without their instruction, if it names the task for it."""
        if getattr(self._model.config, "reads_instruction", True):
            return tasks
        first_lines = {each.name: f"{each.instruction}\n" for each in tasks.tasks if each.instruction}
        shorter = [replace(each, text=each.text.removeprefix(first_lines.get(each.task, ""))) for each in tasks.prompts]
        return TaskSet(tasks=tasks.tasks, prompts=tuple(shorter))

    def row_names(self, run: Sequence[str]) -> list[str]:
        """Names of the model's rows in a run: the run's own name of a task, where just one of its tasks is that row.

        Args:
            run: tasks of the run.

        Returns:
            (row) · name · distinct.
        """
        aliases = getattr(self._model.config, "task_aliases", None) or {}
        called: dict[str, list[str]] = {}
        for task in dict.fromkeys(run):
            called.setdefault(aliases.get(task, task), []).append(task)
        names = [called[own][0] if len(called.get(own, ())) == 1 else own for own in self.tasks]
        return names if len(set(names)) == len(names) else list(self.tasks)

    def note_on(self, tasks: Sequence[str]) -> str | None:
        """What a reader must know of tasks that the model does not know, or None."""
        if not (unknown := self.foreign(tasks)):
            return None
        return (
            f"The model knows no task {', '.join(unknown)}: their texts ran with the adapters of the prototype that "
            "the retriever found nearest, text by text."
        )
