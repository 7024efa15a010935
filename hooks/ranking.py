"""Rank order and runners-up, made once, on the device that routed.

T token, E expert, K rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Ranking", "ranking"]

ABSENT = -1
"""Stands for "no expert here" on the device; the same bits are the dtype's maximum once read as unsigned."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """One router's decisions in rank order.

    Attributes:
        experts: (token, rank) selected experts by weight, then runners-up by selection score; -1 where there is none.
        scores: (token, rank) selection scores; NaN where unknown.
        weights: (token, rank < top_k) weights as applied.
        dropped: (token, rank < top_k) whether capacity dropped the assignment, or None.
    """

    experts: Tensor
    scores: Tensor
    weights: Tensor
    dropped: Tensor | None


def ranking(
    ids_TK: Tensor, weights_TK: Tensor, *, scores_TE: Tensor | None, dropped_TK: Tensor | None, n_runners_up: int
) -> Ranking:
    """Selected experts by weight and the best unselected ones by selection score.

    Only launches work on the current stream: nothing here asks the device for a value.

    Returns:
        (token, rank) each · ids, scores and weights · ids 0 to n_experts - 1, or -1.
    """
    # DeepSeek and others take their top-k unsorted, so rank order must be made here, once.
    weights_TK, order_TK = weights_TK.sort(dim=-1, descending=True, stable=True)
    ids_TK = ids_TK.gather(1, order_TK).long()
    if dropped_TK is not None:
        dropped_TK = dropped_TK.gather(1, order_TK)
    n_tokens, top_k = ids_TK.shape
    if scores_TE is None:
        unknown = ids_TK.new_full((n_tokens, n_runners_up), ABSENT)
        scores = torch.full((n_tokens, top_k + n_runners_up), torch.nan, device=ids_TK.device)
        return Ranking(experts=torch.cat((ids_TK, unknown), 1), scores=scores, weights=weights_TK, dropped=dropped_TK)
    scores_TE = scores_TE.float()
    selected = scores_TE.gather(1, ids_TK)
    rivals_TE = scores_TE.scatter(1, ids_TK, -torch.inf)
    if ids_TK.is_cuda:
        runner_scores, runner_ids = _by_repeated_maximum(rivals_TE, min(n_runners_up, rivals_TE.shape[1]))
    else:
        runner_scores, runner_ids = rivals_TE.topk(min(n_runners_up, rivals_TE.shape[1]))
    # What the router could not have chosen (a masked group, fewer experts than ranks) is nobody's runner-up.
    impossible = runner_scores == -torch.inf
    runner_ids = runner_ids.masked_fill(impossible, ABSENT)
    runner_scores = runner_scores.masked_fill(impossible, torch.nan)
    if short := n_runners_up - runner_ids.shape[1]:
        runner_ids = torch.nn.functional.pad(runner_ids, (0, short), value=ABSENT)
        runner_scores = torch.nn.functional.pad(runner_scores, (0, short), value=torch.nan)
    return Ranking(
        experts=torch.cat((ids_TK, runner_ids), 1),
        scores=torch.cat((selected, runner_scores), 1),
        weights=weights_TK,
        dropped=dropped_TK,
    )


def _by_repeated_maximum(rivals_TE: Tensor, n: int) -> tuple[Tensor, Tensor]:
    # torch.topk gives one thread block to each row of 64 numbers; n row maxima read the memory n times and are
    # several times faster for the few runners-up that are kept.
    if n == 0:
        empty = rivals_TE[:, :0]
        return empty, empty.long()
    scores, ids = [], []
    for rank in range(n):
        score, best = rivals_TE.max(dim=1, keepdim=True)
        scores.append(score)
        ids.append(best)
        if rank < n - 1:
            rivals_TE.scatter_(1, best, -torch.inf)
    return torch.cat(scores, 1), torch.cat(ids, 1)
