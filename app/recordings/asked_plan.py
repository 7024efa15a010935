"""What the page asks of a model and tasks before a recording, and what came of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.jobs import Jobs
from app.recordings.models import place_of
from app.recordings.outlook import Outlook

__all__ = ["Looking", "ask", "is_asked", "looks_like_hub_name", "why_no_folder"]

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, kw_only=True)
class Looking:
    """How the look at a model and tasks stands.

    Attributes:
        outlook: what was found; None while it is looked for, and where nothing can be recorded.
        problem: why nothing can be recorded; empty where all is well.
        seconds: since the look began.
        is_waiting: whether another look is at work.
    """

    outlook: Outlook | None = None
    problem: str = ""
    seconds: float = 0.0
    is_waiting: bool = False

    @property
    def is_over(self) -> bool:
        """Whether there is an answer."""
        return self.outlook is not None or bool(self.problem)


def ask(
    model: str, sources: Sequence[str], *, revision: str | None, trust_remote_code: bool, jobs: Jobs
) -> tuple[str, Looking]:
    """Look at a model and tasks, once for all sessions.

    Args:
        model: an existing folder, or a name on the hub.
        sources: of tasks.
        revision: of the model on the hub.
        trust_remote_code: runs the model code of the repository itself.
        jobs: that look.

    Returns:
        key of the job, and how it stands.
    """
    key = _key(model, sources, revision=revision, trust_remote_code=trust_remote_code)
    asked = {"model": model, "tasks": list(sources), "revision": revision, "trust_remote_code": trust_remote_code}
    job = jobs.ensure(key, module="app.recordings.planner", arguments=[json.dumps(asked)])
    if job.state == "waiting":
        return key, Looking(is_waiting=True)
    if job.state == "running":
        return key, Looking(seconds=job.seconds)
    if job.state == "done" and job.folder is not None:
        if (found := job.folder / "outlook.json").is_file():
            return key, Looking(outlook=Outlook.read(found.read_text("utf-8")))
        if (told := job.folder / "problem.txt").is_file():
            return key, Looking(problem=told.read_text("utf-8"))
    last = job.message.splitlines()[-1] if job.message else "it ended without a word"
    return key, Looking(problem=f"The model and the tasks could not be looked at: {last}.")


def is_asked(model: str, sources: Sequence[str], *, revision: str | None, trust_remote_code: bool, jobs: Jobs) -> bool:
    """Whether this server was asked for this look before."""
    return jobs.is_asked(_key(model, sources, revision=revision, trust_remote_code=trust_remote_code))


def looks_like_hub_name(model: str) -> bool:
    """Whether a text that is no folder here may name a model on the hub."""
    return _HUB_NAME.fullmatch(model) is not None and not model.startswith(".")


def why_no_folder(model: str) -> str:
    """Why a text names no model folder of this machine; empty where it does, or may name one of the hub."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return (
            "" if (folder / "config.json").is_file() else f"The folder {model} holds no config.json, so it is no model."
        )
    if looks_like_hub_name(model) and not folder.parent.is_dir() or looks_like_hub_name(model) and "/" not in model:
        return ""
    return f"There is no model folder {model} on this machine."


def _key(model: str, sources: Sequence[str], *, revision: str | None, trust_remote_code: bool) -> str:
    stamps = [(source, _stamp(place_of(source))) for source in sources]
    return json.dumps([model, _stamp(Path(model)), stamps, revision, trust_remote_code])


def _stamp(path: Path) -> list[float]:
    """What changes when a folder's files, or a file, do."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return [float(len(files)), max((each.stat().st_mtime for each in files), default=0.0)]
    except OSError:
        return []
