"""What training would have seen: auxiliary losses and the health of the logits.

Legend: P prompt, B batch, T token, L layer, E expert, R resampling.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.passes import BatchOrder, batches_of
from analysis.rates import draws_of_prompts
from analysis.router_scores import has_known_scores, score_distribution
from analysis.scan import mapped_chunks, prompt_blocks, require_tokens
from routing.chunks import Chunk
from routing.errors import TraceError
from routing.trace import RoutingTrace

__all__ = ["router_losses"]

_CHUNK_TOKENS = 4096
_UNITS = {
    "balance_loss": "1 is even",
    "balance_loss_low": "1 is even",
    "balance_loss_high": "1 is even",
    "balance_loss_batch": "1 is even",
    "balance_loss_sequence": "1 is even",
    "z_loss": "nats²",
    "top_k_mass": "share of the scores",
    "n_tokens": "tokens",
}


def router_losses(
    trace: RoutingTrace,
    *,
    batch_size: int = 16,
    order: BatchOrder = "recorded",
    n_bootstrap: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """The auxiliary losses of each router over this run, without their coefficients.

    - `balance_loss`: E Σ_e f_e P_e over the run, f_e the share of assignments, P_e the mean score; 1 where either is
      even. Switch, Megatron and DeepSeekMoE's expert level are this times their coefficients; GShard's is this / E²;
      the variant of the transformers library pools all layers first and is k times as large
      (`attrs["balance_loss_pooled"]`, there divided by k).
    - `balance_loss_batch`, `balance_loss_sequence`: the same within each batch or prompt, then averaged.
    - `z_loss`: mean of (ln Σ_e exp z_e)².
    - `top_k_mass`: mean share of the scores that the selected experts hold.

    Args:
        trace: the trace, with logits.
        batch_size: prompts a batch.
        order: how prompts are put into batches.
        n_bootstrap: draws of prompts for the interval; 0 for none.
        seed: of the draws.

    Returns:
        (layer) · balance_loss, balance_loss_low, balance_loss_high, balance_loss_batch, balance_loss_sequence, z_loss,
        top_k_mass, n_tokens · as the units say; NaN where the score function is not known or nothing was routed.

    Raises:
        SelectionError: the batch size is below 1, or the order has another name.
        TraceError: the trace holds counts only, or no logits.

    References:
        Fedus, Zoph & Shazeer 2021, "Switch Transformers"; Lepikhin et al. 2020, "GShard"; Dai et al. 2024,
        "DeepSeekMoE"; Zoph et al. 2022, "ST-MoE" (z-loss); Qiu et al. 2025, "Demons in the Detail" (scales).
    """
    require_tokens(trace, for_what="a loss of routers")
    if trace.storage.rows("logits") is None:
        msg = (
            f"Losses of routers need logits, which a trace of level {trace.level!r} does not hold. "
            'Record again at level "full".'
        )
        raise TraceError(msg)
    n_bootstrap = draws_of_prompts(trace, n_bootstrap)
    batch_P = batches_of(trace, batch_size=batch_size, order=order, seed=seed)
    score_PLE, z_L, mass_L, tokens_L = _sums(trace)
    n_batches = int(batch_P.max(initial=-1)) + 1
    weights_RP = np.random.default_rng(seed).multinomial(
        trace.n_prompts, np.full(trace.n_prompts, 1 / max(1, trace.n_prompts)), n_bootstrap
    )
    rows = []
    pooled_f, pooled_p = np.zeros(trace.n_experts), np.zeros(trace.n_experts)
    same = len({(facts.n_experts, facts.top_k) for facts in trace.layer_facts}) == 1
    for layers, table in prompt_blocks(trace):
        for number in range(table.tokens_GL.shape[1]):
            facts = trace.layer_facts[layers.start + number]
            counts_PE = table.assignments_GLE[:, number, : facts.n_experts].astype(float)
            score_PE = score_PLE[:, layers.start + number, : facts.n_experts]
            pooled_f[: facts.n_experts] += counts_PE.sum(axis=0)
            pooled_p[: facts.n_experts] += score_PE.sum(axis=0)
            known = has_known_scores(facts)
            low = high = np.nan
            if known and n_bootstrap and trace.n_prompts > 1 and counts_PE.any():
                drawn_R = _loss(weights_RP @ counts_PE, weights_RP @ score_PE)
                if np.isfinite(drawn_R).any():
                    low, high = np.nanquantile(drawn_R, [0.025, 0.975])
            counts_BE, score_BE = np.zeros((n_batches, facts.n_experts)), np.zeros((n_batches, facts.n_experts))
            there = batch_P >= 0
            np.add.at(counts_BE, batch_P[there], counts_PE[there])
            np.add.at(score_BE, batch_P[there], score_PE[there])
            n_tokens = int(tokens_L[layers.start + number])
            some = known and n_tokens > 0
            rows.append(
                {
                    "balance_loss": float(_loss(counts_PE.sum(axis=0), score_PE.sum(axis=0))) if some else np.nan,
                    "balance_loss_low": low,
                    "balance_loss_high": high,
                    "balance_loss_batch": _mean(_loss(counts_BE, score_BE)) if some else np.nan,
                    "balance_loss_sequence": _mean(_loss(counts_PE, score_PE)) if some else np.nan,
                    "z_loss": z_L[layers.start + number] / n_tokens if n_tokens else np.nan,
                    "top_k_mass": mass_L[layers.start + number] / n_tokens if some else np.nan,
                    "n_tokens": n_tokens,
                }
            )
    frame = pd.DataFrame(rows, index=pd.Index(list(trace.layers), name="layer"), columns=list(_UNITS))
    frame.attrs["unit"] = dict(_UNITS)
    frame.attrs["balance_loss_pooled"] = float(_loss(pooled_f, pooled_p)) if same and pooled_f.any() else float("nan")
    return frame


def _sums(trace: RoutingTrace) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sum of scores by prompt, layer and expert; of z², of the selected's scores, and of tokens, by layer."""
    shape = (trace.n_prompts, trace.n_layers, trace.n_experts)

    def of_chunk(chunk: Chunk) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        assert chunk.logits is not None
        assert chunk.experts is not None
        prompts, start = np.unique(chunk.prompt, return_inverse=True)
        score = np.zeros((len(prompts), *shape[1:]))
        z_L, mass_L, tokens_L = np.zeros(shape[1]), np.zeros(shape[1]), np.zeros(shape[1], np.int64)
        for layer, facts in enumerate(trace.layer_facts):
            logits_TE = chunk.logits[:, layer, : facts.n_experts].astype(np.float64)
            routed = np.isfinite(logits_TE).all(axis=1)
            if not routed.any():
                continue
            high_T = logits_TE[routed].max(axis=1)
            z_T = high_T + np.log(np.exp(logits_TE[routed] - high_T[:, None]).sum(axis=1))
            z_L[layer] = (z_T**2).sum()
            tokens_L[layer] = routed.sum()
            share_TE = score_distribution(chunk.logits[routed, layer], facts=facts).astype(np.float64)
            if has_known_scores(facts):
                np.add.at(score[:, layer, : facts.n_experts], start[routed], share_TE)
                selected = chunk.experts[routed, layer, : facts.top_k].astype(np.int64)
                mass_L[layer] = np.take_along_axis(share_TE, selected, axis=1).sum()
        return prompts, score, z_L, mass_L, tokens_L

    score_PLE = np.zeros(shape)
    z_L, mass_L, tokens_L = np.zeros(shape[1]), np.zeros(shape[1]), np.zeros(shape[1], np.int64)
    parts = mapped_chunks(trace, of_chunk, fields=("experts", "logits"), n_tokens=_CHUNK_TOKENS)
    for prompts, score, z, mass, tokens in parts:
        score_PLE[prompts] += score
        z_L += z
        mass_L += mass
        tokens_L += tokens
    return score_PLE, z_L, mass_L, tokens_L


def _loss(counts: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """E Σ f P of the last axis; NaN where nothing was counted."""
    n, s = counts.sum(axis=-1), scores.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = counts.shape[-1] * (counts * scores).sum(axis=-1) / (n * s)
    return np.where((n > 0) & (s > 0), found, np.nan)


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
