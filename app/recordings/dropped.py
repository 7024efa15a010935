"""Task files that were dropped into the page, kept where a recording's own process finds them."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
import uuid
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Protocol

from app.recordings.kept import HOME, read_request

__all__ = ["dropped_folder", "keep", "sweep", "without_places"]

_SECONDS_UNUSED = 24 * 3600
_UNSAFE = re.compile(r"[^\w.-]+")


class Dropped(Protocol):
    """A file as the browser hands it over."""

    name: str

    def getvalue(self) -> bytes:
        """Its content."""


def dropped_folder(runs: Path) -> Path:
    """Where dropped files lie, beside the runs."""
    return runs / HOME / ".dropped"


def keep(files: Iterable[Dropped], runs: Path) -> tuple[Path, ...]:
    """Write files where they stay under the name that they came with; equal content is written once.

    Args:
        files: what was dropped.
        runs: the folder of runs.
    """
    kept = []
    for file in files:
        content = file.getvalue()
        # A name comes from another machine: its last part only, without what a path or a shell could read.
        name = _UNSAFE.sub("_", PurePath(file.name.replace("\\", "/")).name).lstrip(".") or "tasks.jsonl"
        digest = hashlib.sha256(name.encode() + b"\0" + content).hexdigest()[:16]
        path = dropped_folder(runs) / digest / name
        if path.is_file():
            # Whoever drops it again needs it for another day.
            path.parent.touch()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{uuid.uuid4().hex}.draft")
            draft.write_bytes(content)
            draft.replace(path)
        kept.append(path)
    return tuple(kept)


def sweep(runs: Path) -> None:
    """Take away files of yesterday and before that no recording was asked for with."""
    folder = dropped_folder(runs)
    if not folder.is_dir():
        return
    requests = (read_request(each) for each in (runs / HOME).iterdir() if each.is_dir())
    used = {source for request in requests if request is not None for source in request.tasks}
    for each in folder.iterdir():
        old = each.is_dir() and time.time() - each.stat().st_mtime > _SECONDS_UNUSED
        if old and not any(str(path) in used for path in each.iterdir()):
            shutil.rmtree(each, ignore_errors=True)


def without_places(text: str, runs: Path) -> str:
    """A message with dropped files under the names that they came with."""
    return re.sub(re.escape(str(dropped_folder(runs))) + r"/[0-9a-f]{16}/", "", text)
