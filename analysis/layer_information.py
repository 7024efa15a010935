"""How much one layer tells about another.

Legend: L layer, E expert, N deal of texts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from analysis.nulls import p_value
from analysis.other_texts import partners
from analysis.pair_tables import LARGEST_TABLE
from analysis.rates import decided_by_task
from analysis.scan import mapped_chunks, require_tokens
from routing.chunks import Chunk
from routing.trace import RoutingTrace

__all__ = ["information", "layer_information"]


def layer_information(trace: RoutingTrace, *, n_deals: int = 20, seed: int = 0) -> xr.Dataset:
    """How much the first expert of one layer tells about the first expert of another, for all pairs of layers.

    Mutual information of the two experts of a token. Estimated from few tokens it is never 0, and tokens of a text are
    alike, so the null keeps both: the second layer is read in the tokens of another text, texts dealt to texts at
    random (`other_texts.partners`). `excess_nats` = information − mean of the null; `share` = that over the smaller of
    the two entropies, 1 where one layer settles the other.

    Args:
        trace: the trace.
        n_deals: deals of texts for the null; 0 for none.
        seed: of the deals.

    Returns:
        (layer, other) · information_nats, null_mean, null_95, excess_nats, share, p_value, n_tokens · nats, 0 and up;
        NaN where layers share no token, and on the diagonal.

    Raises:
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="the information between layers")
    pairs = [
        (one, other)
        for one in range(trace.n_layers)
        for other in range(one + 1, trace.n_layers)
        if trace.layer_facts[one].stack == trace.layer_facts[other].stack
    ]
    shape = (trace.n_layers, trace.n_layers)
    names = {
        "information_nats": "nats",
        "null_mean": "nats",
        "null_95": "nats",
        "excess_nats": "nats",
        "share": "share of the smaller entropy",
        "p_value": "probability",
        "n_tokens": "tokens",
    }
    found = {name: np.full(shape, np.nan) for name in names}
    ones_L = np.ones(trace.n_layers, dtype=np.int64)
    for number, joint_NEE in _dealt(trace, pairs, ones_L, n_deals=n_deals, seed=seed):
        one, other = pairs[number]
        observed, entropies = information(joint_NEE[0])
        row = {"information_nats": observed, "n_tokens": float(joint_NEE[0].sum())}
        if n_deals and np.isfinite(observed):
            null = np.array([information(each)[0] for each in joint_NEE[1:]])
            row |= {"null_mean": null.mean(), "null_95": np.quantile(null, 0.95), "excess_nats": observed - null.mean()}
            smaller = min(entropies)
            row["share"] = row["excess_nats"] / smaller if smaller > 1e-12 else np.nan
            row["p_value"] = float(p_value(int((null >= observed - 1e-12).sum()), n_permutations=n_deals))
        for name, value in row.items():
            found[name][one, other] = found[name][other, one] = value
    return xr.Dataset(
        {name: (("layer", "other"), values, {"unit": names[name]}) for name, values in found.items()},
        coords={"layer": list(trace.layers), "other": list(trace.layers)},
        attrs={"n_deals": n_deals, "seed": seed},
    )


def information(joint_EE: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Mutual information of the two sides of a table of counts, and their entropies, in nats."""
    total = float(joint_EE.sum())
    if not total:
        return float("nan"), (float("nan"), float("nan"))
    share = joint_EE / total
    sides = share.sum(axis=1), share.sum(axis=0)
    entropies = tuple(float(-(side[side > 0] * np.log(side[side > 0])).sum()) for side in sides)
    there = share > 0
    both = float(-(share[there] * np.log(share[there])).sum())
    return max(0.0, entropies[0] + entropies[1] - both), (entropies[0], entropies[1])


def _dealt(
    trace: RoutingTrace, pairs: list[tuple[int, int]], ranks_L: np.ndarray, *, n_deals: int, seed: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Of each pair of layers, its number and how often experts go together: in a token, then in tokens of two texts."""
    from analysis.kernels import frozen
    from analysis.structure_kernels import count_joint

    n_experts, by_task = trace.n_experts, decided_by_task(trace)
    step = max(1, LARGEST_TABLE // max(1, (1 + n_deals) * n_experts**2))
    for first in range(0, len(pairs), step):
        some = np.array(pairs[first : first + step], dtype=np.int64)

        def of_chunk(chunk: Chunk, some: np.ndarray = some) -> np.ndarray:
            everything = frozen(np.zeros(chunk.n_tokens, np.int32))
            rng = np.random.default_rng([seed, chunk.start])
            # Where the router decided once a task, its prompts are one text read many times.
            text_T = chunk.task if by_task else chunk.prompt
            rows = [np.arange(chunk.n_tokens), *(partners(text_T, rng=rng) for _ in range(n_deals))]
            experts = frozen(chunk.experts)  # type: ignore[arg-type]
            return np.stack([count_joint(experts, everything, some, ranks_L, 1, n_experts, each)[0] for each in rows])

        total = np.zeros((1 + n_deals, len(some), n_experts, n_experts), np.int64)
        for part in mapped_chunks(trace, of_chunk):
            total += part
        for number in range(len(some)):
            yield first + number, total[:, number]
