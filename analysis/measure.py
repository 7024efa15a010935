"""What an expert's share of the work is measured in: assignments, or routed weight where all experts are always on.

Legend: T token, L layer, K selected rank, E expert, G group, C code of a 16-bit float.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np

from routing.chunks import Chunk
from routing.trace import RoutingTrace

__all__ = ["ONE", "Measure", "about", "fixed_weights", "measure_of", "rate_unit", "share_unit", "weighed"]

Measure = Literal["assignments", "routed weight"]

ONE = 1 << 24
"""What a weight of 1 is as an integer: every float16 is a whole multiple of 2⁻²⁴, so sums are exact in any order."""


def measure_of(trace: RoutingTrace) -> Measure:
    """What is added up where a table says how much an expert does.

    Where every layer always selects all its experts (`trace.dense_routing`), each of them has one assignment a token
    and counting says nothing: there the applied weights are added up instead.
    """
    return "routed weight" if trace.dense_routing and trace.storage.rows("weights") is not None else "assignments"


def about(trace: RoutingTrace) -> dict[str, object]:
    """What a table says of itself in its attributes: the measure, and names of experts where they have any."""
    names = trace.expert_names
    return {"measure": measure_of(trace), **({"expert_names": names} if names else {})}


def rate_unit(trace: RoutingTrace) -> str:
    """Unit of an activation rate."""
    return "share of tokens" if measure_of(trace) == "assignments" else "mean weight"


def share_unit(trace: RoutingTrace) -> str:
    """Unit of a load."""
    return f"share of {'assignments' if measure_of(trace) == 'assignments' else 'weight'}"


@cache
def _fixed_of_code() -> np.ndarray:
    with np.errstate(invalid="ignore"):  # some codes are NaN of the kind that signals
        values_C = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64)
    values_C[~np.isfinite(values_C)] = 0
    return (values_C * ONE).astype(np.int64)


def fixed_weights(weights: np.ndarray) -> np.ndarray:
    """Applied weights as whole multiples of 1 / ONE; 0 where there is none."""
    codes = np.ascontiguousarray(weights, dtype=np.float16).view(np.uint16)
    found: np.ndarray = _fixed_of_code()[codes]
    return found


def weighed(
    trace: RoutingTrace,
    *,
    keys: Callable[[Chunk], np.ndarray],
    n_groups: int,
    phase_code: int | None,
    layers: slice,
) -> tuple[np.ndarray, np.ndarray]:
    """Routed weight of every group, layer and expert, and tokens that each layer routed.

    Args:
        trace: a trace with weights.
        keys: from a chunk, the group of each of its tokens; negative ones are left out.
        n_groups: how many groups there are.
        phase_code: only tokens of this phase.
        layers: which layers.

    Returns:
        (group, layer, expert) float64 and (group, layer) int64 · weight, and tokens · 0 and up.
    """
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.kernels import add_weights, frozen
    from analysis.scan import mapped_chunks

    top_k_L = np.array([facts.top_k for facts in trace.layer_facts[layers]], dtype=np.int64)
    fixed_C = frozen(_fixed_of_code())

    def of_chunk(chunk: Chunk) -> tuple[slice, np.ndarray, np.ndarray]:
        assert chunk.experts is not None
        assert chunk.weights is not None
        key_T = keys(chunk)
        if phase_code is not None:
            key_T = np.where(chunk.phase == phase_code, key_T, -1)
        # Groups of a chunk lie close together (prompts do), so a table of their range is small.
        used = key_T[key_T >= 0]
        low, high = (int(used.min()), int(used.max()) + 1) if used.size else (0, 0)
        codes = np.ascontiguousarray(chunk.weights, dtype=np.float16).view(np.uint16)
        sums, tokens = add_weights(
            frozen(chunk.experts[:, layers]),
            frozen(codes[:, layers]),
            fixed_C,
            frozen(np.where(key_T >= 0, key_T - low, -1).astype(np.int32)),
            frozen(top_k_L),
            high - low,
            trace.n_experts,
        )
        return slice(low, high), sums, tokens

    sums_GLE = np.zeros((n_groups, len(top_k_L), trace.n_experts), dtype=np.int64)
    tokens_GL = np.zeros((n_groups, len(top_k_L)), dtype=np.int64)
    for names, sums, tokens in mapped_chunks(trace, of_chunk, fields=("experts", "weights")):
        sums_GLE[names] += sums
        tokens_GL[names] += tokens
    return sums_GLE / ONE, tokens_GL
