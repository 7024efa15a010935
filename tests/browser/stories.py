"""Runs whose answers are known, for the stories of docs/stories.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.interventions.knock_out_tables import (
    UNTOUCHED,
    Measured,
    dissociation_table,
    double_table,
    effect_table,
    unit_of,
)
from analysis.interventions.ledger import StudyFolder
from routing import RoutingTrace, open_trace, save_trace
from tests.adapter_traces import hyper_moe_trace, pha_trace
from tests.traces import WORDS, null_trace, planted_trace, routed

__all__ = ["KNOCKED_OUT", "N_RANDOM", "chooses", "rate_of", "save_stories", "task_of_token"]

SERVES = ("L03", 2)
SERVES_AT = (3, 2)
KNOCKED_OUT = {"knowledge": 0.8, "extractive": 0.02, "classification": -0.01}
"""Nats a token that types of task lose without the expert that serves knowledge."""
N_RANDOM = 20


def save_stories(folder: Path) -> None:
    """Write the runs of all stories."""
    served = planted_trace(
        seed=7,
        specialists={"facts": SERVES_AT, "capitals": SERVES_AT},
        popular={SERVES_AT: -2.0},
        strength=6.0,
        n_prompts_a_task=12,
    )
    save_trace(served, folder / "served")
    save_trace(served, folder / "denied")
    _knock_out(folder / "served", loses=KNOCKED_OUT)
    _knock_out(folder / "denied", loses=dict.fromkeys(KNOCKED_OUT, 0.1))
    save_trace(overflowing(), folder / "overflowing")
    save_trace(served, folder / "training" / "step-000100")
    save_trace(_moved(served), folder / "training" / "step-000200")
    neighbors = {(1, 0): 2.5, (1, 1): 2.5}
    shape = {"n_tasks": 4, "n_prompts_a_task": 20, "n_tokens_a_prompt": 8, "n_layers": 2}
    save_trace(planted_trace(seed=4, specialists={}, popular=neighbors, **shape), folder / "crowded")
    save_trace(_hanging_by_a_thread(), folder / "thread")
    save_trace(_labelled(), folder / "labelled")
    save_trace(null_trace(seed=2, n_prompts_a_task=12), folder / "null")
    save_trace(hyper_moe_trace(seed=0, planted=False), folder / "hyper-null")
    save_trace(pha_trace(seed=0), folder / "prototypes")


def chooses(trace: RoutingTrace, layer: int, expert: int) -> np.ndarray:
    """(token) whether it selects the expert."""
    top_k = trace.layer_facts[layer].top_k
    return (trace.experts.values[:, layer, :top_k] == expert).any(axis=1)


def task_of_token(trace: RoutingTrace) -> np.ndarray:
    """(token) its task."""
    return trace.prompts["task"].to_numpy(dtype=object)[trace.tokens["prompt"]]


def rate_of(trace: RoutingTrace, layer: int, expert: int, *, tasks: tuple[str, ...]) -> float:
    """Mean, over the prompts of some tasks, of the share of their tokens that select the expert."""
    here = np.isin(task_of_token(trace), tasks)
    by_prompt = pd.Series(chooses(trace, layer, expert)[here]).groupby(trace.tokens["prompt"].to_numpy()[here])
    return float(by_prompt.mean().mean())


def rerouted(trace: RoutingTrace, logits: np.ndarray, *, top_k: int, **parts: Any) -> RoutingTrace:
    """The same prompts with other decisions.

    Args:
        trace: a planted trace.
        logits: (token, layer, expert) that decide now.
        top_k: how many experts are selected.
        parts: further parts that are other than the trace's.
    """
    arrays = routed(logits.astype(np.float16).astype(np.float32), top_k=top_k, n_runners_up=2)
    given: dict[str, Any] = {
        "layer_facts": trace.layer_facts,
        "tokens": trace.tokens.drop(columns=["stack"]),
        "prompts": trace.prompts,
        "vocabulary": dict(trace.vocabulary),
        "provenance": trace.provenance,
    }
    return RoutingTrace.from_arrays(arrays.pop("experts"), **(given | arrays | parts))


def overflowing() -> RoutingTrace:
    """L02·E5 takes every “Paris”, which is most of what the task facts says."""
    plain = planted_trace(seed=11, n_tasks=3, specialists={}, top_k=1, n_prompts_a_task=16)
    tokens = plain.tokens.drop(columns=["stack"])
    paris = WORDS.index("Paris")
    task = task_of_token(plain)
    drawn = np.random.default_rng(0).random(len(tokens)) < 0.8
    tokens["token_id"] = np.where((task == "facts") & drawn, paris, tokens["token_id"])
    logits = plain.logits.values.astype(np.float32)
    logits[tokens["token_id"] == paris, 2, 5] += 20.0
    return rerouted(plain, logits, top_k=1, tokens=tokens)


def _moved(trace: RoutingTrace) -> RoutingTrace:
    """The tokens of sentiment take another last expert in L01, and nothing else is other."""
    experts, scores = trace.experts.values.copy(), trace.scores.values.copy()
    moved = task_of_token(trace) == "sentiment"
    experts[moved, 1, 1], experts[moved, 1, 2] = experts[moved, 1, 2], experts[moved, 1, 1].copy()
    return RoutingTrace.from_arrays(
        experts,
        layer_facts=trace.layer_facts,
        scores=scores,
        weights=trace.weights.values,
        tokens=trace.tokens.drop(columns=["stack"]),
        prompts=trace.prompts,
        vocabulary=dict(trace.vocabulary),
        provenance=trace.provenance,
    )


def _hanging_by_a_thread() -> RoutingTrace:
    """In L02 tokens of facts take E1 and E3, with E5 behind; token 6 of facts-004 all but took E5."""
    plain = planted_trace(seed=5, n_tasks=4, specialists={}, n_prompts_a_task=8)
    task = task_of_token(plain)
    logits = plain.logits.values.astype(np.float32)
    logits[task == "facts", 2] -= 4.0
    logits[task == "facts", 2, 1] = 8.0
    logits[task == "facts", 2, 3] = 7.0
    logits[task == "facts", 2, 5] = 6.0
    prompt = int(np.flatnonzero(plain.prompts["prompt"] == "facts-004")[0])
    here = (plain.tokens["prompt"] == prompt) & (plain.tokens["position"] == 6)
    logits[here, 2, 5] = 6.99
    return rerouted(plain, logits, top_k=2)


def _labelled() -> RoutingTrace:
    """Somebody's own labels beside the prompts: those in German go to L01·E6, whatever their task."""
    plain = planted_trace(seed=9, n_tasks=4, specialists={}, n_prompts_a_task=16)
    rng = np.random.default_rng(1)
    german = rng.random(plain.n_prompts) < 0.5
    prompts = plain.prompts.assign(
        language=np.where(german, "German", "English"), shift=rng.choice(["early", "late"], plain.n_prompts)
    )
    logits = plain.logits.values.astype(np.float32)
    logits[german[plain.tokens["prompt"]], 1, 6] += 3.0
    return rerouted(plain, logits, top_k=2, prompts=prompts)


