"""The models that may read a typed text: that of the open run, those that the app knows, and a folder that is named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from app.recordings.models import found_models
from app.runs import REPOSITORY
from app.studies.asked import model_of
from routing import RoutingTrace

__all__ = ["Reader", "is_own", "reader_of", "readers"]


@dataclass(frozen=True)
class Reader:
    """A model folder.

    Attributes:
        name: as the URL and the list call it.
        folder: where it is, from the repository if it lies there.
        tasks: tasks that the model must be told one of; none for most models.
        weight_bytes: of its weights on the disk; 0 where there are none.
    """

    name: str
    folder: str
    tasks: tuple[str, ...] = ()
    weight_bytes: int = 0


def readers(trace: RoutingTrace) -> tuple[Reader, ...]:
    """The models at hand, that of the trace first."""
    own = model_of(trace)
    folders = ([own] if own is not None else []) + [each.folder for each in found_models()]
    found: dict[str, Reader] = {}
    for folder in folders:
        reader = reader_of(folder)
        if reader.folder not in {each.folder for each in found.values()}:
            found.setdefault(reader.name, reader)
    return tuple(found.values())


def reader_of(folder: str) -> Reader:
    """The model in a folder; that there is one is known once it is loaded."""
    path = next((each for each in (Path(folder).expanduser(), REPOSITORY / folder) if each.is_dir()), Path(folder))
    path = path.resolve()
    shown = str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)
    return Reader(path.name, shown, _tasks(path / "config.json"), _weight_bytes(path))


def is_own(reader: Reader, trace: RoutingTrace) -> bool:
    """Whether a trace was recorded from this model."""
    own = model_of(trace)
    return own is not None and reader_of(own).folder == reader.folder


def _weight_bytes(folder: Path) -> int:
    try:
        return sum(each.stat().st_size for each in folder.glob("*.safetensors"))
    except OSError:
        return 0


def _tasks(config: Path) -> tuple[str, ...]:
    try:
        told = json.loads(config.read_text("utf-8"))
    except (OSError, ValueError):
        return ()
    tasks = told.get("tasks") if isinstance(told, dict) else None
    return tuple(each for each in tasks if isinstance(each, str)) if isinstance(tasks, list) else ()
