"""From layer to layer: which expert follows which, and how much one layer tells about another.

Legend: P prompt, B block of prompts, L layer, Q pair of layers, E expert, N deal of texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from analysis.jackknife import blocks_of_prompts
from analysis.nulls import p_value, q_values
from analysis.other_texts import partners
from analysis.pair_tables import FEWEST, HALF, LARGEST_TABLE, LIFT_COLUMNS, lift_columns, pair_table, spread_of_lift
from analysis.placement_study import prompt_halves
from analysis.rates import decided_by_task
from analysis.scan import mapped_chunks, require_tokens
from routing.chunks import Chunk
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["layer_information", "layer_steps", "next_layer_predictability", "transitions"]


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
    for number, joint_BEE in _joint(trace, steps, ranks_L, block_P, n_blocks=n_blocks):
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


def next_layer_predictability(
    trace: RoutingTrace, *, guesses: tuple[int, ...] = (1, 2, 4), n_bootstrap: int = 200, seed: int = 0
) -> pd.DataFrame:
    """How often a table of transitions guesses the next layer's first expert, on prompts that it has not seen.

    From one half of the prompts (half of each task) the m experts that most often follow an expert are learned; on the
    other half it is counted how often the next layer's first expert is among them. `always_same`: the m busiest experts
    of the next layer, whatever this layer chose; `chance`: m / E. Interval from drawing the judged prompts again.

    Args:
        trace: the trace.
        guesses: how many experts may be named.
        n_bootstrap: draws for the interval; 0 for none.
        seed: of halves and draws.

    Returns:
        (step, guesses) · accuracy, accuracy_low, accuracy_high, always_same, chance, n_tokens · share of tokens · 0 to
        1; NaN where the judged half holds no token.

    Raises:
        SelectionError: there are fewer than two prompts, or a number of guesses is below 1.
        TraceError: the trace holds counts only.

    References:
        Guesses of the next layer's experts are what loading experts ahead of time rests on (Eliseev & Mazur 2023).
    """
    require_tokens(trace, for_what="a guess at the next layer")
    if trace.n_prompts < 2 or min(guesses, default=0) < 1:
        msg = (
            f"With {trace.n_prompts} prompts and {list(guesses)} guesses nothing can be learned on one half and "
            "judged on the other. Record more prompts, or give guesses of 1 or more."
        )
        raise SelectionError(msg)
    steps = layer_steps(trace)
    fitted, judged = prompt_halves(trace, seed=seed)
    block_P = np.zeros(trace.n_prompts, dtype=np.int32)
    block_P[judged] = -1
    ones_L = np.ones(trace.n_layers, dtype=np.int64)
    order = {}
    for number, joint_BEE in _joint(trace, steps, ones_L, block_P, n_blocks=1):
        joint_EE = joint_BEE[0]
        overall_E = joint_EE.sum(axis=0)
        # An expert that was never seen is followed by what is busy; ties go to the busier.
        ranked_EE = np.argsort(-(joint_EE + overall_E / max(1, overall_E.sum()) * 1e-3), axis=1, kind="stable")
        order[number] = ranked_EE, np.argsort(-overall_E, kind="stable")
    hits = {(number, m): np.zeros((trace.n_prompts, 2)) for number in order for m in guesses}
    seen = {number: np.zeros(trace.n_prompts) for number in order}
    place = np.isin(np.arange(trace.n_prompts), judged)
    for chunk in trace.chunks(fields=("experts",)):
        assert chunk.experts is not None
        mine = place[chunk.prompt]
        for number, (ranked_EE, busiest_E) in order.items():
            one, other = steps[number]
            here = mine & (chunk.experts[:, one, 0] < trace.n_experts) & (chunk.experts[:, other, 0] < trace.n_experts)
            now, then = chunk.experts[here, one, 0].astype(int), chunk.experts[here, other, 0].astype(int)
            prompt = chunk.prompt[here]
            seen[number] += np.bincount(prompt, minlength=trace.n_prompts)
            for m in guesses:
                learned = (ranked_EE[now][:, :m] == then[:, None]).any(axis=1)
                same = np.isin(then, busiest_E[:m])
                for column, hit in enumerate((learned, same)):
                    hits[number, m][:, column] += np.bincount(prompt, weights=hit, minlength=trace.n_prompts)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(judged), np.full(len(judged), 1 / len(judged)), n_bootstrap)
    rows, index = [], []
    for (number, m), counts in hits.items():
        one, other = steps[number]
        total = seen[number].sum()
        low = high = np.nan
        if n_bootstrap and total and len(judged) > 1:
            with np.errstate(invalid="ignore"):
                drawn = (weights @ counts[judged, 0]) / (weights @ seen[number][judged])
            low, high = np.nanquantile(drawn, [0.025, 0.975])
        index.append((f"{trace.layers[one]}→{trace.layers[other]}", m))
        rows.append(
            {
                "accuracy": counts[:, 0].sum() / total if total else np.nan,
                "accuracy_low": low,
                "accuracy_high": high,
                "always_same": counts[:, 1].sum() / total if total else np.nan,
                "chance": min(1.0, m / trace.layer_facts[other].n_experts),
                "n_tokens": int(total),
            }
        )
    columns = ["accuracy", "accuracy_low", "accuracy_high", "always_same", "chance", "n_tokens"]
    multi = pd.MultiIndex.from_tuples(index, names=["step", "guesses"]) if index else _no_steps()
    frame = pd.DataFrame(rows, index=multi, columns=columns)
    frame.attrs["unit"] = dict.fromkeys(columns, "share of tokens") | {"n_tokens": "tokens"}
    return frame


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


def _no_steps() -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([[], []], names=["step", "guesses"])


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


def _joint(
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
