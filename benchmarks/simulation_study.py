"""Do the tests find what is there, and only that? Traces with planted effects, and traces without any.

    python -m benchmarks.simulation_study                      # 200 planted and 200 null traces
    python -m benchmarks.simulation_study --traces 20          # a look
    python -m benchmarks.simulation_study --tests split_half routing_distance
    python -m benchmarks.simulation_study --times 250000       # seconds of each function, per million tokens

Each trace has eight layers of eight experts, top-2, and 72 prompts of six tasks, 16 tokens each. Tokens of a prompt are
alike (a normal effect on every logit). In a planted trace six layers have one effect each, and two have none: what is
called there is false.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import analysis
from routing import LayerFacts, RoutingTrace, Selection

N_LAYERS, N_EXPERTS, TOP_K = 8, 8, 2
N_TASKS, PROMPTS_A_TASK, TOKENS_A_PROMPT, N_WORDS = 6, 12, 16, 40
WORD, PAIR, FOLLOW, TASK, RIGHT, STICKY = range(6)
EMPTY = ("L06", "L07")
"""Layers without any effect."""

PERMUTATIONS = 199


def simulated(seed: int, *, strength: float) -> RoutingTrace:
    """A trace with an effect in each of six layers, or with none at strength 0.

    - L00: four of forty words go to expert 4. L01: experts 1 and 2 come together. L02: 6 follows expert 3 of L01.
    - L03: the first task has expert 0. L04: expert 5 is used more where the answer is right. L05: tokens do as the
      token before them did.
    """
    rng = np.random.default_rng(seed)
    n_prompts = N_TASKS * PROMPTS_A_TASK
    n_tokens = n_prompts * TOKENS_A_PROMPT
    prompt = np.repeat(np.arange(n_prompts), TOKENS_A_PROMPT)
    task = np.arange(n_prompts) // PROMPTS_A_TASK
    words = rng.integers(0, N_WORDS, n_tokens)
    of_prompt = rng.normal(0, 0.5, (n_prompts, N_LAYERS, N_EXPERTS))
    logits = rng.gumbel(0, 1, (n_tokens, N_LAYERS, N_EXPERTS)) + of_prompt[prompt]
    logits[words < 4, WORD, 4] += 3 * strength
    together = rng.random(n_tokens) < 0.15
    logits[np.ix_(together, [PAIR], [1, 2])] += 2.5 * strength
    first = logits[:, PAIR].argmax(axis=1)
    logits[first == 3, FOLLOW, 6] += 2 * strength
    logits[task[prompt] == 0, TASK, 0] += 1.2 * strength
    likely = 1 / (1 + np.exp(-strength * 6.0 * of_prompt[:, RIGHT, 5]))
    right = (rng.random(n_prompts) < likely).astype(float)
    if strength:
        for row in range(1, n_tokens):
            if row % TOKENS_A_PROMPT:
                logits[row, STICKY, logits[row - 1, STICKY].argmax()] += 1.0 * strength
    order = np.argsort(-logits, axis=-1)[..., : TOP_K + 1]
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    scores = np.take_along_axis(shares, order, axis=-1)
    facts = [
        LayerFacts(label=f"L{number:02d}", number=number, n_experts=N_EXPERTS, top_k=TOP_K, score_function="softmax")
        for number in range(N_LAYERS)
    ]
    # Shuffled, so that the order of the run says nothing about the tasks.
    line_up = rng.permutation(n_prompts)
    rows = (line_up[:, None] * TOKENS_A_PROMPT + np.arange(TOKENS_A_PROMPT)).ravel()
    tokens = pd.DataFrame({"prompt": prompt, "token_id": words, "position": np.arange(n_tokens) % TOKENS_A_PROMPT})
    prompts = pd.DataFrame(
        {
            "prompt": [f"p{number:03d}" for number in range(n_prompts)],
            "task": [f"task-{number}" for number in task],
            "task_type": [f"type-{number % 3}" for number in task],
            "text": "simulated",
            "score": right,
        }
    )
    return RoutingTrace.from_arrays(
        order[rows].astype(np.uint8),
        layer_facts=facts,
        scores=scores[rows],
        weights=scores[rows][..., :TOP_K],
        tokens=tokens.iloc[rows].reset_index(drop=True),
        prompts=prompts,
        checked=False,
    )


@dataclass(frozen=True, kw_only=True)
class Called:
    """What one test says of one trace.

    Attributes:
        n_called: cells that it calls.
        n_false: those of them in layers without any effect.
        found: whether it calls what was planted.
        p_empty: p-values of the cells in layers without any effect; none where the test gives an interval only.
    """

    n_called: int
    n_false: int
    found: bool
    p_empty: tuple[float, ...]


def _cells(frame: pd.DataFrame, *, planted: Callable[[pd.DataFrame], pd.Series]) -> Called:
    """From rows with layer (one or several), called and p_value."""
    empty = frame["layer"].map(lambda name: all(part in EMPTY for part in str(name).split("→")))
    called = frame["called"].fillna(False).astype(bool)
    p = frame.loc[empty, "p_value"].dropna() if "p_value" in frame else pd.Series(dtype=float)
    return Called(
        n_called=int(called.sum()),
        n_false=int((called & empty).sum()),
        found=bool((called & planted(frame)).any()),
        p_empty=tuple(p.tolist()),
    )


def _of_layers(table: pd.DataFrame, *, layer: str, called: pd.Series) -> Called:
    frame = table.reset_index(names="layer").assign(called=called.to_numpy())
    return _cells(frame, planted=lambda rows: rows["layer"] == layer)


def _rows(table: Any, names: Iterable[str]) -> pd.DataFrame:
    return table[list(names)].to_dataframe().reset_index()


def _specialization(trace: RoutingTrace, **options: Any) -> Called:
    found = (
        analysis.controlled_specialization(trace, n_permutations=PERMUTATIONS, **options)
        if options
        else analysis.specialization(trace, n_permutations=PERMUTATIONS)
    )
    frame = _rows(found, ("p_value", "significant")).rename(columns={"significant": "called"})
    return _cells(
        frame, planted=lambda rows: (rows["layer"] == "L03") & (rows["expert"] == 0) & (rows["group"] == "task-0")
    )


def _specialists(trace: RoutingTrace) -> Called:
    table = analysis.specialists(trace, n_permutations=PERMUTATIONS, smallest_lift=0.7).assign(called=True)
    return _cells(table.assign(p_value=np.nan), planted=lambda rows: (rows["layer"] == "L03") & (rows["expert"] == 0))


def _information(trace: RoutingTrace) -> Called:
    table = analysis.task_information(trace, n_permutations=PERMUTATIONS)
    return _of_layers(table[["p_value"]], layer="L03", called=table["p_value"] <= 0.05)


def _split_half(trace: RoutingTrace) -> Called:
    # Many deals, for the null is as steady as the figure that it judges; 99 permutations reach p of 0.01.
    table = analysis.split_half(trace, n_splits=10, n_permutations=99)
    return _of_layers(table[["p_value"]], layer="L03", called=table["p_value"] <= 0.05)


def _differential(trace: RoutingTrace) -> Called:
    table = analysis.differential(trace, Selection(tasks=("task-0",)), n_permutations=PERMUTATIONS)
    table = table.rename(columns={"significant": "called"})
    return _cells(table, planted=lambda rows: (rows["layer"] == "L03") & (rows["expert"] == 0))


def _prompt_correlation(trace: RoutingTrace) -> Called:
    features = analysis.prompt_features(trace, columns=("task",))[["task-0"]]
    found = analysis.prompt_correlation(trace, features=features, n_permutations=PERMUTATIONS, n_bootstrap=0)
    frame = _rows(found, ("p_value", "significant")).rename(columns={"significant": "called"})
    return _cells(frame, planted=lambda rows: (rows["layer"] == "L03") & (rows["expert"] == 0))


def _distance(trace: RoutingTrace) -> Called:
    sides = [trace.select(Selection(tasks=tasks)) for tasks in (trace.tasks[:1], trace.tasks[1:])]
    # A single layer of eight is called at p ≤ 0.05 / 8, far above the least p that 999 permutations reach.
    table = analysis.routing_distance(*sides, n_permutations=999)
    return _of_layers(table[["p_value"]], layer="L03", called=table["q_value"] <= 0.05)


def _correctness(trace: RoutingTrace) -> Called:
    table = analysis.correctness_link(trace, n_permutations=PERMUTATIONS).rename(columns={"significant": "called"})
    return _cells(table, planted=lambda rows: (rows["layer"] == "L04") & (rows["expert"] == 5))


def _coactivation(trace: RoutingTrace) -> Called:
    frame = _rows(analysis.coactivation(trace), ("p_value", "significant"))
    frame = frame[frame["expert"] < frame["other"]].rename(columns={"significant": "called"})
    return _cells(frame, planted=lambda rows: (rows["layer"] == "L01") & (rows["expert"] == 1) & (rows["other"] == 2))


def _transitions(trace: RoutingTrace) -> Called:
    frame = _rows(analysis.transitions(trace), ("p_value", "significant"))
    frame["layer"] = frame["step"]
    return _cells(
        frame.rename(columns={"significant": "called"}),
        planted=lambda rows: (rows["step"] == "L01→L02") & (rows["expert"] == 3) & (rows["next_expert"] == 6),
    )


def _layer_information(trace: RoutingTrace) -> Called:
    frame = _rows(analysis.layer_information(trace, n_deals=39), ("p_value",))
    frame = frame[frame["layer"] < frame["other"]]
    frame = frame.assign(called=frame["p_value"] <= 0.05, step=frame["layer"] + "→" + frame["other"])
    frame = frame.drop(columns="layer").rename(columns={"step": "layer"})
    return _cells(frame, planted=lambda rows: rows["layer"] == "L01→L02")


def _paths(trace: RoutingTrace) -> Called:
    table = analysis.path_entropy(trace, window=2, n_deals=39).reset_index()
    frame = table.assign(layer=table["window"].str.replace("–", "→"), called=table["p_value"] <= 0.05)
    return _cells(frame, planted=lambda rows: rows["layer"] == "L01→L02")


def _common_paths(trace: RoutingTrace) -> Called:
    # Two layers of 64 paths, all of them told: p is the largest excess of any path in a deal, one p for all.
    rows = []
    for first, second in zip(trace.layers[:-1], trace.layers[1:], strict=True):
        table = analysis.common_paths(trace, layers=(first, second), n_shown=N_EXPERTS**2, n_deals=39, n_bootstrap=0)
        rows.append(table[["experts", "p_value"]].assign(layer=f"{first}→{second}"))
    frame = pd.concat(rows, ignore_index=True)
    frame["called"] = frame["p_value"] <= 0.05
    called = _cells(frame, planted=lambda rows: (rows["layer"] == "L01→L02") & (rows["experts"] == "3 6"))
    # Chance is of the best path of a window, so one window has one p: the least of its paths.
    best = frame.groupby("layer")["p_value"].min()
    empty = best[[each for each in best.index if all(part in EMPTY for part in each.split("→"))]]
    return replace(called, p_empty=tuple(empty.tolist()))


def _vocabulary(trace: RoutingTrace) -> Called:
    table = analysis.context_independence(trace)[["share_low"]].to_dataframe()
    return _of_layers(table, layer="L00", called=table["share_low"] > 0)


def _repetition(trace: RoutingTrace) -> Called:
    table = analysis.repetition(trace)[["excess_low"]]
    return _of_layers(table, layer="L05", called=table["excess_low"] > 0)


def _convergence(trace: RoutingTrace) -> Called:
    # Prompts are numbered by task: recorded in this order, the run begins with one task.
    tokens = trace.tokens
    rows = np.lexsort((tokens["position"], tokens["prompt"]))
    lined_up = RoutingTrace.from_arrays(
        trace.experts.values[rows],
        layer_facts=trace.layer_facts,
        tokens=tokens.iloc[rows].reset_index(drop=True),
        prompts=trace.prompts,
        checked=False,
    )
    first = analysis.load_convergence(lined_up, n_points=6, n_permutations=PERMUTATIONS).groupby("layer").first()
    return _of_layers(first[["p_value"]], layer="L03", called=first["p_value"] <= 0.05)


def _passes(trace: RoutingTrace) -> Called:
    table = analysis.worst_passes(trace, order="task", batch_size=12, n_bootstrap=0, n_permutations=PERMUTATIONS // 2)
    table = table.loc["prompt"]
    return _of_layers(table[["p_value"]], layer="L03", called=table["p_value"] <= 0.05)


TESTS: dict[str, tuple[str, Callable[[RoutingTrace], Called]]] = {
    "specialization": ("q ≤ 0.05", _specialization),
    "specialists": ("listed (lift ≥ 0.7)", _specialists),
    "controlled_specialization, ids matched": ("q ≤ 0.05", partial(_specialization, match="token_id")),
    "task_information": ("p ≤ 0.05", _information),
    "split_half": ("p ≤ 0.05", _split_half),
    "differential": ("q ≤ 0.05, effect ≥ 0.2", _differential),
    "prompt_correlation": ("q ≤ 0.05, abs(r) ≥ 0.1", _prompt_correlation),
    "routing_distance": ("q ≤ 0.05", _distance),
    "correctness_link": ("q ≤ 0.05, effect ≥ 0.2", _correctness),
    "coactivation": ("q ≤ 0.05, lift ≥ 0.5", _coactivation),
    "transitions": ("q ≤ 0.05, lift ≥ 0.5", _transitions),
    "layer_information": ("p ≤ 0.05", _layer_information),
    "path_entropy": ("p ≤ 0.05", _paths),
    "common_paths": ("p ≤ 0.05", _common_paths),
    "context_independence": ("interval above 0", _vocabulary),
    "repetition": ("interval above 0", _repetition),
    "worst_passes, by task": ("p ≤ 0.05", _passes),
    "load_convergence": ("p ≤ 0.05", _convergence),
}


def study(seed: int, *, strength: float, only: Sequence[str] = ()) -> dict[str, Called]:
    """What every test, or each of some, says of one trace."""
    trace = simulated(seed, strength=strength)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: TESTS[name][1](trace) for name in only or TESTS}


def _studied(seed: int, strength: float, only: Sequence[str]) -> dict[str, Called]:
    return study(seed, strength=strength, only=only)


def _report(planted: list[dict[str, Called]], null: list[dict[str, Called]]) -> str:
    return f"{as_markdown(table_of(planted, null))}\n\n{len(planted)} planted and {len(null)} null traces.\n"


def table_of(planted: list[dict[str, Called]], null: list[dict[str, Called]]) -> pd.DataFrame:
    """One row a test: power, false-discovery rate, and what null traces give."""
    rows = []
    for name, (rule, _) in TESTS.items():
        if name not in planted[0]:
            continue
        hits, misses = [each[name] for each in planted], [each[name] for each in null]
        p = np.array([value for each in misses for value in each.p_empty])
        rows.append(
            {
                "test": name,
                "calls where": rule,
                "power": np.mean([each.found for each in hits]),
                "false_discovery_rate": np.mean([each.n_false / max(1, each.n_called) for each in hits]),
                "null_traces_with_a_call": np.mean([each.n_called > 0 for each in misses]),
                "null_p_below_5_percent": np.mean(p <= 0.05) if len(p) else np.nan,
            }
        )
    return pd.DataFrame(rows).set_index("test")


def as_markdown(table: pd.DataFrame) -> str:
    """The table as it stands in the documents."""
    names = ["test", *(column.replace("_", " ") for column in table.columns)]
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for name, row in table.iterrows():
        cells = [str(name)]
        for value in row:
            cells.append(value if isinstance(value, str) else "" if pd.isna(value) else f"{value:.3g}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=200, help="planted ones, and as many null ones")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--tests", nargs="+", choices=tuple(TESTS), default=(), metavar="TEST", help="only these")
    parser.add_argument("--out", type=Path, help="file that is written anew after every ten pairs of traces")
    asked = parser.parse_args()
    planted: list[dict[str, Called]] = []
    null: list[dict[str, Called]] = []
    with ProcessPoolExecutor(asked.jobs) as pool:
        # By turns, so that what has been done so far is always as many of both.
        seeds = [seed for number in range(asked.traces) for seed in (number, 1_000_000 + number)]
        strengths = [1.0, 0.0] * asked.traces
        for number, each in enumerate(pool.map(_studied, seeds, strengths, repeat(asked.tests))):
            (null if number % 2 else planted).append(each)
            if asked.out and number % 20 == 19:
                asked.out.write_text(_report(planted, null), "utf-8")
    if asked.out:
        asked.out.write_text(_report(planted, null), "utf-8")
    print(_report(planted, null))


if __name__ == "__main__":
    main()
