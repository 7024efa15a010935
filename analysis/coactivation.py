"""Which experts work together in a token, beyond what drawing different experts does anyway.

Legend: P prompt, B block of prompts, L layer, E expert.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from analysis.jackknife import blocks_of_prompts
from analysis.nulls import q_values
from analysis.pair_tables import FEWEST, HALF, LARGEST_TABLE, LIFT_COLUMNS, lift_columns, pair_table, spread_of_lift
from analysis.scan import mapped_chunks, require_tokens
from routing.chunks import Chunk
from routing.trace import RoutingTrace

__all__ = ["coactivation"]


def coactivation(
    trace: RoutingTrace,
    *,
    n_blocks: int = 40,
    seed: int = 0,
    fdr: float = 0.05,
    smallest: float = 0.5,
) -> xr.Dataset:
    """How often two experts of a layer are chosen by the same token, against k different experts drawn by their rates.

    A token's k experts are different, so any two exclude each other a little: with even loads a pair is together in
    k (k − 1) / (E (E − 1)) of the tokens, not in (k / E)². `expected` is the chance under the draw of largest entropy
    that has these rates and k different experts, so that only what goes beyond exclusion and load is left.

    - `rate`: N_ij / N_i, the share of i's tokens that choose j too (not symmetric); `jaccard`: N_ij over the tokens of
      either.
    - `lift`: log2 of N_ij / (T expected_ij), half a token added to both; `lift_low`, `lift_high` a 95 % interval.
    - `z`, `p_value`: lift over its standard error, from leaving out one of `n_blocks` blocks of prompts at a time;
      two-sided. Not tested where chance gives fewer than 5 tokens.
    - `significant`: q ≤ `fdr` and |lift| ≥ `smallest`.

    Args:
        trace: the trace.
        n_blocks: blocks of prompts for the standard error.
        seed: of the blocks.
        fdr: share of false ones to accept.
        smallest: effect below which nothing is called, in log2.

    Returns:
        (layer, expert, other) · n_together, rate, expected, jaccard, lift, lift_low, lift_high, z, p_value, q_value,
        significant · tokens, shares of tokens, log2 ratio · NaN on the diagonal, where the layer selects a single
        expert, and where an expert is never or always chosen.

    Raises:
        TraceError: the trace holds counts only.

    References:
        Muennighoff et al. 2024, "OLMoE" (co-activation); Chen, Dempster & Liu 1994 (the draw of largest entropy).
    """
    require_tokens(trace, for_what="a look at pairs of experts")
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.structure_kernels import pair_chances

    block_P, n_blocks = blocks_of_prompts(trace, n_blocks=n_blocks, seed=seed)
    n_experts = trace.n_experts
    shape = (trace.n_layers, n_experts, n_experts)
    units = {
        "n_together": "tokens",
        "rate": "share of the expert's tokens",
        "expected": "share of tokens",
        "jaccard": "share of tokens",
    } | LIFT_COLUMNS
    found = {name: np.full(shape, np.nan) for name in units}
    for layer, pairs_BEE, tokens_B in _counted(trace, block_P, n_blocks=n_blocks):
        facts = trace.layer_facts[layer]
        pairs_EE, n_tokens = pairs_BEE.sum(axis=0), int(tokens_B.sum())
        single_E = np.diag(pairs_EE)
        chosen = np.flatnonzero((single_E > 0) & (single_E < n_tokens))
        always = int((single_E == n_tokens).sum()) if n_tokens else 0
        k = facts.top_k - always
        if k < 2 or len(chosen) <= k:
            continue
        square = np.ix_(chosen, chosen)
        chance_EE = pair_chances(single_E[chosen] / n_tokens, k)
        together_EE = pairs_EE[square].astype(float)
        lift_EE, spread_EE = _lift(pairs_BEE[(slice(None), *square)], tokens_B, chance_EE)
        n_E = single_E[chosen].astype(float)
        values = {
            "n_together": together_EE,
            "rate": together_EE / n_E[:, None],
            "expected": chance_EE,
            "jaccard": together_EE / (n_E[:, None] + n_E - together_EE),
            **lift_columns(lift_EE, spread_EE, tested_EE=n_tokens * chance_EE >= FEWEST, n_blocks=n_blocks),
        }
        for name, table in values.items():
            np.fill_diagonal(table, np.nan)
            found[name][(layer, *square)] = table
    # Each pair stands twice in the table and is one test.
    upper = np.triu(np.ones(shape[1:], bool), 1)
    q = np.full(shape, np.nan)
    q[:, upper] = q_values(found["p_value"][:, upper])
    q = np.where(upper, q, q.transpose(0, 2, 1))
    return pair_table(
        found,
        q,
        dims=("layer", "expert", "other"),
        units=units,
        coords={"layer": list(trace.layers), "expert": np.arange(n_experts), "other": np.arange(n_experts)},
        fdr=fdr,
        smallest=smallest,
        attrs={"n_blocks": n_blocks, "seed": seed},
    )


def _lift(pairs_BEE: np.ndarray, tokens_B: np.ndarray, chance_EE: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log2 of observed over expected, and its standard error from blocks left out.

    With a block left out the rates change a little; what exclusion makes of a product of rates hardly does, so the
    expected share is taken as that product times the same factor.
    """
    pairs_EE, n_tokens = pairs_BEE.sum(axis=0).astype(float), float(tokens_B.sum())
    rate_E = np.diag(pairs_EE) / n_tokens
    factor_EE = chance_EE / np.outer(rate_E, rate_E)

    def lift(pairs: np.ndarray, tokens: float) -> np.ndarray:
        single_E = np.maximum(np.diag(pairs), HALF)
        expected = np.outer(single_E, single_E) / tokens * factor_EE
        found: np.ndarray = np.log2((pairs + HALF) / (expected + HALF))
        return found

    left_out = [
        lift(pairs_EE - block_EE, n_tokens - block_tokens)
        for block_EE, block_tokens in zip(pairs_BEE, tokens_B, strict=True)
        if block_tokens < n_tokens
    ]
    whole = lift(pairs_EE, n_tokens)
    return whole, spread_of_lift(left_out, like=whole)


