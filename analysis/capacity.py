"""What a capacity would have dropped.

Legend: P prompt, U unit of resampling, B batch, G pass, L layer, E expert, F factor, S task, N position bin, R draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from analysis.intervals import interval_95
from analysis.passes import BatchOrder, Passes, passes_of
from analysis.positions import bin_names, bin_of_position, n_position_bins
from analysis.rates import draws_of_prompts
from analysis.scan import keyed_blocks
from analysis.size_effects import drawn_counts
from routing.chunks import PHASES
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["Priority", "capacity_drops"]

Priority = Literal["token", "rank"]

_DRAWS = 64
_CHUNK_TOKENS = 16384
_MOST_UNITS = 1000


def capacity_drops(
    trace: RoutingTrace,
    *,
    factors: Sequence[float] = (1.0, 1.25, 1.5, 2.0, 4.0),
    phase: Literal["prompt", "generated"] | None = "prompt",
    batch_size: int = 16,
    order: BatchOrder = "recorded",
    priority: Priority = "token",
    least: int = 1,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> xr.Dataset:
    """What would have been dropped, had every expert a capacity.

    In each pass and layer an expert takes C = ⌈factor · T k / E⌉ assignments, T the pass's tokens, and `least` at the
    least; what comes later is dropped. A dropped assignment's token goes on without that expert; later choices of the
    router are those that were recorded, as if nothing had been dropped. `even_router`: what as many independent tokens
    of an even router would lose.

    Intervals are 95 %: of the whole from drawing batches again, of tasks and positions from drawing prompts again
    within their tasks, each with what was dropped of it in the queue in which it stood.

    Args:
        trace: the trace.
        factors: capacity factors.
        phase: only passes of this phase; None takes all.
        batch_size: prompts a batch.
        order: how prompts are put into batches; they queue in the order in which they were recorded.
        priority: who comes first: "token" lets each token queue with all its ranks before the next token, "rank" lets
            all first choices queue before any second choice.
        least: smallest capacity.
        n_bootstrap: draws for the intervals; 0 for none.
        seed: of the shuffle and the draws.

    Returns:
        (factor, layer) · drop_rate, drop_rate_low, drop_rate_high, even_router, lost_tokens; (factor, layer, task),
        (factor, layer, position) and (factor, layer, rank) · drop_rate_by_task, drop_rate_by_position,
        drop_rate_by_rank, the first two with _low and _high · share of assignments, lost_tokens share of tokens that
        lose all their experts · 0 to 1; NaN where nothing was routed, ends of intervals where one prompt was.

    Raises:
        SelectionError: no factor is given or one is not above 0, or another option has no such value.
        TraceError: the trace holds counts only.

    References:
        Fedus, Zoph & Shazeer 2021, "Switch Transformers" (capacity factor); Lepikhin et al. 2020, "GShard" (all first
        choices first); Xue et al. 2024, "OpenMoE" (drop towards the end).
    """
    if not len(factors) or min(factors) <= 0 or least < 0:
        msg = f"Capacity factors {list(factors)} with at least {least} cannot be taken. Give factors above 0."
        raise SelectionError(msg)
    if priority not in ("token", "rank") or phase not in (*PHASES, None):
        msg = (
            f"Tokens queue by token or rank in the phases {list(PHASES)} or None, not by {priority!r} in {phase!r}. "
            "Correct the names."
        )
        raise SelectionError(msg)
    n_bootstrap = draws_of_prompts(trace, n_bootstrap)
    passes = passes_of(trace, batch_size=batch_size, order=order, seed=seed)
    of_phase_G = np.ones(len(passes.table), bool) if phase is None else (passes.table["phase"] == phase).to_numpy()
    number_G = np.where(of_phase_G, np.cumsum(of_phase_G) - 1, -1)
    batch_G = passes.table["batch"].to_numpy()[of_phase_G]
    units = _units_of(trace)
    found = _queues(
        trace,
        passes,
        units,
        number_G=np.append(number_G, -1),
        batch_G=batch_G,
        factors=np.asarray(factors, dtype=float),
        priority=priority,
        least=least,
        seed=seed,
    )
    dims = ("factor", "layer")
    n_bins = found["made_UNL"].shape[1]
    dropped_SFL, dropped_NFL = _of_tasks(found["dropped_UNFL"], units), found["dropped_UNFL"].sum(axis=0)
    made_SL, made_NL = _of_tasks(found["made_UNL"], units), found["made_UNL"].sum(axis=0)
    values = {
        "drop_rate": (dims, _rate(found["by_batch"].sum(axis=2), found["made_BL"].sum(axis=0)[None])),
        "even_router": (dims, found["even"]),
        "lost_tokens": (dims, _rate(found["lost"], found["tokens_L"][None])),
        "drop_rate_by_task": ((*dims, "task"), np.moveaxis(_rate(dropped_SFL, made_SL[:, None]), 0, -1)),
        "drop_rate_by_position": ((*dims, "position"), np.moveaxis(_rate(dropped_NFL, made_NL[:, None]), 0, -1)),
        "drop_rate_by_rank": ((*dims, "rank"), _rate(found["by_rank"], found["made_KL"].T[None])),
    }
    low, high = np.full((2, len(factors), trace.n_layers), np.nan)
    n_batches = passes.n_batches
    rng = np.random.default_rng(seed)
    if n_bootstrap and n_batches > 1:
        draws_RB = rng.multinomial(n_batches, np.full(n_batches, 1 / n_batches), n_bootstrap)
        dropped_FLR = found["by_batch"] @ draws_RB.T
        made_LR = found["made_BL"].T @ draws_RB.T
        low, high = interval_95(np.moveaxis(_rate(dropped_FLR, made_LR[None]), 2, 0))
    values |= {"drop_rate_low": (dims, low), "drop_rate_high": (dims, high)}
    values |= _part_intervals(found, units, dims=dims, n_bootstrap=n_bootstrap, rng=rng)
    shares = {name: "share of tokens" if name == "lost_tokens" else "share of assignments" for name in values}
    return xr.Dataset(
        {name: (dims_of, array, {"unit": shares[name]}) for name, (dims_of, array) in values.items()},
        coords={
            "factor": list(factors),
            "layer": list(trace.layers),
            "task": list(trace.tasks),
            "position": bin_names(n_bins),
            "rank": np.arange(trace.top_k),
        },
        attrs={
            "phase": phase or "all",
            "batch_size": batch_size,
            "order": order,
            "priority": priority,
            "least": least,
            "seed": seed,
        },
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Units:
    """What is drawn again: prompts, or where there are many, blocks of prompts of a task.

    Attributes:
        unit_P: unit of each prompt.
        task_U: task of each unit.
        n_tasks: tasks of the trace.
    """

    unit_P: np.ndarray
    task_U: np.ndarray
    n_tasks: int


def _units_of(trace: RoutingTrace) -> _Units:
    task_P = trace.task_of_prompt.astype(np.int64)
    size = max(1, -(-len(task_P) // _MOST_UNITS))
    place_P = np.zeros(len(task_P), np.int64)
    for task in np.unique(task_P):
        mine = task_P == task
        place_P[mine] = np.arange(mine.sum()) // size
    pairs, unit_P = np.unique(np.stack([task_P, place_P]), axis=1, return_inverse=True)
    return _Units(unit_P=unit_P.reshape(-1).astype(np.int64), task_U=pairs[0], n_tasks=len(trace.tasks))


def _of_tasks(values_UN: np.ndarray, units: _Units) -> np.ndarray:
    """(S, …) sums over the units of each task and all bins."""
    by_unit = values_UN.sum(axis=1)
    found = np.zeros((units.n_tasks, *by_unit.shape[1:]))
    np.add.at(found, units.task_U, by_unit)
    return found


def _part_intervals(
    found: dict[str, np.ndarray], units: _Units, *, dims: tuple[str, str], n_bootstrap: int, rng: np.random.Generator
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Intervals of tasks and positions, from units drawn again within their tasks."""
    dropped_UNFL, made_UNL = found["dropped_UNFL"], found["made_UNL"]
    n_units, n_bins, n_factors, n_layers = dropped_UNFL.shape
    times_RU = np.zeros((n_bootstrap, n_units))
    for task in np.unique(units.task_U):
        mine = np.flatnonzero(units.task_U == task)
        times_RU[:, mine] = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), n_bootstrap)
    parts = {
        "task": [np.flatnonzero(units.task_U == task) for task in range(units.n_tasks)],
        "position": [np.arange(n_units)] * n_bins,
    }
    values: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name, members in parts.items():
        low, high = np.full((2, n_factors, n_layers, len(members)), np.nan)
        for number, mine in enumerate(members):
            here = slice(None) if name == "task" else slice(number, number + 1)
            dropped_UFL, made_UL = dropped_UNFL[mine, here].sum(axis=1), made_UNL[mine, here].sum(axis=1)
            # The share of a single prompt is what it is however often that is drawn.
            several_L = (made_UL > 0).sum(axis=0) > 1
            dropped_RFL = np.tensordot(times_RU[:, mine], dropped_UFL, axes=1)
            made_RL = times_RU[:, mine] @ made_UL
            ends = interval_95(_rate(dropped_RFL, made_RL[:, None]))
            low[..., number], high[..., number] = (np.where(several_L, end, np.nan) for end in ends)
        values[f"drop_rate_by_{name}_low"] = ((*dims, name), low)
        values[f"drop_rate_by_{name}_high"] = ((*dims, name), high)
    return values


