"""What the routers of one stack on one device left behind, ranked and put into arrays.

T token, L layer, R rank, K selected rank, E expert.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hooks.kernels import fused_ranking, trusted
from hooks.ranking import ranking
from hooks.taps import Reading
from routing import LayerFacts

__all__ = ["ArrayPlan", "Lane", "fill", "planned_arrays"]

ScoresOf = Callable[[Tensor], Tensor | None]
Placed = list[tuple[int, Reading]]
"""Readings of one layer, each with the row at which it begins."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lane:
    """The routers of one stack that run on one device; they see the same tokens, so they share arrays.

    Attributes:
        stack: name of the stack.
        layers: their numbers along the layer axis of the trace.
        facts: their facts.
        scores_of: for each, logits to selection scores (or None where the rule is unknown).
    """

    stack: str
    layers: tuple[int, ...]
    facts: tuple[LayerFacts, ...]
    scores_of: tuple[ScoresOf, ...]


@dataclass(frozen=True, kw_only=True)
class ArrayPlan:
    """What is kept of each reading.

    Attributes:
        n_runners_up: ranks after the selected ones.
        n_ranks: ranks that are stored in every layer; a layer with fewer experts leaves some absent.
        id_type: torch.uint8, or torch.int16 for more experts than that holds.
        logits_type: precision of stored logits; None leaves them out.
        with_scores: whether scores and weights are kept, not ids alone.
        with_dropped: whether any router drops by capacity.
    """

    n_runners_up: int
    n_ranks: int
    id_type: torch.dtype
    logits_type: torch.dtype | None
    with_scores: bool
    with_dropped: bool


def planned_arrays(lane: Lane, plan: ArrayPlan) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
    """Name, size of what follows (token, layer), and type of each array of a lane."""
    top_k = max(facts.top_k for facts in lane.facts)
    arrays: list[tuple[str, tuple[int, ...], torch.dtype]] = [
        ("experts", (plan.n_ranks,), plan.id_type),
        ("finite", (), torch.bool),
    ]
    if plan.with_scores:
        arrays.append(("scores", (plan.n_ranks,), torch.float16))
        arrays.append(("weights", (top_k,), torch.float16))
    if plan.with_dropped:
        arrays.append(("dropped", (top_k,), torch.bool))
    if plan.logits_type is not None:
        arrays.append(("logits", (max(facts.n_experts for facts in lane.facts),), plan.logits_type))
    return arrays


def fill(
    lane: Lane,
    plan: ArrayPlan,
    readings: Sequence[Sequence[Reading | None]],
    *,
    n_rows: Sequence[Mapping[str, int]],
    arrays: Mapping[str, Tensor],
) -> None:
    """Queue the work that fills a lane's arrays from the readings of some passes.

    Args:
        lane: the routers.
        plan: what is kept.
        readings: (pass, layer).
        n_rows: rows of each stack in each pass.
        arrays: (token, layer, …) by name, as `planned_arrays` says.
    """
    by_layer = _by_layer(lane, readings, n_rows)
    flat = [reading for of_layer in by_layer for _, reading in of_layer]
    shapes = {(facts.top_k, _n_ranks_of(facts, plan), facts.n_experts) for facts in lane.facts}
    uneven = len(shapes) > 1 or _n_ranks_of(lane.facts[0], plan) < plan.n_ranks
    heard_of_all = all(sum(reading.rows is None for _, reading in of_layer) == len(n_rows) for of_layer in by_layer)
    if uneven or not heard_of_all or any(reading.logits is None for reading in flat):
        for name, array in arrays.items():
            # What is absent is the largest unsigned id, which is -1 in signed bits, and NaN elsewhere.
            blank = {"experts": 255 if array.dtype == torch.uint8 else -1, "finite": 1, "dropped": 0}
            array.fill_(blank.get(name, torch.nan))
    elif "dropped" in arrays and any(reading.dropped is None for reading in flat):
        arrays["dropped"].fill_(0)
    for place, of_layer in enumerate(by_layer):
        if of_layer:
            _fill_layer(lane, plan, place, of_layer=of_layer, arrays=arrays)


