"""From logits to the scores by which experts are chosen: a rule learned from what was recorded, never assumed.

Legend: N row, E expert, K rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Grouping", "SelectionRule", "WeightRule", "learn_selection_rule", "learn_weight_rule"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
    "sqrt_softplus": lambda logits: functional.softplus(logits).sqrt(),
    "logits": lambda logits: logits,
}


@dataclass(frozen=True)
class Grouping:
    """The first stage of a router that selects groups of experts before experts.

    Attributes:
        n_groups: groups of equal size.
        top_groups: how many of them are selected.
        group_score: how many of a group's best scores are summed to rank it: 1 or 2.
        excluded_score: what an expert of another group is given: -inf, or 0 where the model compares that 0.
    """

    n_groups: int
    top_groups: int
    group_score: int = 2
    excluded_score: float = float("-inf")

    def restrict(self, scores: Tensor) -> Tensor:
        """Scores with those of unselected groups replaced.

        Returns:
            (row, expert) · selection score · -inf or 0 outside the selected groups.
        """
        grouped = scores.unflatten(-1, (self.n_groups, -1))
        of_groups = grouped.topk(self.group_score, dim=-1).values.sum(dim=-1)
        selected = torch.zeros_like(of_groups, dtype=torch.bool)
        selected.scatter_(-1, of_groups.topk(self.top_groups, dim=-1).indices, True)  # noqa: FBT003
        return grouped.masked_fill(~selected.unsqueeze(-1), self.excluded_score).flatten(-2)


@dataclass(frozen=True, eq=False)
class SelectionRule:
    """How a router turns logits into the scores of which it takes the largest.

    Attributes:
        score_function: "softmax", "sigmoid", "sqrt_softplus" or "logits".
        bias: (expert) added to the scores for choosing only, or None.
        grouping: the stage that selects groups first, or None.
    """

    score_function: str
    bias: Tensor | None = None
    grouping: Grouping | None = None
    _bias_on: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    def scores(self, logits: Tensor) -> Tensor:
        """What the router compared, on the logits' device.

        Returns:
            (row, expert) · selection score, bias included · -inf where the expert could not be chosen.
        """
        scores = ACTIVATIONS[self.score_function](logits.float())
        if self.bias is not None:
            if logits.device not in self._bias_on:
                self._bias_on[logits.device] = self.bias.to(logits.device)
            scores = scores + self._bias_on[logits.device]
        return scores if self.grouping is None else self.grouping.restrict(scores)

    def reproduces(self, logits: Tensor, ids: Tensor) -> bool:
        """Whether the recorded experts are a top-k of these scores in every row, up to ties of rounding."""
        scores = self.scores(logits)
        chosen = scores.gather(-1, ids)
        others = scores.scatter(-1, ids, float("-inf"))
        # Scores may have been rounded to the logits' precision before they were compared.
        magnitude = scores.masked_fill(scores.isinf(), 0).abs().amax(dim=-1)
        tolerance = 4 * torch.finfo(logits.dtype).eps * magnitude.clamp(min=1e-3)
        return bool((chosen.amin(dim=-1) >= others.amax(dim=-1) - tolerance).all())


@dataclass(frozen=True)
class WeightRule:
    """How the weights follow from the logits of the chosen experts.

    Attributes:
        score_function: the activation.
        normalized: whether the chosen ones are divided by their sum.
        scale: constant factor; None where the factor depends on the expert.
    """

    score_function: str
    normalized: bool
    scale: float | None


def learn_selection_rule(
    logits: Tensor,
    ids: Tensor,
    *,
    biases: Iterable[Tensor],
    groupings: Iterable[Grouping],
    prefer: Sequence[str] = (),
) -> SelectionRule | None:
    """The first candidate that reproduces every recorded choice; None when none does.

    Candidates run from the most special to the plainest: a bias or a grouping that the model holds is believed
    before none, and each only if the recorded experts are its top-k.

    Args:
        logits: (row, expert) router output before activation.
        ids: (row, rank) experts applied.
        biases: vectors near the router that may be its selection bias.
        groupings: groupings that the router or its configuration names.
        prefer: score functions to try first.
    """
    # Without a bias all activations rank alike, so the weights decide which one to name.
    names = [*dict.fromkeys([*prefer, "sigmoid", "softmax", "logits", "sqrt_softplus"])]
    plain = [*dict.fromkeys([*prefer, "softmax"])]
    groupings = list(groupings)
    for bias in biases:
        for rule in _candidates(names, bias, groupings):
            if rule.reproduces(logits, ids):
                return rule
    # A sum over a group depends on the activation even without a bias.
    for rule in (*_candidates(names, None, groupings, ungrouped=False), *_candidates(plain, None, [])):
        if rule.reproduces(logits, ids):
            return rule
    return None


def _candidates(
    names: Sequence[str], bias: Tensor | None, groupings: Sequence[Grouping], *, ungrouped: bool = True
) -> Iterator[SelectionRule]:
    for grouping in (*groupings, None) if ungrouped else groupings:
        for name in names:
            yield SelectionRule(name, bias, grouping)


def learn_weight_rule(logits: Tensor, ids: Tensor, weights: Tensor) -> WeightRule | None:
    """The activation, normalization and scale that give the recorded weights; None when no candidate does.

    A softmax over the chosen logits alone is the same number as a normalized softmax and is reported as that.

    Args:
        logits: (row, expert) router output before activation.
        ids: (row, rank) experts applied.
        weights: (row, rank) weights applied.
    """
    precision = max(torch.finfo(weights.dtype).eps, torch.finfo(logits.dtype).eps)
    tolerance = max(8 * precision, 1e-4)
    recorded = weights.double()
    if not recorded.numel():
        return None
    best: tuple[float, WeightRule] | None = None
    for name in ("softmax", "sigmoid", "sqrt_softplus"):
        chosen = ACTIVATIONS[name](logits.double()).gather(-1, ids)
        for normalized in (False, True):
            expected = chosen / chosen.sum(dim=-1, keepdim=True) if normalized else chosen
            ratio = recorded / expected
            if not bool(ratio.isfinite().all()):
                continue
            fit = _constant_factor(ratio, ids, tolerance)
            if fit is not None and (best is None or fit[0] < 0.1 * best[0]):
                best = max(fit[0], 1e-6), WeightRule(name, normalized, fit[1])
    return None if best is None else best[1]


def _constant_factor(ratio: Tensor, ids: Tensor, tolerance: float) -> tuple[float, float | None] | None:
    """(error, scale) where the ratio is one number, or (error, None) where it is one number an expert."""
    middle = ratio.median()
    error = float((ratio / middle - 1).abs().max())
    if error < tolerance:
        return error, float(f"{float(middle):.4g}")
    total = torch.zeros(int(ids.max()) + 1, dtype=ratio.dtype).scatter_reduce_(
        0, ids.reshape(-1), ratio.reshape(-1), "mean", include_self=False
    )
    error = float((ratio / total[ids] - 1).abs().max())
    # One row an expert would fit anything; ask for enough rows to mean something.
    return (error, None) if error < tolerance and ratio.numel() >= 4 * total.numel() else None
