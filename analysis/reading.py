"""One prompt, one token: what the routers did with this text.

Legend: T token, R stored rank.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.router_scores import score_distribution
from analysis.scan import require_tokens
from routing.chunks import Chunk
from routing.errors import SelectionError
from routing.facts import LayerFacts
from routing.selection import Selection
from routing.trace import RoutingTrace

__all__ = ["prompt_tokens", "token_adapters", "token_experts", "token_route"]


def prompt_tokens(trace: RoutingTrace, prompt: str) -> pd.DataFrame:
    """The tokens of one prompt, in the order of the trace.

    A token without a known piece of text is shown by its number in brackets.

    Returns:
        (token) · position, piece, token_id, phase, stack, nll · nll in nats, NaN where unknown.

    Raises:
        SelectionError: the trace has no such prompt.
        TraceError: the trace holds counts only.
    """
    part = _of_prompt(trace, prompt)
    tokens = part.tokens
    ids = tokens["token_id"].to_numpy()
    known = part.vocabulary.reindex(ids).to_numpy(dtype=object)
    pieces = [f"[{number}]" if pd.isna(piece) else str(piece) for number, piece in zip(ids, known, strict=True)]
    frame = pd.DataFrame({"position": tokens["position"], "piece": pd.Series(pieces, dtype="str"), "token_id": ids})
    frame = frame.assign(phase=tokens["phase"], stack=tokens["stack"], nll=tokens["nll"])
    frame.attrs["unit"] = {"nll": "nats"}
    return frame


def token_experts(trace: RoutingTrace, prompt: str, *, layer: str) -> pd.DataFrame:
    """What one layer did with each token of a prompt; rows as in `prompt_tokens`.

    - `expert`, `weight`: of rank 0, the expert with the largest weight; missing where the layer did not route the
      token, as it does not those of another stack.
    - `margin`: least score of the selected − score of the first runner-up; NaN without runners-up.
    - `entropy`: of the router's scores over all experts, as a share of ln(experts); NaN without logits.

    Returns:
        (token) · position, expert, weight, margin, entropy · weight and margin in score, entropy 0 to 1.

    Raises:
        SelectionError: the trace has no such prompt or layer.
        TraceError: the trace holds counts only.
    """
    part = _of_prompt(trace, prompt)
    facts = _facts_of(part, layer)
    at = part.layers.index(layer)
    chunk = _all_of(part)
    if chunk is None:
        empty = pd.DataFrame({name: np.zeros(0) for name in ("position", "expert", "weight", "margin", "entropy")})
        return empty.astype({"position": "int32", "expert": "Int64"})
    assert chunk.experts is not None
    first = chunk.experts[:, at, 0]
    expert = pd.array(first.astype(np.int64), dtype="Int64")
    expert[first == part.absent] = pd.NA
    entropy = np.full(chunk.n_tokens, np.nan)
    if chunk.logits is not None and facts.n_experts > 1:
        shares_TE = score_distribution(chunk.logits[:, at], facts=facts)
        positive = np.where(shares_TE > 0, shares_TE, 1)
        entropy = -(shares_TE * np.log(positive)).sum(axis=-1) / np.log(facts.n_experts)
    frame = pd.DataFrame(
        {
            "position": chunk.position,
            "expert": expert,
            "weight": _of_layer(chunk.weights, at, n_tokens=chunk.n_tokens)[:, 0],
            "margin": _margins(_of_layer(chunk.scores, at, n_tokens=chunk.n_tokens), top_k=facts.top_k),
            "entropy": entropy,
        }
    )
    frame.attrs["unit"] = {"weight": "weight", "margin": "score", "entropy": "share of ln(experts)"}
    return frame


def token_route(trace: RoutingTrace, prompt: str, *, position: int, stack: str | None = None) -> pd.DataFrame:
    """What every layer did with one token: the selected experts, then the runners-up.

    Layers that did not route the token have no rows. Where two stacks number their positions alike, both tokens'
    rows are given unless `stack` names one.

    Returns:
        (row) · layer, rank, expert, score, weight, selected, dropped, margin · score and margin in score, weight NaN
        for runners-up, dropped missing where it was not recorded, margin NaN without runners-up.

    Raises:
        SelectionError: the trace has no such prompt, or the prompt no such position.
        TraceError: the trace holds counts only.
    """
    part = _of_prompt(trace, prompt)
    chunk, here = _at(part, position=position, stack=stack, fields=_FIELDS)
    rows = [row for token in here for row in _route(part, chunk, int(token))]
    frame = pd.DataFrame(rows, columns=["layer", "rank", "expert", "score", "weight", "selected", "dropped", "margin"])
    frame = frame.astype({"dropped": "boolean"})
    frame.attrs["unit"] = {"score": "score", "weight": "weight", "margin": "score"}
    return frame


def token_adapters(trace: RoutingTrace, prompt: str, *, position: int, stack: str | None = None) -> pd.DataFrame:
    """What generated adapters added to one token, site by site.

    - `ratio`: norm of what the adapter added over the norm of the output that it was added to.
    - `key`: what the adapter was made from: the selected set of experts, a task or a prompt.

    Returns:
        (site) · adapter, key, ratio · ratio 0 and up, NaN where no adapter was applied; no rows for a trace
        without adapters.

    Raises:
        SelectionError: the trace has no such prompt, or the prompt no such position.
        TraceError: the trace holds counts only.
    """
    part = _of_prompt(trace, prompt)
    chunk, here = _at(part, position=position, stack=stack, fields=("adapter_index", "adapter_ratio"))
    sites = [site.label for site in part.adapters.sites] if part.adapters is not None else []
    index, ratio = np.full(len(sites), -1), np.full(len(sites), np.nan, dtype=np.float32)
    for token in here:
        if chunk.adapter_index is not None:
            index = np.where(index < 0, chunk.adapter_index[token], index)
        if chunk.adapter_ratio is not None:
            ratio = np.where(np.isnan(ratio), chunk.adapter_ratio[token].astype(np.float32), ratio)
    keys = part.adapters.table["key"].reindex(index).to_numpy(dtype=object) if part.adapters is not None else []
    frame = pd.DataFrame(
        {"adapter": index, "key": [None if pd.isna(key) else str(key) for key in keys], "ratio": ratio},
        index=pd.Index(sites, name="site"),
    )
    frame.attrs["unit"] = {"ratio": "share of the norm"}
    return frame


_FIELDS = ("experts", "scores", "weights", "dropped", "logits")


def _at(part: RoutingTrace, *, position: int, stack: str | None, fields: tuple[str, ...]) -> tuple[Chunk, np.ndarray]:
    """One prompt's chunk, and its rows at a position."""
    chunk = next(iter(part.chunks(fields=fields, n_tokens=max(1, part.n_tokens))), None)
    if chunk is not None:
        found = chunk.position == position
        if stack is not None:
            found &= np.array([part.stacks[code] == stack for code in chunk.stack])
        if found.any():
            return chunk, np.flatnonzero(found)
    n_tokens = 0 if chunk is None else chunk.n_tokens
    where = "" if stack is None else f" in the stack {stack!r}"
    prompt = part.prompts["prompt"].iloc[0]
    msg = (
        f"The prompt {prompt!r} has no position {position}{where}; it has {n_tokens} tokens. "
        "Choose one that `prompt_tokens` lists."
    )
    raise SelectionError(msg)


