"""One run of tokens as plain numpy arrays: what every scan over a trace receives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from routing.errors import TraceError

if TYPE_CHECKING:
    from routing.trace import RoutingTrace

__all__ = [
    "ADAPTER_ARRAYS",
    "PHASES",
    "ROUTER_ARRAYS",
    "TOKEN_ARRAYS",
    "TOKEN_COLUMNS",
    "Chunk",
    "iterate_chunks",
]

PHASES = ("prompt", "generated")
"""Names of the phase codes 0 and 1."""

ROUTER_ARRAYS = ("experts", "scores", "weights", "dropped", "logits")
"""Arrays over tokens and layers."""

ADAPTER_ARRAYS = ("adapter_index", "adapter_ratio")
"""Arrays over tokens and sites of adapters."""

TOKEN_ARRAYS = (*ROUTER_ARRAYS, *ADAPTER_ARRAYS)
"""Arrays with one row a token that a scan may ask for."""

TOKEN_COLUMNS = ("prompt", "position", "token_id", "phase", "stack", "nll")
"""Columns of the token table, which a scan always receives."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Tokens start to stop of a trace. Arrays are views where possible and not to be written into.

    Attributes:
        start, stop: range of token rows.
        experts: (T, L, R), ids; `trace.absent` where there is none. None if not asked for.
        scores: (T, L, R) float16, selection scores; NaN where there is none. None if not asked for.
        weights: (T, L, K) float16, applied weights; NaN where there is none. None if not asked for.
        dropped: (T, L, K) bool. None if not asked for or not recorded.
        logits: (T, L, E) float16 or float32; NaN where there is none. None if not asked for or not recorded.
        adapter_index: (T, S) int32, row of `trace.adapters.table`; -1 where no adapter was applied, -2 where the trace
            does not hold the one that was. None if not asked for or not recorded.
        adapter_ratio: (T, S) float16, norm of what the adapter added over the norm of what it was added to; NaN where
            there is none. None if not asked for or not recorded.
        prompt: (T,) int32, row of `trace.prompts`.
        task: (T,) int16, index into `trace.tasks`.
        position: (T,) int32, place in the prompt.
        token_id: (T,) int32, entry of the vocabulary; -1 where unknown.
        phase: (T,) uint8, index into `PHASES`.
        stack: (T,) uint8, index into `trace.stacks`.
        nll: (T,) float32, negative log-likelihood in nats; NaN where unknown.
    """

    start: int
    stop: int
    experts: np.ndarray | None = None
    scores: np.ndarray | None = None
    weights: np.ndarray | None = None
    dropped: np.ndarray | None = None
    logits: np.ndarray | None = None
    adapter_index: np.ndarray | None = None
    adapter_ratio: np.ndarray | None = None
    prompt: np.ndarray
    task: np.ndarray
    position: np.ndarray
    token_id: np.ndarray
    phase: np.ndarray
    stack: np.ndarray
    nll: np.ndarray

    @property
    def n_tokens(self) -> int:
        """Tokens in this run."""
        return self.stop - self.start


def iterate_chunks(trace: RoutingTrace, *, fields: Sequence[str], n_tokens: int) -> Iterator[Chunk]:
    """Every token of the trace once, in order, `n_tokens` at a time.

    Raises:
        TraceError: the trace holds counts only, or a field is unknown.
    """
    if unknown := sorted(set(fields) - set(TOKEN_ARRAYS) - set(TOKEN_COLUMNS)):
        msg = f"No trace has the fields {unknown}; a scan may ask for {list(TOKEN_ARRAYS)}. Correct the names."
        raise TraceError(msg)
    if trace.level == "counts":
        msg = (
            "This trace was recorded at level 'counts' and holds no single tokens. "
            "Use its counts, or record again at level 'assignments' or 'full'."
        )
        raise TraceError(msg)
    if trace.n_tokens == 0:
        return
    storage = trace.storage
    asked = {name: storage.rows(name) for name in TOKEN_ARRAYS if name in fields}
    columns = {name: storage.require_rows(name) for name in TOKEN_COLUMNS}
    task_of_prompt = trace.task_of_prompt
    for start in range(0, trace.n_tokens, n_tokens):
        stop = min(start + n_tokens, trace.n_tokens)
        keys = {name: rows.read(start, stop) for name, rows in columns.items()}
        if keys["prompt"].min() < 0 or keys["prompt"].max() >= len(task_of_prompt):
            msg = (
                f"Tokens {start} to {stop} name prompts outside the table of {len(task_of_prompt)}. "
                "The prompt table was cut off or changed; restore it, or record again."
            )
            raise TraceError(msg)
        arrays = {name: None if rows is None else rows.read(start, stop) for name, rows in asked.items()}
        yield Chunk(start=start, stop=stop, task=task_of_prompt[keys["prompt"]], **keys, **arrays)  # type: ignore[arg-type]