def _queues(
    trace: RoutingTrace,
    passes: Passes,
    units: _Units,
    *,
    number_G: np.ndarray,
    batch_G: np.ndarray,
    factors: np.ndarray,
    priority: Priority,
    least: int,
    seed: int,
) -> dict[str, np.ndarray]:
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.capacity_kernels import queue_up
    from analysis.kernels import frozen

    n_bins, n_batches, top_k = n_position_bins(trace), passes.n_batches, trace.top_k
    n_cells = len(units.task_U) * n_bins
    n_passes, n_layers, n_factors = len(batch_G), trace.n_layers, len(factors)
    found = {
        "by_cell": np.zeros((n_factors, n_layers, n_cells), np.int64),
        "by_batch": np.zeros((n_factors, n_layers, n_batches), np.int64),
        "by_rank": np.zeros((n_factors, n_layers, top_k), np.int64),
        "lost": np.zeros((n_factors, n_layers), np.int64),
        "tokens_L": np.zeros(n_layers, np.int64),
        "made_BL": np.zeros((n_batches, n_layers), np.int64),
        "made_CL": np.zeros((n_cells, n_layers), np.int64),
        "made_KL": np.zeros((top_k, n_layers), np.int64),
        "even": np.full((n_factors, n_layers), np.nan),
    }
    for layers, counts in keyed_blocks(trace, lambda chunk: number_G[passes.key(chunk)], n_groups=n_passes):
        # Where all first choices queue first, a token's fate is only known at the end: one layer at a time then.
        n_layers_here = counts.tokens_GL.shape[1]
        step = n_layers_here if priority == "token" else 1
        for first in range(0, n_layers_here, step):
            here = slice(first, first + step)
            part = slice(layers.start + first, layers.start + first + step)
            top_k_L = np.array([facts.top_k for facts in trace.layer_facts[part]], dtype=np.int64)
            experts_L = np.array([facts.n_experts for facts in trace.layer_facts[part]])
            fair_GL = counts.tokens_GL[:, here] * top_k_L / experts_L
            # Rounding must not lift an exact 12 to 13.
            capacity_FGL = np.maximum(np.ceil(factors[:, None, None] * fair_GL - 1e-9), least).astype(np.int32)
            waiting_GLE = np.zeros((n_passes, len(top_k_L), trace.n_experts), np.int32)
            upto = top_k_L[:, None]
            turns = [np.hstack([np.zeros_like(upto), upto])]
            if priority == "rank":
                turns = [np.hstack([np.minimum(rank, upto), np.minimum(rank + 1, upto)]) for rank in range(top_k)]
            # The kernel adds to whole arrays, not to views of some of their layers.
            names = ("by_cell", "by_batch", "by_rank")
            drops = tuple(np.ascontiguousarray(found[name][:, part]) for name in names)
            waiting_rows: list[np.ndarray] = []
            for turn, ranks in enumerate(turns):
                last = turn == len(turns) - 1
                for at, chunk in enumerate(trace.chunks(fields=("experts",), n_tokens=_CHUNK_TOKENS)):
                    assert chunk.experts is not None
                    if turn == 0:
                        waiting_rows.append(np.zeros((chunk.n_tokens, len(top_k_L), n_factors), np.uint8))
                    pass_T = number_G[passes.key(chunk)].astype(np.int64)
                    keys = (
                        pass_T,
                        units.unit_P[chunk.prompt] * n_bins + bin_of_position(chunk.position),
                        passes.batch_P[chunk.prompt],
                    )
                    lost_TLF = waiting_rows[at]
                    queue_up(frozen(chunk.experts), keys, ranks, part.start, capacity_FGL, waiting_GLE, drops, lost_TLF)
                    if last:
                        waiting_rows[at] = lost_TLF[:0]
                        routed_TL = (chunk.experts[:, part, 0] < trace.n_experts) & (pass_T >= 0)[:, None]
                        lost = (lost_TLF == top_k_L[:, None]) & routed_TL[..., None]
                        found["lost"][:, part] += lost.sum(axis=0).T
                        _add_made(found, keys, routed_TL, top_k_L=top_k_L, first_layer=part.start)
            for name, grown in zip(names, drops, strict=True):
                found[name][:, part] = grown
            for number in range(len(top_k_L)):
                found["even"][:, part.start + number] = _even(
                    counts.tokens_GL[:, first + number],
                    capacity_FG=capacity_FGL[:, :, number],
                    n_experts=int(experts_L[number]),
                    top_k=int(top_k_L[number]),
                    seed=seed,
                )
    of_cells = (len(units.task_U), n_bins, n_factors, n_layers)
    found["dropped_UNFL"] = np.moveaxis(found.pop("by_cell"), 2, 0).reshape(of_cells)
    found["made_UNL"] = found.pop("made_CL").reshape(of_cells[:2] + of_cells[3:])
    return found