def _counted(trace: RoutingTrace, block_P: np.ndarray, *, n_blocks: int):  # type: ignore[no-untyped-def]
    """Of each layer, its number, pairs of experts by block, both ways round, and tokens by block."""
    from analysis.kernels import frozen
    from analysis.structure_kernels import count_pairs

    n_experts = trace.n_experts
    step = max(1, LARGEST_TABLE // max(1, n_blocks * n_experts**2))
    for first in range(0, trace.n_layers, step):
        top_k_L = np.array([facts.top_k for facts in trace.layer_facts[first : first + step]], dtype=np.int64)

        def of_chunk(chunk: Chunk, first: int = first, top_k_L: np.ndarray = top_k_L) -> tuple[np.ndarray, np.ndarray]:
            blocks = frozen(block_P[chunk.prompt])
            found: tuple[np.ndarray, np.ndarray] = count_pairs(
                frozen(chunk.experts),  # type: ignore[arg-type]
                blocks,
                top_k_L,
                first,
                n_blocks,
                n_experts,
            )
            return found

        pairs = np.zeros((n_blocks, len(top_k_L), n_experts, n_experts), np.int64)
        tokens = np.zeros((n_blocks, len(top_k_L)), np.int64)
        for more_pairs, more_tokens in mapped_chunks(trace, of_chunk):
            pairs += more_pairs
            tokens += more_tokens
        # The kernel fills one half; the diagonal must not be doubled.
        both = pairs + pairs.transpose(0, 1, 3, 2)
        diagonal = np.arange(n_experts)
        both[:, :, diagonal, diagonal] = pairs[:, :, diagonal, diagonal]
        for number in range(len(top_k_L)):
            yield first + number, both[:, number], tokens[:, number]
