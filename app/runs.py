"""Where the traces are that the app can show."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["REPOSITORY", "RUNS_VARIABLE", "Run", "find_runs", "places", "snapshots"]

RUNS_VARIABLE = "ROUTESCOPE_RUNS"
REPOSITORY = Path(__file__).resolve().parents[1]
# Sample models with traces of their own, recorded while they were trained.
_SHIPPED = REPOSITORY / "sample_checkpoints"
_STEP = re.compile(r"step[-_]?(\d+)", re.IGNORECASE)
# What makes a folder a trace: its header. Runs may lie a few folders deep, never inside one another.
_HEADER = "header.json"
_DEPTH = 4


@dataclass(frozen=True)
class Run:
    """A trace on disk.

    Attributes:
        name: how the URL and the picker call it; unique.
        path: its folder.
        series: what it is a snapshot of, None where it stands alone.
        step: the training step of the snapshot, None where it is none.
        stamp: changes when the trace on disk does.
    """

    name: str
    path: str
    series: str | None
    step: int | None
    stamp: tuple[int, int]


def places() -> tuple[Path, ...]:
    """Folders below which the user's own runs lie, whatever links lead there."""
    named = os.environ.get(RUNS_VARIABLE)
    if named:
        return tuple(Path(each).expanduser().resolve() for each in named.split(os.pathsep) if each)
    return tuple(dict.fromkeys((Path.cwd().resolve() / "runs", REPOSITORY / "runs")))


def find_runs(roots: Sequence[str | Path]) -> tuple[Run, ...]:
    """Every trace that can be shown: the user's own, newest first, then those shipped with sample models."""
    found: dict[str, Run] = {}
    for root in map(Path, roots):
        for path in sorted(_traces_below(root, depth=_DEPTH), key=_changed, reverse=True):
            _add(found, path, name=str(path.relative_to(root)))
    for model in sorted(_SHIPPED.glob("*/traces")):
        for path in sorted(_traces_below(model, depth=2), key=lambda path: (-(_step_of(path) or 0), path.name)):
            _add(found, path, name=f"{model.parent.name}/{path.relative_to(model)}", series=model.parent.name)
    return tuple(found.values())


def snapshots(runs: tuple[Run, ...], run: Run) -> tuple[Run, ...]:
    """The traces of one model at several training steps, earliest first; empty where there is only one.

    A run of a user belongs to the series whose folder it was recorded from, which its name then begins with.
    """
    series = run.series or next((each.series for each in runs if each.series and run.name == each.series), None)
    members = [each for each in runs if each.series is not None and each.series == series and each.step is not None]
    return tuple(sorted(members, key=lambda each: each.step or 0)) if len(members) > 1 else ()


def _traces_below(root: Path, *, depth: int) -> list[Path]:
    if not root.is_dir():
        return []
    if (root / _HEADER).is_file():
        return [root]
    below: list[Path] = []
    for child in sorted(root.iterdir()):
        if not child.is_dir() or child.name.startswith("."):
            continue
        if (child / _HEADER).is_file():
            below.append(child)
        elif depth > 1:
            below += _traces_below(child, depth=depth - 1)
    return below


def _add(found: dict[str, Run], path: Path, *, name: str, series: str | None = None) -> None:
    name = path.name if name == "." else name
    if any(run.path == str(path) for run in found.values()):
        return
    unique, number = name if name not in found else f"{path.parent.name}/{name}", 1
    while unique in found:
        number += 1
        unique = f"{path.parent.name}/{name} ({number})"
    step = _step_of(path)
    if series is None and step is not None:
        series = str(path.parent)
    found[unique] = Run(name=unique, path=str(path), series=series, step=step, stamp=_stamp(path))


def _step_of(path: Path) -> int | None:
    match = _STEP.search(path.name)
    return int(match.group(1)) if match else None


def _changed(path: Path) -> int:
    return _stamp(path)[0]


def _stamp(path: Path) -> tuple[int, int]:
    # Not the folder itself: what is made from a trace and kept inside it makes no other trace of it, nor a newer one.
    parts = (path / _HEADER, path / "commits.jsonl", path / "prompts.parquet")
    stats = [part.stat() for part in parts if part.exists()]
    return max(stat.st_mtime_ns for stat in stats), sum(stat.st_size for stat in stats)