def _fill_layer(lane: Lane, plan: ArrayPlan, place: int, *, of_layer: Placed, arrays: Mapping[str, Tensor]) -> None:
    ids_TK = _joined([reading.ids for _, reading in of_layer])
    weights_TK = _joined([reading.weights for _, reading in of_layer])
    logits = [reading.logits for _, reading in of_layer]
    dropped = [reading.dropped for _, reading in of_layer]
    logits_TE = None if any(each is None for each in logits) else _joined(logits)
    dropped_TK = None if any(each is None for each in dropped) else _joined(dropped)
    scores_TE = None
    if logits_TE is not None and (plan.with_scores or plan.n_runners_up):
        scores_TE = lane.scores_of[place](logits_TE)
    rows = _scattered_rows(of_layer, n_all=len(arrays["experts"]))
    if ids_TK.is_cuda and logits_TE is not None and dropped_TK is None and rows is None:
        facts = lane.facts[place]
        widths = {"weights": facts.top_k, "logits": facts.n_experts}
        into = {
            name: array[:, place] if array.dim() == 2 else array[:, place, : widths.get(name, _n_ranks_of(facts, plan))]
            for name, array in arrays.items()
            if name != "dropped"
        }
        if _fused_is_right(ids_TK, weights_TK, logits_TE, scores_TE, into):
            fused_ranking(ids_TK, weights_TK, logits_TE, scores_TE=scores_TE, into=into)
            return
    ranked = ranking(ids_TK, weights_TK, scores_TE=scores_TE, dropped_TK=dropped_TK, n_runners_up=plan.n_runners_up)

    def put(name: str, values: Tensor) -> None:
        target = arrays[name][:, place]
        if target.dim() == 2:
            # Ranks beyond a layer's own experts are absent; they are cut off or left as they were filled.
            width = min(target.shape[1], values.shape[1])
            target, values = target[:, :width], values[:, :width]
        if rows is None:
            target.copy_(values)
        else:
            target.index_copy_(0, rows, values.to(target.dtype))

    put("experts", ranked.experts)
    if plan.with_scores:
        put("scores", ranked.scores)
        put("weights", ranked.weights)
    if "dropped" in arrays and ranked.dropped is not None:
        put("dropped", ranked.dropped)
    if "logits" in arrays and logits_TE is not None:
        put("logits", logits_TE)
        # Of what is stored: a logit beyond float16 is as wrong there as a NaN.
        put(
            "finite",
            _finite_rows(logits_TE.to(arrays["logits"].dtype) if plan.logits_type == torch.float16 else logits_TE),
        )
    else:
        put("finite", _finite_rows(weights_TK if logits_TE is None else logits_TE))


def _scattered_rows(of_layer: Placed, *, n_all: int) -> Tensor | None:
    """Which rows the readings are, where the router saw a part of the tokens only; None where it saw all."""
    if sum(len(reading.ids) for _, reading in of_layer if reading.rows is None) == n_all:
        return None
    parts = []
    for begin, reading in of_layer:
        rows = reading.rows
        parts.append(begin + (torch.arange(len(reading.ids), device=reading.ids.device) if rows is None else rows))
    return torch.cat(parts)


def _n_ranks_of(facts: LayerFacts, plan: ArrayPlan) -> int:
    return min(facts.n_experts, facts.top_k + plan.n_runners_up)


def _fused_is_right(
    ids_TK: Tensor, weights_TK: Tensor, logits_TE: Tensor, scores_TE: Tensor | None, into: dict[str, Tensor]
) -> bool:
    """Whether the fused kernel gives what `ranking` gives; found out once for each kind of router."""
    n_runners_up = into["experts"].shape[1] - ids_TK.shape[1]
    key = ("ranking", ids_TK.device, ids_TK.dtype, weights_TK.dtype, logits_TE.dtype, scores_TE is None)
    key += (*ids_TK.shape[1:], *logits_TE.shape[1:], n_runners_up, *((name, each.dtype) for name, each in into.items()))

    def agrees() -> bool:
        tried = {name: torch.empty_like(each) for name, each in into.items()}
        fused_ranking(ids_TK, weights_TK, logits_TE, scores_TE=scores_TE, into=tried)
        expected = ranking(ids_TK, weights_TK, scores_TE=scores_TE, dropped_TK=None, n_runners_up=n_runners_up)
        right = torch.equal(
            tried["experts"][:, : ids_TK.shape[1]], expected.experts[:, : ids_TK.shape[1]].to(into["experts"].dtype)
        )
        right &= torch.equal(tried["finite"], _finite_rows(logits_TE))
        if "scores" in into:
            # Equal scores may name their experts in another order, so scores are compared, not runners-up.
            right &= torch.equal(tried["weights"], expected.weights.half())
            right &= torch.allclose(tried["scores"], expected.scores.half(), rtol=2e-3, atol=1e-7, equal_nan=True)
        if "logits" in into:
            right &= torch.equal(tried["logits"], logits_TE.to(into["logits"].dtype))
        return right

    return trusted(key, agrees)


def _by_layer(
    lane: Lane, readings: Sequence[Sequence[Reading | None]], n_rows: Sequence[Mapping[str, int]]
) -> list[list[tuple[int, Reading]]]:
    """For each layer of the lane its readings, each with the row at which it begins."""
    by_layer: list[list[tuple[int, Reading]]] = [[] for _ in lane.layers]
    begin = 0
    for of_pass, size in zip(readings, n_rows, strict=True):
        for place, layer in enumerate(lane.layers):
            if (reading := of_pass[layer]) is not None:
                by_layer[place].append((begin, reading))
        begin += size.get(lane.stack, 0)
    return by_layer


def _joined(tensors: list[Any]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _finite_rows(values: Tensor) -> Tensor:
    # One sum tells: NaN and infinity survive addition, and finite logits do not overflow float32.
    return values.sum(dim=1, dtype=torch.float32).isfinite()
