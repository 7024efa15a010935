"""Compare PHA with its controls: ``python -m moe_models.recipes.pha_study --runs DIR … --checkpoint DIR``.

Reads ``metrics.json`` of the runs below the folders, no weights. Writes ``study.json`` and the model card into the
folder of the chosen checkpoint. Runs are paired when seed and number of examples are equal: then they saw the same rows
in the same order.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .intervals import Interval, mean_interval, paired_interval
from .pha_card import pha_card
from .pha_run import METHODS
from .runs import Metrics, require_alike, runs_by_seed, study_parser, write_study
from .scoring import main_score, mean

PHA, ABLATION = "pha", "no-contrast"

_SHARED = (
    "steps",
    "learning_rate",
    "warmup",
    "decay_share",
    "dropout",
    "examples_a_batch",
    "source_length",
    "examples",
)

Runs = dict[tuple[str, str], dict[int, Metrics]]
"""Metrics by method and number of examples, then by seed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the runs, write the study and the card, and return the exit code."""
    options = study_parser("Compare PHA runs with their controls, and write the card.").parse_args(arguments)
    result = study(read_runs(options.runs))
    name = options.checkpoint.name
    write_study(options.checkpoint, result, card=lambda metrics: pha_card(metrics, name=name, study=result))
    for n, gap in result["gaps"].get(ABLATION, {}).items():
        print(f"n = {n}: PHA − {ABLATION} {Interval(**gap)}")
    if result["trend"]:
        print(f"gap at the fewest less gap at the most examples: {Interval(**result['trend'])}")
    return 0


def read_runs(folders: Iterable[Path]) -> Runs:
    """Return the finished runs below folders.

    Raises:
        ValueError: two runs are of one method, number of examples and seed.
    """

    def key_of(training: Metrics) -> tuple[str, str] | None:
        known = training.get("method") in METHODS
        return (training["method"], str(training["n_examples"])) if known else None

    return runs_by_seed(folders, key_of=key_of, named=_named)


def study(runs: Runs) -> dict[str, Any]:
    """Return what comparing runs shows.

    Returns:
        ``sizes``, numbers of examples in order; ``scores``, by method and size: interval over seeds of the mean score
        over tasks, and each task's mean over seeds; ``gaps``, by control and size: PHA less the control, paired by
        seed; ``trend``: the gap to the ablation at the fewest examples less that at the most, paired by seed;
        ``vectors``, by method and size: retrieval and silhouette.

    Raises:
        ValueError: paired runs differ in more than their method.
    """
    require_alike(runs, shared=_SHARED, paired_by=lambda key: key[1], named=_named)
    sizes = sorted({n for _, n in runs}, key=lambda n: float("inf") if n == "all" else float(n))
    scores: dict[str, dict[str, Any]] = {}
    vectors: dict[str, dict[str, Any]] = {}
    for (method, n), by_seed in sorted(runs.items(), key=lambda item: (item[0][0], sizes.index(item[0][1]))):
        tasks = sorted(next(iter(by_seed.values()))["test"])
        scores.setdefault(method, {})[n] = {
            **asdict(mean_interval([metrics["mean_score"] for metrics in by_seed.values()])),
            "by_seed": {str(seed): metrics["mean_score"] for seed, metrics in sorted(by_seed.items())},
            "by_task": {task: mean([main_score(m["test"][task]) for m in by_seed.values()]) for task in tasks},
        }
        vectors.setdefault(method, {})[n] = {
            "retrieval": mean([metrics["vectors"]["retrieval"]["accuracy"] for metrics in by_seed.values()]),
            "silhouette": mean([metrics["vectors"]["silhouette"] for metrics in by_seed.values()]),
        }
    by_seed = {key: {seed: metrics["mean_score"] for seed, metrics in its.items()} for key, its in runs.items()}
    gaps: dict[str, dict[str, Any]] = {}
    for method, n in runs:
        own = by_seed.get((PHA, n), {})
        if method != PHA and own.keys() & by_seed[method, n].keys():
            gaps.setdefault(method, {})[n] = asdict(paired_interval(own, by_seed[method, n]))
    gaps = {method: {n: its[n] for n in sizes if n in its} for method, its in sorted(gaps.items())}
    return {
        "sizes": sizes,
        "scores": scores,
        "gaps": gaps,
        "trend": _trend(by_seed, sizes=[n for n in sizes if n in gaps.get(ABLATION, {})]),
        "vectors": {method: its for method, its in vectors.items() if method in (PHA, ABLATION)},
        "methods": {method: METHODS[method].words for method in scores},
    }


def _trend(by_seed: Mapping[tuple[str, str], dict[int, float]], *, sizes: Sequence[str]) -> dict[str, Any] | None:
    """Return how much larger the gap is with the fewest examples than with the most, or None without two sizes."""
    if len(sizes) < 2:
        return None

    def gap(n: str) -> dict[int, float]:
        own, other = by_seed[PHA, n], by_seed[ABLATION, n]
        return {seed: own[seed] - other[seed] for seed in own.keys() & other.keys()}

    fewest, most = gap(sizes[0]), gap(sizes[-1])
    return asdict(paired_interval(fewest, most)) if fewest.keys() & most.keys() else None


def _named(key: tuple[str, str]) -> str:
    return f"{key[0]} with {key[1]} examples"


if __name__ == "__main__":
    sys.exit(main())