def _add_made(
    found: dict[str, np.ndarray],
    keys: tuple[np.ndarray, ...],
    routed_TL: np.ndarray,
    *,
    top_k_L: np.ndarray,
    first_layer: int,
) -> None:
    """Add the assignments that were made, by cell of unit and position bin, batch and rank."""
    for number, times in enumerate(top_k_L.tolist()):
        layer, made = first_layer + number, routed_TL[:, number]
        found["tokens_L"][layer] += made.sum()
        for name, key_T in zip(("made_CL", "made_BL"), keys[1:], strict=True):
            found[name][:, layer] += np.bincount(key_T[made], minlength=len(found[name])) * times
        found["made_KL"][:times, layer] += made.sum()


def _even(tokens_G: np.ndarray, *, capacity_FG: np.ndarray, n_experts: int, top_k: int, seed: int) -> np.ndarray:
    """(F) share that an even router would lose over passes of these sizes."""
    rng = np.random.default_rng(seed)
    dropped_F, made = np.zeros(len(capacity_FG)), 0
    for size in np.unique(tokens_G[tokens_G > 0]):
        times = int((tokens_G == size).sum())
        capacity_F = capacity_FG[:, np.flatnonzero(tokens_G == size)[0]]
        drawn_RE = drawn_counts(int(size), rate_E=np.ones(n_experts), top_k=top_k, n_draws=_DRAWS, rng=rng)
        over_F = np.maximum(drawn_RE[None] - capacity_F[:, None, None], 0).sum(axis=2).mean(axis=1)
        dropped_F += times * over_F
        made += times * int(size) * top_k
    found: np.ndarray = dropped_F / made if made else np.full(len(capacity_FG), np.nan)
    return found


def _rate(dropped: np.ndarray, made: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.where(made > 0, dropped / np.maximum(made, 1), np.nan)
    return found
