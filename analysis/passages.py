"""One prompt under every layer at once: what a reader needs to go up and down the layers of a text.

Legend: L layer, T token of the prompt, K selected rank.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from analysis.reading import prompt_tokens
from analysis.router_scores import score_distribution
from analysis.scan import require_tokens
from routing.selection import Selection
from routing.trace import RoutingTrace

__all__ = ["passage_routing", "token_churn"]


def passage_routing(trace: RoutingTrace, prompt: str, *, entropy: bool = True) -> xr.Dataset:
    """What every layer did with each token of a prompt; tokens as in `prompt_tokens`, values as in `token_experts`.

    Args:
        trace: the trace.
        prompt: id of the prompt.
        entropy: whether to work out entropies, which reads the scores of all experts.

    Returns:
        (layer, token[, rank]) · experts: the selected ones by rank, −1 where there is none; weight of rank 0; margin;
        entropy · weight and margin in score, entropy as a share of ln(experts), NaN where unknown.

    Raises:
        SelectionError: the trace has no such prompt.
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="reading a prompt")
    part = trace.select(Selection(prompts=(prompt,)))
    n_tokens, n_layers, top_k = part.n_tokens, part.n_layers, part.top_k
    experts_LTK = np.full((n_layers, n_tokens, top_k), -1, dtype=np.int32)
    values_LT = {name: np.full((n_layers, n_tokens), np.nan, np.float32) for name in ("weight", "margin", "entropy")}
    fields = ("experts", "scores", "weights", *(("logits",) if entropy else ()))
    for chunk in part.chunks(fields=fields, n_tokens=4096):
        rows = slice(chunk.start, chunk.stop)
        assert chunk.experts is not None
        for layer, facts in enumerate(part.layer_facts):
            k = min(facts.top_k, top_k)
            selected_TK = chunk.experts[:, layer, :k].astype(np.int32)
            there_TK = selected_TK != part.absent
            experts_LTK[layer, rows, :k] = np.where(there_TK, selected_TK, -1)
            if chunk.weights is not None:
                values_LT["weight"][layer, rows] = chunk.weights[:, layer, 0]
            if chunk.scores is not None and chunk.scores.shape[2] > k:
                scores_TR = chunk.scores[:, layer].astype(np.float32)
                values_LT["margin"][layer, rows] = scores_TR[:, :k].min(axis=1) - scores_TR[:, k]
            if chunk.logits is not None and facts.n_experts > 1:
                shares_TE = score_distribution(chunk.logits[:, layer], facts=facts)
                positive = np.where(shares_TE > 0, shares_TE, 1)
                values_LT["entropy"][layer, rows] = -(shares_TE * np.log(positive)).sum(axis=1) / np.log(
                    facts.n_experts
                )
            for each in values_LT.values():
                each[layer, rows][~there_TK[:, 0]] = np.nan
    table = xr.Dataset(
        {"experts": (("layer", "token", "rank"), experts_LTK)}
        | {name: (("layer", "token"), values) for name, values in values_LT.items()},
        coords={"layer": list(part.layers), "position": ("token", part.tokens["position"].to_numpy())},
    )
    table.attrs["unit"] = {"weight": "weight", "margin": "score", "entropy": "share of ln(experts)"}
    return table


def token_churn(before: RoutingTrace, after: RoutingTrace, *, prompt: str) -> xr.Dataset:
    """What changed for each token of one prompt between two runs, layer by layer.

    `churn` as in `analysis.churn`: 1 − |S ∩ S'| / |S ∪ S'|, 0 where both selected the same experts in whatever order, 1
    where they have none in common. Only what both runs read alike is compared: tokens of one stack up to the first that
    differs, for after it the two contexts are two texts; and layers of one name and size that select equally many.

    Args:
        before: a trace.
        after: another one, whose tokens are listed.
        prompt: id of a prompt.

    Returns:
        (layer, token) · churn; margin before; (layer, token, rank) · experts_before and experts_after by rank, −1 where
        there is none · share 0 to 1, selection score · NaN where the two cannot be compared, or the margin is not
        known; coords position and piece.

    Raises:
        SelectionError: `after` has no such prompt.
        TraceError: one of the traces holds counts only.
    """
    require_tokens(before, for_what="a comparison of tokens")
    here = passage_routing(after, prompt, entropy=False)
    shape = (here.sizes["layer"], here.sizes["token"])
    churn_LT, margin_LT = np.full((2, *shape), np.nan, dtype=np.float32)
    before_LTK = np.full((*shape, here.sizes["rank"]), -1, dtype=np.int32)
    if prompt in set(before.prompts["prompt"]):
        there = passage_routing(before, prompt, entropy=False)
        own_T, other_T = _shared_tokens(after, before, prompt=prompt)
        sizes = {facts.label: (facts.n_experts, facts.top_k) for facts in before.layer_facts}
        for number, facts in enumerate(after.layer_facts):
            if sizes.get(facts.label) != (facts.n_experts, facts.top_k):
                continue
            mine_TK = here["experts"].values[number, own_T, : facts.top_k]
            theirs_TK = there["experts"].sel(layer=facts.label).values[other_T, : facts.top_k]
            routed_T = np.asarray((mine_TK >= 0).all(axis=1) & (theirs_TK >= 0).all(axis=1))
            shared_TKK = (mine_TK[:, :, None] == theirs_TK[:, None, :]) & routed_T[:, None, None]
            n_shared_T = shared_TKK.sum(axis=(1, 2))
            churn_LT[number, own_T] = np.where(routed_T, 1 - n_shared_T / (2 * facts.top_k - n_shared_T), np.nan)
            before_LTK[number, own_T, : facts.top_k] = theirs_TK
            margin_LT[number, own_T] = there["margin"].sel(layer=facts.label).values[other_T]
    found = xr.Dataset(
        {
            "churn": (("layer", "token"), churn_LT, {"unit": "share"}),
            "margin": (("layer", "token"), margin_LT, {"unit": "selection score"}),
            "experts_before": (("layer", "token", "rank"), before_LTK, {"unit": "expert"}),
            "experts_after": (("layer", "token", "rank"), here["experts"].values, {"unit": "expert"}),
        },
        coords={
            "layer": here["layer"],
            "position": here["position"],
            "piece": ("token", prompt_tokens(after, prompt)["piece"].to_numpy(dtype=object)),
        },
    )
    return found


def _shared_tokens(trace: RoutingTrace, base: RoutingTrace, *, prompt: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one prompt's tokens that both runs read after the same tokens, in each run's count."""
    ours, theirs = (each.select(Selection(prompts=(prompt,))).tokens for each in (trace, base))
    own, other = [], []
    for stack in ours["stack"].unique():
        mine, yours = (each[each["stack"].astype(str) == str(stack)] for each in (ours, theirs))
        n_both = min(len(mine), len(yours))
        same = np.ones(n_both, dtype=bool)
        for column in ("token_id", "position"):
            same &= mine[column].to_numpy()[:n_both] == yours[column].to_numpy()[:n_both]
        n_alike = n_both if same.all() else int(same.argmin())
        own.append(mine.index.to_numpy()[:n_alike])
        other.append(yours.index.to_numpy()[:n_alike])
    return (np.concatenate(own), np.concatenate(other)) if own else (np.zeros(0, int), np.zeros(0, int))
