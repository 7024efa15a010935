"""What a capacity would have dropped.

Legend: P prompt, B batch, G pass, L layer, E expert, F factor, S task, N position bin, R resampling.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    Args:
        trace: the trace.
        factors: capacity factors.
        phase: only passes of this phase; None takes all.
        batch_size: prompts a batch.
        order: how prompts are put into batches; they queue in the order in which they were recorded.
        priority: who comes first: "token" lets each token queue with all its ranks before the next token, "rank" lets
            all first choices queue before any second choice.
        least: smallest capacity.
        n_bootstrap: draws of batches for the intervals; 0 for none.
        seed: of the shuffle and the draws.

    Returns:
        (factor, layer) · drop_rate, drop_rate_low, drop_rate_high, even_router, lost_tokens; (factor, layer, task),
        (factor, layer, position) and (factor, layer, rank) · drop_rate_by_task, drop_rate_by_position,
        drop_rate_by_rank · share of assignments, lost_tokens share of tokens that lose all their experts · 0 to 1; NaN
        where nothing was routed.

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
    found = _queues(
        trace,
        passes,
        number_G=np.append(number_G, -1),
        batch_G=batch_G,
        factors=np.asarray(factors, dtype=float),
        priority=priority,
        least=least,
        seed=seed,
    )
    dims = ("factor", "layer")
    values = {
        "drop_rate": (dims, _rate(found["by_batch"].sum(axis=2), found["made_BL"].sum(axis=0)[None])),
        "even_router": (dims, found["even"]),
        "lost_tokens": (dims, _rate(found["lost"], found["tokens_L"][None])),
        "drop_rate_by_task": ((*dims, "task"), _rate(found["by_task"], found["made_SL"].T[None])),
        "drop_rate_by_position": ((*dims, "position"), _rate(found["by_bin"], found["made_NL"].T[None])),
        "drop_rate_by_rank": ((*dims, "rank"), _rate(found["by_rank"], found["made_KL"].T[None])),
    }
    low, high = np.full((2, len(factors), trace.n_layers), np.nan)
    n_batches = passes.n_batches
    if n_bootstrap and n_batches > 1:
        rng = np.random.default_rng(seed)
        draws_RB = rng.multinomial(n_batches, np.full(n_batches, 1 / n_batches), n_bootstrap)
        dropped_FLR = found["by_batch"] @ draws_RB.T
        made_LR = found["made_BL"].T @ draws_RB.T
        low, high = interval_95(np.moveaxis(_rate(dropped_FLR, made_LR[None]), 2, 0))
    values |= {"drop_rate_low": (dims, low), "drop_rate_high": (dims, high)}
    units = {name: "share of tokens" if name == "lost_tokens" else "share of assignments" for name in values}
    return xr.Dataset(
        {name: (dims_of, array, {"unit": units[name]}) for name, (dims_of, array) in values.items()},
        coords={
            "factor": list(factors),
            "layer": list(trace.layers),
            "task": list(trace.tasks),
            "position": bin_names(found["by_bin"].shape[2]),
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


def _queues(
    trace: RoutingTrace,
    passes: Passes,
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

    n_bins, n_tasks, n_batches, top_k = n_position_bins(trace), len(trace.tasks), passes.n_batches, trace.top_k
    n_passes, n_layers, n_factors = len(batch_G), trace.n_layers, len(factors)
    found = {
        "by_task": np.zeros((n_factors, n_layers, n_tasks), np.int64),
        "by_bin": np.zeros((n_factors, n_layers, n_bins), np.int64),
        "by_batch": np.zeros((n_factors, n_layers, n_batches), np.int64),
        "by_rank": np.zeros((n_factors, n_layers, top_k), np.int64),
        "lost": np.zeros((n_factors, n_layers), np.int64),
        "tokens_L": np.zeros(n_layers, np.int64),
        "made_BL": np.zeros((n_batches, n_layers), np.int64),
        "made_SL": np.zeros((n_tasks, n_layers), np.int64),
        "made_NL": np.zeros((n_bins, n_layers), np.int64),
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
            names = ("by_task", "by_bin", "by_batch", "by_rank")
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
                        chunk.task.astype(np.int64),
                        bin_of_position(chunk.position),
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
    return found


def _add_made(
    found: dict[str, np.ndarray],
    keys: tuple[np.ndarray, ...],
    routed_TL: np.ndarray,
    *,
    top_k_L: np.ndarray,
    first_layer: int,
) -> None:
    """Add the assignments that were made, by task, position bin, batch and rank."""
    for number, times in enumerate(top_k_L.tolist()):
        layer, made = first_layer + number, routed_TL[:, number]
        found["tokens_L"][layer] += made.sum()
        for name, key_T in zip(("made_SL", "made_NL", "made_BL"), keys[1:], strict=True):
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
