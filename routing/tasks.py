"""Tasks and prompts: what an evaluation asks of a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from routing.errors import TaskError

__all__ = ["Metric", "Prompt", "Task", "TaskSet", "prompt_text"]

Metric = Literal["accuracy", "exact_match", "token_f1", "none"]
"""How an answer is scored: best option, equal text, overlap of words, or not at all."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A set of prompts that ask the same kind of thing.

    Attributes:
        name: short name, unique in a task set.
        task_type: family of the task: "extractive", "classification", "knowledge", …
        metric: how answers are scored.
        instruction: first line of every prompt.
        description: one sentence for the reader.
        max_new_tokens: how much is generated, where an answer is generated.
        features: what else is known of the task, for comparing experts with properties of tasks.
    """

    name: str
    task_type: str = "other"
    metric: Metric = "none"
    instruction: str = ""
    description: str = ""
    max_new_tokens: int = 32
    features: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.metric not in get_args(Metric):
            msg = (
                f"Task {self.name!r} has the metric {self.metric!r}; known are {list(get_args(Metric))}. "
                "Correct the task's metric."
            )
            raise TaskError(msg)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One text that a model is given.

    Attributes:
        id: unique in its task set.
        text: what the model reads.
        task: name of its task.
        task_type: type of its task.
        target: the continuation that is right, as the model would write it (with its leading space), or None.
        answers: all continuations that count as right.
        options: continuations to choose among; empty where the answer is generated.
        source: where the text came from.
        extra: further columns for the prompt table.
    """

    id: str
    text: str
    task: str = "prompts"
    task_type: str = "other"
    target: str | None = None
    answers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    source: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TaskSet:
    """Tasks and their prompts, in order."""

    tasks: tuple[Task, ...]
    prompts: tuple[Prompt, ...]

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            msg = f"The tasks {twice} are named more than once. Give each task its own name."
            raise TaskError(msg)
        counts = {name: 0 for name in names}
        seen: set[str] = set()
        for prompt in self.prompts:
            if prompt.id in seen:
                msg = f"The prompt id {prompt.id!r} occurs more than once. Give each prompt its own id."
                raise TaskError(msg)
            if prompt.task not in counts:
                msg = f"Prompt {prompt.id!r} belongs to the task {prompt.task!r}, not one of {names}. Add it."
                raise TaskError(msg)
            seen.add(prompt.id)
            counts[prompt.task] += 1
        if empty := [name for name, count in counts.items() if count == 0]:
            msg = f"The tasks {empty} have no prompts. Add rows, or leave the tasks out."
            raise TaskError(msg)

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def task(self, name: str) -> Task:
        """The task of that name.

        Raises:
            TaskError: there is none.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        msg = f"There is no task {name!r} among {[task.name for task in self.tasks]}. Choose one of them."
        raise TaskError(msg)

    @property
    def digest(self) -> str:
        """Stable name of the content."""
        content = repr((self.tasks, self.prompts))
        return hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()[:16]

    def sample(self, n_per_task: int, *, seed: int) -> TaskSet:
        """At most `n_per_task` prompts of each task, drawn without replacement, in their old order."""
        rng = np.random.default_rng(seed)
        places: dict[str, list[int]] = {task.name: [] for task in self.tasks}
        for place, prompt in enumerate(self.prompts):
            places[prompt.task].append(place)
        kept: set[int] = set()
        for each in places.values():
            drawn = rng.permutation(len(each))[:n_per_task]
            kept.update(each[number] for number in drawn)
        tasks = self.tasks if n_per_task > 0 else ()
        return replace(self, tasks=tasks, prompts=tuple(self.prompts[place] for place in sorted(kept)))

    def only(self, names: Collection[str]) -> TaskSet:
        """The tasks of these names, with their prompts.

        Raises:
            TaskError: there is no task of one of the names.
        """
        for name in names:
            self.task(name)
        return replace(
            self,
            tasks=tuple(task for task in self.tasks if task.name in names),
            prompts=tuple(prompt for prompt in self.prompts if prompt.task in names),
        )

    def table(self) -> pd.DataFrame:
        """The prompts as a trace's prompt table: options and answers as JSON, extras as columns."""
        metric = {task.name: task.metric for task in self.tasks}
        rows = [
            {
                "prompt": prompt.id,
                "task": prompt.task,
                "task_type": prompt.task_type,
                "text": prompt.text,
                "target": prompt.target,
                "metric": metric[prompt.task],
                "source": prompt.source,
                "answers": json.dumps(prompt.answers, ensure_ascii=False) if prompt.answers else None,
                "options": json.dumps(prompt.options, ensure_ascii=False) if prompt.options else None,
            }
            for prompt in self.prompts
        ]
        table = pd.DataFrame(rows)
        reserved = {*table.columns, "prediction", "score"}
        names = dict.fromkeys(name for prompt in self.prompts for name in prompt.extra if name not in reserved)
        for name in names:
            values = [prompt.extra.get(name) for prompt in self.prompts]
            plain = [value if isinstance(value, str | int | float | bool | None) else repr(value) for value in values]
            kinds = {type(value) for value in plain if value is not None}
            # One column has one type on disk.
            table[name] = plain if len(kinds) < 2 else [None if each is None else str(each) for each in plain]
        return table


def prompt_text(instruction: str, given: str) -> str:
    """The text of a prompt: its instruction, what is given, and the word that asks for the answer."""
    return f"{instruction}\n{given}\nanswer:"
