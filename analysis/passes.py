"""Passes: which tokens a server would have put through the model together.

Legend: P prompt, S stack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.scan import require_tokens
from routing.chunks import PHASES, Chunk
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["BatchOrder", "Passes", "batches_of", "passes_of"]

BatchOrder = Literal["recorded", "shuffled", "task"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Passes:
    """The passes of a trace.

    Attributes:
        table: index pass · batch, step (0 is the prompts themselves, n the n-th generated token), phase, n_tokens.
        batch_P: batch of each prompt; −1 where no token of it was recorded.
        key: from a chunk, the pass of each token.
    """

    table: pd.DataFrame
    batch_P: np.ndarray
    key: Callable[[Chunk], np.ndarray]

    @property
    def n_batches(self) -> int:
        """How many batches there are."""
        return int(self.batch_P.max(initial=-1)) + 1


def batches_of(
    trace: RoutingTrace, *, batch_size: int = 16, order: BatchOrder = "recorded", seed: int = 0
) -> np.ndarray:
    """Which batch each prompt is in: `batch_size` prompts at a time.

    Args:
        trace: the trace.
        batch_size: prompts a batch.
        order: "recorded" takes prompts as they were first recorded, "shuffled" deals them at random, "task" keeps the
            prompts of a task together.
        seed: of the shuffle.

    Returns:
        (prompt) · batch · 0 and up; −1 where no token of the prompt was recorded.

    Raises:
        SelectionError: the size is below 1, or the order has another name.
        TraceError: the trace holds counts only.
    """
    return _batches(_first_rows(trace), trace, batch_size=batch_size, order=order, seed=seed)


def passes_of(trace: RoutingTrace, *, batch_size: int = 16, order: BatchOrder = "recorded", seed: int = 0) -> Passes:
    """The passes that a server with this batch size would make of the recorded tokens.

    A trace does not keep which tokens went through the model together, and the same tokens can be batched otherwise.
    So passes are laid down here: prompts are put into batches (`batches_of`); of a batch, all tokens that were read
    are one pass, and the n-th generated tokens of its prompts are one pass for each n. Where an answer was given
    (scored options), its tokens count as generated one by one, as a server would.

    Raises:
        SelectionError: the size is below 1, or the order has another name.
        TraceError: the trace holds counts only.
    """
    batch_P = batches_of(trace, batch_size=batch_size, order=order, seed=seed)
    n_stacks = max(1, len(trace.stacks))
    far = np.iinfo(np.int32).max
    first_PS = np.full((trace.n_prompts, n_stacks), far, dtype=np.int32)
    last_PS = np.full((trace.n_prompts, n_stacks), -1, dtype=np.int32)
    for chunk in trace.chunks(fields=()):
        written = chunk.phase == PHASES.index("generated")
        at = chunk.prompt[written], chunk.stack[written]
        np.minimum.at(first_PS, at, chunk.position[written])
        np.maximum.at(last_PS, at, chunk.position[written])
    n_steps = 1 + int(np.where(last_PS >= 0, last_PS - np.where(last_PS >= 0, first_PS, 0) + 1, 0).max(initial=0))

    def code(chunk: Chunk) -> np.ndarray:
        written = chunk.phase == PHASES.index("generated")
        step = np.where(written, 1 + chunk.position - first_PS[chunk.prompt, chunk.stack], 0)
        batch = batch_P[chunk.prompt].astype(np.int64)
        return np.where(batch >= 0, batch * n_steps + step, -1)

    n_batches = int(batch_P.max(initial=-1)) + 1
    sizes = np.zeros(n_batches * n_steps, dtype=np.int64)
    for chunk in trace.chunks(fields=()):
        codes = code(chunk)
        sizes += np.bincount(codes[codes >= 0], minlength=len(sizes))
    used = np.flatnonzero(sizes)
    number = np.full(len(sizes) + 1, -1, dtype=np.int32)
    number[used] = np.arange(len(used))
    table = pd.DataFrame(
        {
            "batch": used // n_steps,
            "step": used % n_steps,
            "phase": np.where(used % n_steps == 0, PHASES[0], PHASES[1]),
            "n_tokens": sizes[used],
        },
        index=pd.RangeIndex(len(used), name="pass"),
    )
    return Passes(table=table, batch_P=batch_P, key=lambda chunk: number[code(chunk)])


def _first_rows(trace: RoutingTrace) -> np.ndarray:
    """(prompt) first row of each prompt; −1 where it has none."""
    require_tokens(trace, for_what="a look at passes")
    first_P = np.full(trace.n_prompts, -1, dtype=np.int64)
    for chunk in trace.chunks(fields=()):
        found, at = np.unique(chunk.prompt, return_index=True)
        new = first_P[found] < 0
        first_P[found[new]] = chunk.start + at[new]
    return first_P


def _batches(first_P: np.ndarray, trace: RoutingTrace, *, batch_size: int, order: BatchOrder, seed: int) -> np.ndarray:
    if batch_size < 1:
        msg = f"A batch of {batch_size} prompts cannot be made. Give a batch_size of 1 or more."
        raise SelectionError(msg)
    recorded = np.flatnonzero(first_P >= 0)
    match order:
        case "recorded":
            lined_up = recorded[np.argsort(first_P[recorded], kind="stable")]
        case "shuffled":
            lined_up = np.random.default_rng(seed).permutation(recorded)
        case "task":
            lined_up = recorded[np.lexsort((first_P[recorded], trace.task_of_prompt[recorded]))]
        case _:
            msg = f"Prompts are batched as recorded, shuffled or by task, not {order!r}. Correct `order`."
            raise SelectionError(msg)
    batch_P = np.full(len(first_P), -1, dtype=np.int64)
    batch_P[lined_up] = np.arange(len(lined_up)) // batch_size
    return batch_P
