"""From layer to layer: which expert follows which.

Legend: P prompt, B block of prompts, L layer, E expert.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import xarray as xr

from analysis.jackknife import blocks_of_prompts
from analysis.nulls import q_values
from analysis.pair_tables import FEWEST, HALF, LARGEST_TABLE, LIFT_COLUMNS, lift_columns, pair_table, spread_of_lift
from analysis.scan import mapped_chunks, require_tokens
from routing.chunks import Chunk
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["joint_counts", "layer_steps", "transitions"]


def layer_steps(trace: RoutingTrace) -> list[tuple[int, int]]:
    """Layers that follow each other in one stack, as pairs of their places."""
    found: list[tuple[int, int]] = []
    last: dict[str, int] = {}
    for number, facts in enumerate(trace.layer_facts):
        if facts.stack in last:
            found.append((last[facts.stack], number))
        last[facts.stack] = number
    return found


def transitions(
    trace: RoutingTrace,
    *,
    ranks: Literal["first", "all"] = "first",
    n_blocks: int = 40,
    seed: int = 0,
    fdr: float = 0.05,
    smallest: float = 0.5,
) -> xr.Dataset:
    """Which expert of the next layer follows which of this, against independent layers.

    - `rate`: P(j | i), the share of what follows i; of "all" ranks each token's k × k' pairs share its weight.
    - `expected`: P(j), what follows any expert. `lift`: log2 of N_ij over N_i N_j / N, half a token added to both,
      with a 95 % interval.
    - `z`, `p_value`: lift over its standard error from blocks of prompts left out; two-sided; not tested where chance
      gives fewer than 5 tokens. `significant`: q ≤ `fdr` and |lift| ≥ `smallest`.

    Args:
        trace: the trace.
        ranks: "first" follows each token's first expert, "all" all selected ones.
        n_blocks: blocks of prompts for the standard error.
        seed: of the blocks.
        fdr: share of false ones to accept.
        smallest: effect below which nothing is called, in log2.

    Returns:
        (step, expert, next_expert) · n_tokens, rate, expected, lift, lift_low, lift_high, z, p_value, q_value,
        significant · tokens, shares, log2 ratio · NaN where an expert is never chosen; steps named "L00→L01".

    Raises:
        SelectionError: `ranks` has another name.
        TraceError: the trace holds counts only.

    References:
        Muennighoff et al. 2024, "OLMoE"; Yao et al. 2024, "Exploiting Inter-Layer Expert Affinity" (ExFlow).
    """
    require_tokens(trace, for_what="a look at transitions")
    if ranks not in ("first", "all"):
        msg = f"Transitions follow the first rank or all ranks, not {ranks!r}. Correct `ranks`."
        raise SelectionError(msg)
    steps = layer_steps(trace)
    block_P, n_blocks = blocks_of_prompts(trace, n_blocks=n_blocks, seed=seed)
    shape = (len(steps), trace.n_experts, trace.n_experts)
    units = {"n_tokens": "tokens", "rate": "share of what follows", "expected": "share of what follows"} | LIFT_COLUMNS
    found = {name: np.full(shape, np.nan) for name in units}
    top_k_L = np.array([facts.top_k for facts in trace.layer_facts], dtype=np.int64)
    ranks_L = top_k_L if ranks == "all" else np.ones_like(top_k_L)
    for number, joint_BEE in joint_counts(trace, steps, ranks_L, block_P, n_blocks=n_blocks):
        one, other = steps[number]
        # Pairs of a token share its weight, so that a token counts once.
        joint_BEE = joint_BEE / (ranks_L[one] * ranks_L[other])
        joint_EE = joint_BEE.sum(axis=0)
        total = joint_EE.sum()
        if not total:
            continue
        lift_EE, spread_EE, expected_EE = _lift(joint_BEE)
        there = (joint_EE.sum(axis=1) > 0)[:, None] & (joint_EE.sum(axis=0) > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = {
                "n_tokens": joint_EE,
                "rate": joint_EE / joint_EE.sum(axis=1, keepdims=True),
                "expected": np.broadcast_to(joint_EE.sum(axis=0) / total, joint_EE.shape),
                **lift_columns(lift_EE, spread_EE, tested_EE=there & (expected_EE >= FEWEST), n_blocks=n_blocks),
            }
        for name, table in values.items():
            found[name][number] = np.where(there, table, np.nan)
    coords = {
        "step": [f"{trace.layers[one]}→{trace.layers[other]}" for one, other in steps],
        "layer": ("step", [trace.layers[one] for one, _ in steps]),
        "next_layer": ("step", [trace.layers[other] for _, other in steps]),
        "expert": np.arange(trace.n_experts),
        "next_expert": np.arange(trace.n_experts),
    }
    return pair_table(
        found,
        q_values(found["p_value"]),
        dims=("step", "expert", "next_expert"),
        units=units,
        coords=coords,
        fdr=fdr,
        smallest=smallest,
        attrs={"ranks": ranks, "n_blocks": n_blocks, "seed": seed},
    )


def _lift(joint_BEE: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log2 of observed over independent layers, its standard error from blocks left out, and the expected tokens."""

    def lift(joint_EE: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total = max(float(joint_EE.sum()), HALF)
        expected_EE = np.outer(joint_EE.sum(axis=1), joint_EE.sum(axis=0)) / total
        return np.log2((joint_EE + HALF) / (expected_EE + HALF)), expected_EE

    joint_EE = joint_BEE.sum(axis=0)
    whole, expected_EE = lift(joint_EE)
    left_out = [lift(joint_EE - block)[0] for block in joint_BEE if block.sum() < joint_EE.sum()]
    return whole, spread_of_lift(left_out, like=whole), expected_EE


def joint_counts(
    trace: RoutingTrace,
    pairs: list[tuple[int, int]],
    ranks_L: np.ndarray,
    block_P: np.ndarray,
    *,
    n_blocks: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Of each pair of layers, its number and how often experts go together, by block."""
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.kernels import frozen
    from analysis.structure_kernels import count_joint

    n_experts = trace.n_experts
    step = max(1, LARGEST_TABLE // max(1, n_blocks * n_experts**2))
    for first in range(0, len(pairs), step):
        some = np.array(pairs[first : first + step], dtype=np.int64)

        def of_chunk(chunk: Chunk, some: np.ndarray = some) -> np.ndarray:
            found: np.ndarray = count_joint(
                frozen(chunk.experts),  # type: ignore[arg-type]
                frozen(block_P[chunk.prompt]),
                some,
                ranks_L,
                n_blocks,
                n_experts,
                np.arange(chunk.n_tokens),
            )
            return found

        total = np.zeros((n_blocks, len(some), n_experts, n_experts), np.int64)
        for part in mapped_chunks(trace, of_chunk):
            total += part
        for number in range(len(some)):
            yield first + number, total[:, number]
