"""One pass over a trace that counts assignments by group, layer and expert.

Legend: T token, L layer, E expert, G group, P prompt.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeVar

import numpy as np

from analysis.measure import measure_of, weighed
from routing.chunks import PHASES, Chunk
from routing.errors import SelectionError, TraceError
from routing.trace import RoutingTrace

__all__ = [
    "By",
    "CountTable",
    "Phase",
    "count_table",
    "keyed_blocks",
    "mapped_chunks",
    "prompt_blocks",
    "require_tokens",
    "token_groups",
]

By = Literal["task", "task_type", "prompt", "phase"]
Phase = Literal["prompt", "generated"]

Result = TypeVar("Result")

_Partial = tuple[np.ndarray | slice, np.ndarray, np.ndarray]

LARGEST_BLOCK = 1 << 25
"""Cells of the largest prompt × layer × expert table held at once; larger ones are made a few layers at a
time."""

SMALL_PARTIAL = 1 << 20
"""Cells of a partial count that is not worth making smaller."""

LARGEST_PARTIAL = 1 << 24
"""Cells of the largest partial count of one chunk; chunks that would need more are cut."""


@dataclass(frozen=True, kw_only=True)
class CountTable:
    """Counts of a scan.

    Attributes:
        groups: names along the first axis.
        assignments_GLE: int64, how often each group's tokens chose each expert; where every expert is always chosen
            (`analysis.measure`), float64, the weight that each group's tokens gave it.
        tokens_GL: int64, how many of each group's tokens each layer routed.
    """

    groups: tuple[str, ...]
    assignments_GLE: np.ndarray
    tokens_GL: np.ndarray


def require_tokens(trace: RoutingTrace, *, for_what: str) -> None:
    """Raise unless the trace holds single tokens.

    Raises:
        TraceError: the trace holds counts only.
    """
    if trace.level == "counts":
        msg = (
            f"This trace was recorded at level 'counts', and {for_what} needs single tokens. "
            "Record again at level 'assignments' or 'full'."
        )
        raise TraceError(msg)


def count_table(trace: RoutingTrace, *, by: By | None = None, phase: Phase | None = None) -> CountTable:
    """Assignments and routed tokens of every group; the whole trace is one group where `by` is None.

    Raises:
        SelectionError: `by` or `phase` names something else than what it may.
        TraceError: a trace of level "counts" is asked for more than tasks.
    """
    if phase is not None and phase not in PHASES:
        msg = f"A token's phase is one of {list(PHASES)}, not {phase!r}. Correct the name, or leave it out."
        raise SelectionError(msg)
    groups = _groups(trace, by=by)
    if trace.level == "counts":
        return _from_counts(trace, groups=groups, by=by, phase=phase)
    keys = _keys(trace, groups=groups, by=by)
    return _scanned(trace, groups=groups, keys=keys, phase=phase, layers=slice(0, trace.n_layers))


def prompt_blocks(trace: RoutingTrace, *, phase: Phase | None = None) -> Iterator[tuple[slice, CountTable]]:
    """The count table by prompt, a few layers at a time where the whole would be too large to hold.

    Raises:
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="a count by prompt")
    groups = _groups(trace, by="prompt")
    yield from _blocks(trace, groups=groups, keys=_keys(trace, groups=groups, by="prompt"), phase=phase)


