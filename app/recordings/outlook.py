"""What a recording will meet, as it is known before the model is loaded; found by `planner`, read by every session."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Outlook", "TaskOutlook"]


@dataclass(frozen=True, kw_only=True)
class TaskOutlook:
    """A task as a model will read it.

    Attributes:
        name, task_type: of the task.
        n_prompts: prompts.
        n_read: tokens of a prompt, on average.
        n_option: tokens of an option, on average; 0 where there are none.
        n_target: tokens of the right answer, on average; None where none is known.
        n_options: options a prompt, at most.
        max_new_tokens: how much is generated.
        longest: tokens of the longest prompt.
        n_too_long: prompts that do not fit the model's context with their answer.
        n_characters: characters of its texts.
        is_known: whether the model can be told this task; true of all where a model is told none.
    """

    name: str
    task_type: str
    n_prompts: int
    n_read: float
    n_option: float
    n_target: float | None
    n_options: int
    max_new_tokens: int
    longest: int
    n_too_long: int
    n_characters: int
    is_known: bool = True


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """A model and tasks, before the model is loaded.

    Attributes:
        model_class: of the model.
        layers: label, stack, number of experts and of selected experts of each router; empty where only the first
            forward tells them.
        by_prompt: whether routers decide once a prompt.
        with_capacity: whether a router drops what is beyond its capacity.
        two_stacks: whether answers are written by another stack than reads.
        writes: whether the model generates text.
        n_parameters: of the model; 0 where they are not known without the weights.
        dtype_bytes: bytes of a parameter in the checkpoint.
        n_vocabulary: tokens of the model's output.
        n_adapter_sites: layers to which generated adapters are added.
        adapters_a_site: how many of each are kept, once all that can make one did; 0 where there is one a prompt.
        adapter_bytes: of one of them.
        vector_bytes: of what else is kept of each prompt beside the rows.
        context: most tokens that the model reads; None where there is no limit.
        devices: what there is to run on, the one that "auto" takes first.
        process_bytes: memory of a process with the libraries loaded, and nothing else.
        tasks: the tasks.
    """

    model_class: str
    layers: tuple[tuple[str, str, int, int], ...]
    by_prompt: bool
    with_capacity: bool
    two_stacks: bool
    writes: bool
    n_parameters: int
    dtype_bytes: int
    n_vocabulary: int
    n_adapter_sites: int
    adapters_a_site: int
    adapter_bytes: int
    vector_bytes: int
    context: int | None
    devices: tuple[str, ...]
    process_bytes: int
    tasks: tuple[TaskOutlook, ...]

    def written(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, written: str) -> Outlook:
        """What `written` wrote."""
        told: dict[str, Any] = json.loads(written)
        told["layers"] = tuple((str(label), str(stack), int(n), int(k)) for label, stack, n, k in told["layers"])
        told["devices"] = tuple(told["devices"])
        told["tasks"] = tuple(TaskOutlook(**each) for each in told["tasks"])
        return cls(**told)
