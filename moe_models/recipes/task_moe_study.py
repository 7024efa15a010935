"""Compare Task-level MoE with its controls: ``python -m moe_models.recipes.task_moe_study --runs DIR …``.

Reads ``metrics.json`` of the runs below the folders, no weights. Writes ``study.json`` and the model card into the
folder of the chosen checkpoint. Runs are paired when their seeds are equal: then they saw the same rows in the same
order, and new tasks had the same support rows.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .adaptation import relative_gain
from .intervals import Interval, mean_interval
from .runs import Metrics, require_alike, runs_by_seed, study_parser, write_study
from .scoring import main_score, mean
from .task_moe_card import task_moe_card
from .task_moe_run import ROUTES

LEARNED, DENSE, RANDOM = "learned", "dense", "task-random"

_SHARED = ("steps", "learning_rate", "dropout", "source_length", "rows", "new_tasks", "adapt_steps", "adapt_examples")

Runs = dict[str, dict[int, Metrics]]
"""Metrics by condition, then by seed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the runs, write the study and the card, and return the exit code."""
    parser = study_parser("Compare Task-level MoE runs with their controls, and write the card.")
    options = parser.parse_args(arguments)
    result = study(read_runs(options.runs))
    name = options.checkpoint.name
    write_study(options.checkpoint, result, card=lambda metrics: task_moe_card(metrics, name=name, study=result))
    for feature, its in result["features"].items():
        print(f"{feature}: p by seed {its['p_values']}, knock-out p by seed {its['knock_out_p_values']}")
    for name, by_base in result["gains"].items():
        print(f"{name}: " + "; ".join(f"over {base} {Interval(**gain)}" for base, gain in by_base.items()))
    return 0


def condition_of(training: Mapping[str, Any]) -> str:
    """Return what a run is, in words: its routes, and how it departs from random embeddings and silent prompts."""
    words = [training["routes"]]
    if training["task_embedding"] == "text":
        words.append("text embeddings")
    if training["instruction"] == "on":
        words.append("instruction")
    if training["stage"] == "1":
        words.append("stage 1 alone")
    return ", ".join(words)


def read_runs(folders: Iterable[Path]) -> Runs:
    """Return the finished runs below folders.

    Raises:
        ValueError: two runs are of one condition and seed.
    """

    def key_of(training: Metrics) -> str | None:
        return condition_of(training) if training.get("routes") in ROUTES else None

    return runs_by_seed(folders, key_of=key_of, named=repr)


def study(runs: Runs) -> dict[str, Any]:
    """Return what comparing runs shows.

    Returns:
        ``features``, by feature, over the seeds of the main condition: ``p_values`` of the best correlation and the
        share of seeds below .05, ``r`` of each seed, ``untrained_p_values``, ``knock_out_p_values`` and ``specificity``
        (interval of the nll the knock-out costs the feature's tasks more than the others); ``conditions``, the same
        p-values for the other conditions; ``scores``, by condition, mean test score; ``gains``, ARG over dense and over
        task-random routes on the training tasks' test rows, and on new tasks before and after adaptation;
        ``sharpness``, by condition; ``methods``, words.

    Raises:
        ValueError: paired runs differ in more than their condition.
    """
    require_alike(runs, shared=_SHARED, paired_by=lambda _: None, named=repr)
    main_runs = runs.get(LEARNED, {})
    return {
        "seeds": {name: sorted(by_seed) for name, by_seed in sorted(runs.items())},
        "features": {feature: _feature(main_runs, feature) for feature in _features(main_runs)},
        "conditions": {
            name: {feature: _p_values(by_seed, feature) for feature in _features(by_seed)}
            for name, by_seed in sorted(runs.items())
            if name != LEARNED
        },
        "scores": {
            name: asdict(mean_interval([metrics["mean_score"] for metrics in by_seed.values()]))
            for name, by_seed in sorted(runs.items())
        },
        "gains": _gains(runs),
        "sharpness": {
            name: {
                key: mean([metrics["routes"][key] for metrics in by_seed.values()])
                for key in ("entropy", "mean_route_entropy", "specialization", "n_distinct_hard_routes")
            }
            for name, by_seed in sorted(runs.items())
        },
        "methods": ROUTES,
    }


def _features(by_seed: Mapping[int, Mapping[str, Any]]) -> list[str]:
    return list(next(iter(by_seed.values()))["routes"]["soft"]["features"]) if by_seed else []


def _p_values(by_seed: Mapping[int, Mapping[str, Any]], feature: str) -> list[float]:
    return [round(by_seed[seed]["routes"]["soft"]["features"][feature]["p_value"], 5) for seed in sorted(by_seed)]


def _feature(by_seed: Mapping[int, Mapping[str, Any]], feature: str) -> dict[str, Any]:
    soft = [by_seed[seed]["routes"]["soft"]["features"][feature] for seed in sorted(by_seed)]
    outs = [by_seed[seed]["knock_outs"].get(feature, {}) for seed in sorted(by_seed)]
    p_values = _p_values(by_seed, feature)
    done = [out for out in outs if out.get("experts")]
    return {
        "p_values": p_values,
        "share_significant": mean([float(p < 0.05) for p in p_values]),
        "r": [round(its["r"], 4) for its in soft],
        "untrained_p_values": [round(its["untrained_p_value"], 5) for its in soft],
        "knock_out_p_values": [round(out["nll"]["p_value"], 4) for out in done],
        "specificity": asdict(mean_interval([out["nll"]["specificity"] for out in done])) if done else None,
    }


def _gains(runs: Runs) -> dict[str, dict[str, Any]]:
    kinds = {
        "training tasks": lambda metrics: {task: main_score(its) for task, its in metrics["test"].items()},
        "new tasks, route of a known task": lambda metrics: _new(metrics, "zero_shot"),
        "new tasks, adapted": lambda metrics: _new(metrics, "adapted"),
    }
    gains: dict[str, dict[str, Any]] = {}
    for name, scores_of in kinds.items():
        for base in (DENSE, RANDOM, "average"):
            seeds = sorted(runs.get(LEARNED, {}).keys() & runs.get(base, {}).keys())
            told = [relative_gain(scores_of(runs[LEARNED][seed]), scores_of(runs[base][seed])) for seed in seeds]
            known = [gain for gain in told if gain is not None]
            if known:
                gains.setdefault(name, {})[base] = asdict(mean_interval(known))
    return gains


def _new(metrics: Mapping[str, Any], which: str) -> dict[str, float]:
    return {task: its[which] for task, its in metrics.get("new_tasks", {}).items()}


if __name__ == "__main__":
    sys.exit(main())