def keyed_blocks(
    trace: RoutingTrace, keys: Callable[[Chunk], np.ndarray], *, n_groups: int
) -> Iterator[tuple[slice, CountTable]]:
    """The count table by any number that tokens have, a few layers at a time; tokens of a negative number are left out.

    Args:
        trace: the trace.
        keys: from a chunk, the group of each of its tokens.
        n_groups: how many groups there are.

    Raises:
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="a count of parts of prompts")
    yield from _blocks(trace, groups=tuple(map(str, range(n_groups))), keys=keys, phase=None)


def token_groups(trace: RoutingTrace, *, by: By | None) -> tuple[tuple[str, ...], Callable[[Chunk], np.ndarray]]:
    """Names of the groups of tokens, and how to read a token's group off a chunk.

    Raises:
        SelectionError: tokens cannot be grouped by `by`.
    """
    groups = _groups(trace, by=by)
    return groups, _keys(trace, groups=groups, by=by)


def mapped_chunks(
    trace: RoutingTrace,
    work: Callable[[Chunk], Result],
    *,
    fields: tuple[str, ...] = ("experts",),
    n_tokens: int = 65536,
) -> Iterator[Result]:
    """What `work` makes of every chunk, in order, on every core; `work` must let the interpreter go.

    Never more chunks are under way than cores ask for, so that memory does not grow with the trace.
    """
    chunks = trace.chunks(fields=fields, n_tokens=n_tokens)
    n_threads = min(_n_cores(), -(-trace.n_tokens // n_tokens))
    if n_threads <= 1:
        yield from map(work, chunks)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        under_way: list[Future[Result]] = [pool.submit(work, chunk) for chunk in islice(chunks, 2 * n_threads)]
        while under_way:
            yield under_way.pop(0).result()
            under_way.extend(pool.submit(work, chunk) for chunk in islice(chunks, 1))


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _groups(trace: RoutingTrace, *, by: By | None) -> tuple[str, ...]:
    match by:
        case None:
            return ("all",)
        case "task":
            return trace.tasks
        case "task_type":
            return tuple(dict.fromkeys(trace.task_types.values()))
        case "prompt":
            return tuple(trace.prompts["prompt"])
        case "phase":
            return PHASES
    msg = f"Tokens can be grouped by task, task_type, prompt or phase, not by {by!r}. Correct `by`."
    raise SelectionError(msg)


def _type_of_task(trace: RoutingTrace, groups: tuple[str, ...]) -> np.ndarray:
    return np.array([groups.index(each) for each in trace.task_types.values()], dtype=np.int32)


def _keys(trace: RoutingTrace, *, groups: tuple[str, ...], by: By | None) -> Callable[[Chunk], np.ndarray]:
    """How to read a token's group off a chunk."""
    match by:
        case "task":
            return lambda chunk: chunk.task.astype(np.int32)
        case "task_type":
            types = _type_of_task(trace, groups)
            return lambda chunk: types[chunk.task]
        case "prompt":
            return lambda chunk: chunk.prompt
        case "phase":
            return lambda chunk: chunk.phase.astype(np.int32)
    return lambda chunk: np.zeros(chunk.n_tokens, dtype=np.int32)


