"""The recordings of one folder of runs, whoever made them, and how one is deleted."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from app.recordings.kept import HOME, Standing, is_locked, lock_of
from app.runs import Run
from routing import RecordingError, RoutingTrace

__all__ = ["Entry", "State", "bytes_below", "entries", "remove"]

State = Literal["under way", "finished", "cancelled", "failed", "cut off"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A recording in the list.

    Attributes:
        name: of the run.
        path: folder of the trace, whether there is one yet or not.
        run: the trace, None where nothing was recorded.
        standing: of the recording that was asked for in the app, None where it was made elsewhere.
    """

    name: str
    path: Path
    run: Run | None
    standing: Standing | None

    @property
    def is_under_way(self) -> bool:
        """Whether somebody works on it."""
        return self.standing is not None and self.standing.is_alive

    def state(self, trace: RoutingTrace | None) -> State:
        """How it ended, or that it has not.

        Args:
            trace: of the run, None where there is none or it cannot be read.
        """
        if self.is_under_way:
            return "under way"
        stage = self.standing.stage if self.standing is not None else None
        if trace is not None and trace.provenance.complete:
            return "finished"
        if trace is not None and is_locked(self.path / "commits.jsonl"):
            return "under way"
        named: dict[str | None, State] = {"stopped": "cancelled", "failed": "failed"}
        return named.get(stage, "cut off")


def entries(root: Path, runs: Sequence[Run], standings: Sequence[Standing]) -> tuple[Entry, ...]:
    """Every recording in a folder of runs: what is under way first, then the newest.

    Args:
        root: the folder.
        runs: what can be opened, in this folder and elsewhere.
        standings: what was asked for in the app.
    """
    asked = {each.name: each for each in standings}
    own = {each.name: each for each in runs if Path(each.path).is_relative_to(root)}
    found = [
        Entry(name=name, path=Path(own[name].path) if name in own else root / name, run=own.get(name), standing=told)
        for name in dict.fromkeys((*own, *asked))
        for told in (asked.get(name),)
        # What came to its end and is gone was removed by hand.
        if name in own or (told is not None and told.stage != "done")
    ]
    return tuple(sorted(found, key=lambda each: (not each.is_under_way, -_changed(each))))


def remove(root: Path, entry: Entry) -> None:
    """Delete a recording: its trace with all that was made from it, and what was asked.

    Args:
        root: the folder of runs.
        entry: the recording.

    Raises:
        RecordingError: it is being written, or lies elsewhere.
    """
    told = root / HOME / quote(entry.name, safe="")
    away = root / HOME / f".deleted-{uuid.uuid4().hex}"
    if entry.path.is_symlink() or not entry.path.resolve().is_relative_to(root.resolve()) or entry.path == root:
        msg = (
            f"{entry.name} lies outside {root}, and only what lies there is deleted here. Remove {entry.path} by hand."
        )
        raise RecordingError(msg)
    told.mkdir(parents=True, exist_ok=True)
    with lock_of(told / "lock") as lock:
        if lock is None or is_locked(entry.path / "commits.jsonl"):
            msg = f"{entry.name} is being recorded, so it cannot be deleted. Cancel it first."
            raise RecordingError(msg)
        # In one step, so that nobody finds half a trace.
        if entry.path.is_dir():
            entry.path.rename(away)
        shutil.rmtree(told)
    shutil.rmtree(away, ignore_errors=True)


def bytes_below(trace: RoutingTrace) -> int:
    """Bytes of the disk that a trace takes."""
    if trace.path is None:
        return 0
    sizes = [path.stat() for path in Path(trace.path).rglob("*") if path.is_file()]
    return sum(min(each.st_size, each.st_blocks * 512) for each in sizes)


def _changed(entry: Entry) -> float:
    began = entry.standing.began if entry.standing is not None else 0.0
    return max(began, entry.run.stamp[0] / 1e9 if entry.run is not None else 0.0)
