"""Finished runs that a study compares: found below folders, held to what pairs must share, and written up."""

import argparse
import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

Metrics = Mapping[str, Any]
"""What a recipe writes to ``metrics.json``."""

Key = TypeVar("Key", bound=Hashable)


def study_parser(description: str) -> argparse.ArgumentParser:
    """Return the options that every study takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of runs, or that hold runs")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of the run that the card is for")
    return parser


def finished_runs(folders: Iterable[Path]) -> Iterator[tuple[Path, Metrics]]:
    """Yield folder and metrics of each finished run in or below folders, in the order of their paths."""
    for path in sorted({path for folder in folders for path in folder.rglob("metrics.json")}):
        yield path.parent, json.loads(path.read_text(encoding="utf-8"))


def runs_by_seed(
    folders: Iterable[Path], *, key_of: Callable[[Metrics], Key | None], named: Callable[[Key], str]
) -> dict[Key, dict[int, Metrics]]:
    """Return the metrics of the finished runs below folders, by what they are and then by seed.

    Args:
        folders: where to look.
        key_of: what a run is, from the part "training" of its metrics; None for runs of other recipes.
        named: the same in words.

    Raises:
        ValueError: two runs are the same thing with the same seed.
    """
    runs: dict[Key, dict[int, Metrics]] = {}
    for folder, metrics in finished_runs(folders):
        training = metrics.get("training", {})
        if (key := key_of(training)) is None:
            continue
        its = runs.setdefault(key, {})
        if training["seed"] in its:
            message = (
                f"{folder} is a second run of {named(key)}, with seed {training['seed']}. "
                "Give the study one run of each."
            )
            raise ValueError(message)
        its[training["seed"]] = metrics
    return runs


def require_alike(
    runs: Mapping[Key, Mapping[int, Metrics]],
    *,
    shared: Sequence[str],
    paired_by: Callable[[Key], Hashable],
    named: Callable[[Key], str],
) -> None:
    """Refuse pairs of runs that differ in more than what is compared.

    Args:
        runs: metrics by what runs are, then by seed.
        shared: options that runs of a pair have in common.
        paired_by: what runs of a pair have in common beside these and the seed.
        named: what a run is, in words.

    Raises:
        ValueError: two runs of a pair have not these options in common.
    """
    seen: dict[tuple[Hashable, int], tuple[Key, Metrics]] = {}
    for key, by_seed in runs.items():
        for seed, metrics in by_seed.items():
            first, told = seen.setdefault((paired_by(key), seed), (key, metrics["training"]))
            if odd := [name for name in shared if told[name] != metrics["training"][name]]:
                message = (
                    f"{named(first)} and {named(key)}, with seed {seed}, differ in {', '.join(odd)} as well, so no gap "
                    "between them could be explained. Run them with equal options."
                )
                raise ValueError(message)


def write_study(checkpoint: Path, study: Mapping[str, Any], *, card: Callable[[Metrics], str]) -> None:
    """Write ``study.json`` and the model card into the folder of a checkpoint; ``card`` makes it from the metrics."""
    (checkpoint / "study.json").write_text(json.dumps(study, indent=1) + "\n", encoding="utf-8")
    metrics = json.loads((checkpoint / "metrics.json").read_text(encoding="utf-8"))
    (checkpoint / "README.md").write_text(card(metrics), encoding="utf-8")