def _blocks(
    trace: RoutingTrace, *, groups: tuple[str, ...], keys: Callable[[Chunk], np.ndarray], phase: Phase | None
) -> Iterator[tuple[slice, CountTable]]:
    cells = max(1, len(groups) * trace.n_experts)
    step = max(1, LARGEST_BLOCK // cells)
    for first in range(0, trace.n_layers, step):
        layers = slice(first, min(first + step, trace.n_layers))
        yield layers, _scanned(trace, groups=groups, keys=keys, phase=phase, layers=layers)


def _scanned(
    trace: RoutingTrace,
    *,
    groups: tuple[str, ...],
    keys: Callable[[Chunk], np.ndarray],
    phase: Phase | None,
    layers: slice,
) -> CountTable:
    if measure_of(trace) == "routed weight":
        code = None if phase is None else PHASES.index(phase)
        sums, tokens = weighed(trace, keys=keys, n_groups=len(groups), phase_code=code, layers=layers)
        return CountTable(groups=groups, assignments_GLE=sums, tokens_GL=tokens)
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.kernels import frozen

    top_k_L = np.array([facts.top_k for facts in trace.layer_facts[layers]], dtype=np.int64)
    n_experts = trace.n_experts
    one_byte = trace.absent == np.iinfo(np.uint8).max
    count, word = _counter(one_byte=one_byte, top_k_L=top_k_L, n_ranks=trace.n_ranks, n_experts=n_experts)
    phase_code = None if phase is None else PHASES.index(phase)

    n_slots = 256 if one_byte else n_experts + 1
    n_layers = len(top_k_L)

    def counted(experts_TLR: np.ndarray, key_T: np.ndarray) -> Iterator[_Partial]:
        names: np.ndarray | slice = slice(0, len(groups))
        n_names = len(groups)
        if n_names * n_layers * n_slots > SMALL_PARTIAL:
            # Groups of a chunk lie close together (prompts do), so a table of their range is small.
            used = key_T[key_T >= 0]
            first, last = (int(used.min()), int(used.max())) if used.size else (0, -1)
            held = np.arange(first, last + 1)
            # A slice is added to in its place; groups picked one by one are copied out and back.
            names = slice(first, last + 1)
            if len(held) * n_layers * n_slots > LARGEST_PARTIAL:
                names = held = np.unique(used)
            if len(held) > 1 and len(held) * n_layers * n_slots > LARGEST_PARTIAL:
                half = len(key_T) // 2
                yield from counted(experts_TLR[:half], key_T[:half])
                yield from counted(experts_TLR[half:], key_T[half:])
                return
            n_names = len(held)
            key_T = np.where(key_T >= 0, np.searchsorted(held, key_T), -1)
        counts, tokens = count(
            frozen(np.ascontiguousarray(experts_TLR).view(word)),
            frozen(key_T.astype(np.int32, copy=False)),
            frozen(top_k_L),
            layers.start,
            n_names,
        )
        # A token that the layer did not route is absent at all of its selected ranks.
        unrouted = counts[:, :, -1] // np.maximum(top_k_L, 1)
        yield names, counts[:, :, :n_experts], tokens[:, None].astype(np.int64) - unrouted

    def of_chunk(chunk: Chunk) -> list[_Partial]:
        assert chunk.experts is not None
        key_T = keys(chunk)
        if phase_code is not None:
            key_T = np.where(chunk.phase == phase_code, key_T, -1)
        return list(counted(chunk.experts, key_T))

    assignments_GLE = np.zeros((len(groups), n_layers, n_experts), dtype=np.int64)
    tokens_GL = np.zeros((len(groups), n_layers), dtype=np.int64)
    if n_layers and n_experts:
        for partials in mapped_chunks(trace, of_chunk):
            for names, counts, routed in partials:
                assignments_GLE[names] += counts
                tokens_GL[names] += routed
    return CountTable(groups=groups, assignments_GLE=assignments_GLE, tokens_GL=tokens_GL)


def _counter(
    *, one_byte: bool, top_k_L: np.ndarray, n_ranks: int, n_experts: int
) -> tuple[Callable[..., Any], np.dtype[Any]]:
    """The fastest loop for such ids, and the words in which it reads them."""
    from analysis.kernels import count_bytes, count_bytes_of, count_quads_of, count_words

    if not one_byte:
        return partial(count_words, n_experts=n_experts), np.dtype(np.uint16)
    if len(set(top_k_L.tolist())) != 1:
        return count_bytes, np.dtype(np.uint8)
    top_k = int(top_k_L[0])
    if top_k % 4 == 0 and n_ranks % 4 == 0 and sys.byteorder == "little":
        return count_quads_of(top_k // 4), np.dtype(np.uint32)
    return count_bytes_of(top_k), np.dtype(np.uint8)


def _from_counts(trace: RoutingTrace, *, groups: tuple[str, ...], by: By | None, phase: Phase | None) -> CountTable:
    assert trace.counts is not None
    if by in ("prompt", "phase") or phase is not None:
        require_tokens(trace, for_what=f"a count by {'phase' if phase is not None else by}")
    by_task = trace.counts.to_numpy().astype(np.int64)
    if by == "task":
        assignments_GLE = by_task
    else:
        assignments_GLE = np.zeros((len(groups), *by_task.shape[1:]), dtype=np.int64)
        into = np.zeros(len(by_task), dtype=np.int32) if by is None else _type_of_task(trace, groups)
        np.add.at(assignments_GLE, into, by_task)
    # Every routed token makes top_k assignments: an invariant of the trace.
    top_k_L = np.array([max(1, facts.top_k) for facts in trace.layer_facts], dtype=np.int64)
    return CountTable(groups=groups, assignments_GLE=assignments_GLE, tokens_GL=assignments_GLE.sum(axis=2) // top_k_L)