def _knock_out(path: Path, *, loses: dict[str, float]) -> None:
    """A study of the expert that serves knowledge, as measured losses would have made it; those of sets are 1…20 %."""
    trace = open_trace(path)
    about = trace.prompts[["prompt", "task", "task_type"]].reset_index(drop=True)
    before = about.assign(nll=2.0, score=np.nan)
    wobble = 0.1 * (-1.0) ** np.arange(len(about))
    tables = {UNTOUCHED: before}
    for number in range(N_RANDOM + 1):
        change = about["task_type"].map(loses) + wobble if number == 0 else 0.01 * number
        tables[unit_of("knowledge", number)] = before.assign(nll=2.0 + change)
    measured = Measured(tables=tables, n_random={"knowledge": N_RANDOM}, seed=0)
    serves = {"knowledge": "knowledge"}
    params = {"sets": {"knowledge": [[*SERVES]]}, "n_random": N_RANDOM, "loses": loses}
    others = [(f"L{layer:02d}", expert) for layer in range(3) for expert in range(8)][:N_RANDOM]
    rows = [("knowledge", number, *each, 0.1) for number, each in enumerate([SERVES, *others])]
    StudyFolder(trace, "knock-out", params=params).keep(
        {
            "sets": pd.DataFrame(rows, columns=["set", "random", "layer", "expert", "load"]),
            "effects": effect_table(measured, over="task_type"),
            "by_task": effect_table(measured, over="task"),
            "dissociation": dissociation_table(measured, serves, over="task_type"),
            "double": double_table(measured, serves, over="task_type"),
        },
        about={"over": "task_type", "serves": serves, "seed": 0},
    )