def _route(part: RoutingTrace, chunk: Chunk, token: int) -> list[dict[str, object]]:
    assert chunk.experts is not None
    rows: list[dict[str, object]] = []
    for number, facts in enumerate(part.layer_facts):
        scores_TR = _of_layer(chunk.scores, number, n_tokens=chunk.n_tokens)[[token]]
        weights_TK = _of_layer(chunk.weights, number, n_tokens=chunk.n_tokens)[[token]]
        margin = float(_margins(scores_TR, top_k=facts.top_k)[0])
        for rank, expert in enumerate(chunk.experts[token, number]):
            if expert == part.absent:
                continue
            selected = rank < facts.top_k
            rows.append(
                {
                    "layer": facts.label,
                    "rank": rank,
                    "expert": int(expert),
                    "score": float(scores_TR[0, min(rank, scores_TR.shape[1] - 1)]),
                    "weight": float(weights_TK[0, min(rank, weights_TK.shape[1] - 1)]) if selected else np.nan,
                    "selected": selected,
                    "dropped": bool(chunk.dropped[token, number, rank])
                    if selected and chunk.dropped is not None
                    else pd.NA,
                    "margin": margin,
                }
            )
    return rows


def _of_prompt(trace: RoutingTrace, prompt: str) -> RoutingTrace:
    require_tokens(trace, for_what="reading a prompt")
    return trace.select(Selection(prompts=(prompt,)))


def _all_of(part: RoutingTrace) -> Chunk | None:
    """The prompt as one chunk; None if it has no tokens."""
    return next(iter(part.chunks(fields=_FIELDS, n_tokens=max(1, part.n_tokens))), None)


def _facts_of(trace: RoutingTrace, layer: str) -> LayerFacts:
    for facts in trace.layer_facts:
        if facts.label == layer:
            return facts
    msg = f"This trace has no MoE layer {layer!r}; it holds {list(trace.layers)}. Choose among what it holds."
    raise SelectionError(msg)


def _of_layer(values_TLR: np.ndarray | None, layer: int, *, n_tokens: int) -> np.ndarray:
    """One layer's part, a single column of NaN where it was not recorded."""
    if values_TLR is None:
        return np.full((n_tokens, 1), np.nan, dtype=np.float32)
    return values_TLR[:, layer].astype(np.float32)


def _margins(scores_TR: np.ndarray, *, top_k: int) -> np.ndarray:
    """Least selected score − first runner-up's, of each token; ranks of the selected go by weight, not by score."""
    if scores_TR.shape[1] <= top_k:
        return np.full(len(scores_TR), np.nan, dtype=np.float32)
    return scores_TR[:, :top_k].min(axis=1) - scores_TR[:, top_k]
