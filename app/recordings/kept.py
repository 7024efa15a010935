"""Recordings asked for in the app: what was asked, how far it is, and who works on it, all on the disk.

A recording is a process of its own. What it was asked and how far it is lie in a folder beside the runs, where every
session finds them, and a server that starts anew too. Whether somebody works on it is said by a lock that the server
takes and hands to the process, and that the system lets go when the process ends, however it ends.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from app.jobs import ended, started

__all__ = [
    "HOME",
    "Recordings",
    "Request",
    "Stage",
    "Standing",
    "is_locked",
    "is_stopped",
    "lock_of",
    "read_request",
    "standing_of",
    "write_json",
]

# Below the first folder of runs; those who look for runs skip it for its dot.
HOME = ".recordings"
_WORKER = "app.recordings.worker"
_LOG_CHARACTERS = 2000
_STOP = "stop"
_LOOKS, _SECONDS_BETWEEN_LOOKS = 10, 0.02

Stage = Literal["waiting", "loading", "measuring", "recording", "stopping", "done", "stopped", "failed", "lost"]
_ENDS = ("done", "stopped", "failed")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be recorded, and how: what `routescope record` is told, and the app.

    Attributes:
        model: a model folder, or a name on the hub.
        tasks: sources of tasks, as `read_tasks` takes them.
        only: names of the tasks of these sources that are recorded; all, where there are none.
        out: folder of the trace.
        level: what is kept of each decision.
        batch_size: prompts a batch.
        limit: most prompts a task.
        seed: of whatever is drawn.
        n_runners_up: unselected experts kept for each decision.
        max_new_tokens: tokens to generate, instead of what the tasks say.
        option_norm: what an option's log-likelihood is divided by.
        too_long: "error", or "truncate" to cut off the beginning of prompts that are too long.
        device: "auto" or a device's name.
        dtype: "auto" or a precision's name.
        device_map: how the model is spread over devices.
        revision: of the model on the hub.
        trust_remote_code: runs the model code of the repository itself.
        with_overhead: measures first what recording costs.
        replaces: puts the trace in the place of one there that did not come to its end.
    """

    model: str
    tasks: tuple[str, ...]
    out: str
    only: tuple[str, ...] = ()
    level: str = "full"
    batch_size: int = 16
    limit: int | None = None
    seed: int = 0
    n_runners_up: int = 4
    max_new_tokens: int | None = None
    option_norm: str = "bytes"
    too_long: str = "error"
    device: str = "auto"
    dtype: str = "auto"
    device_map: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    with_overhead: bool = False
    replaces: bool = False


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a recording stands.

    Attributes:
        name: of the run that it makes.
        request: what was asked.
        stage: what it does, or how it ended; "lost" where it ended without a word.
        n_prompts: prompts done.
        n_prompts_total: prompts in all; 0 until the tasks are read.
        n_tokens: tokens fed to the model.
        seconds: since it began, the loading of the model included.
        recording_seconds: since the first prompt.
        peak_bytes: the most memory that its process has held; 0 until that is known.
        began: when it was asked for, in seconds since 1970; 0 where that is not known.
        message: why it failed, in the recorder's words.
        log: the end of what it wrote.
    """

    name: str
    request: Request
    stage: Stage
    n_prompts: int = 0
    n_prompts_total: int = 0
    n_tokens: int = 0
    seconds: float = 0.0
    recording_seconds: float = 0.0
    peak_bytes: int = 0
    began: float = 0.0
    message: str = ""
    log: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether somebody works on it."""
        return self.stage not in (*_ENDS, "lost")

    @property
    def tokens_a_second(self) -> float:
        """Tokens fed a second; 0 before the first batch."""
        return self.n_tokens / self.recording_seconds if self.recording_seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long it will take if prompts go on as they went, None before the first batch."""
        if not self.n_prompts:
            return None
        return self.recording_seconds * (self.n_prompts_total - self.n_prompts) / self.n_prompts


class Recordings:
    """The recordings of one folder of runs, as one server sees and starts them."""

    def __init__(self, root: Path) -> None:
        self._home = root / HOME
        self._lock = threading.Lock()
        self._mine: list[tuple[str, subprocess.Popen[bytes]]] = []
        # A recording takes the machine: with the app it ends, keeping what it has.
        atexit.register(self._end_all)

    def start(self, name: str, request: Request) -> Standing:
        """Start a recording, unless somebody works on one of this name.

        Args:
            name: of the run that it makes.
            request: what is asked.
        """
        folder = self.folder(name)
        with self._lock:
            folder.mkdir(parents=True, exist_ok=True)
            with lock_of(folder / "lock") as lock:
                if lock is not None:
                    # Of one before under this name: its number may be another process's by now.
                    for left in (_STOP, "pid", "live.json"):
                        (folder / left).unlink(missing_ok=True)
                    write_json(folder / "request.json", asdict(request))
                    write_json(folder / "progress.json", {"stage": "loading", "began": time.time()})
                    process = started(_WORKER, (str(folder), str(lock)), log=folder / "log.txt", keeps=(lock,))
                    (folder / "pid").write_text(str(process.pid))
                    self._mine.append((name, process))
        now = self.standing(name)
        assert now is not None, "a request was just written"
        return now

    def standing(self, name: str) -> Standing | None:
        """How the recording of this name stands, None where none was asked for."""
        with self._lock:
            # Asked how it is, a process of ours that has ended is let go by the system.
            self._mine = [(each, process) for each, process in self._mine if process.poll() is None]
        return standing_of(self.folder(name))

    def all(self) -> tuple[Standing, ...]:
        """Every recording that was asked for, by name."""
        folders = sorted(self._home.iterdir()) if self._home.is_dir() else []
        names = [unquote(each.name) for each in folders if (each / "request.json").is_file()]
        found = (self.standing(name) for name in names)
        return tuple(each for each in found if each is not None)

    def stop(self, name: str) -> None:
        """Ask the recording of this name to end; what it has recorded stays."""
        folder = self.folder(name)
        there = self.standing(name)
        if there is None or not there.is_alive:
            return
        (folder / _STOP).touch()
        # The lock is held, so the number is still that of the process which holds it. One that has none yet looks
        # itself whether it was stopped.
        with suppress(ProcessLookupError, FileNotFoundError, ValueError):
            os.kill(int((folder / "pid").read_text()), signal.SIGTERM)

    def folder(self, name: str) -> Path:
        """Where what was asked and how far it is lie for the recording of this name."""
        return self._home / quote(name, safe="")

    def _end_all(self) -> None:
        for name, process in self._mine:
            if process.poll() is None:
                self.stop(name)
        for _, process in self._mine:
            ended(process)


def standing_of(folder: Path) -> Standing | None:
    """How a recording stands, from its folder; None where nothing was asked."""
    request = read_request(folder)
    if request is None:
        return None
    # In this order: a process says how it ended before it lets go of the lock.
    is_alive = is_locked(folder / "lock")
    told = _read_json(folder / "progress.json") or {}
    stage = told.pop("stage", "waiting")
    if stage not in _ENDS:
        if is_alive:
            # Between two words of it the time goes on.
            told["seconds"] = time.time() - told.get("began", time.time())
            stage = "stopping" if is_stopped(folder) else stage
        else:
            stage = "stopped" if is_stopped(folder) else "lost"
    known = {key: value for key, value in told.items() if key in Standing.__dataclass_fields__}
    log = _tail(folder / "log.txt") if stage in ("failed", "lost") else ""
    return Standing(name=unquote(folder.name), request=request, stage=stage, log=log, **known)


def is_stopped(folder: Path) -> bool:
    """Whether the recording of a folder was asked to end."""
    return (folder / _STOP).exists()


def read_request(folder: Path) -> Request | None:
    """What was asked in a recording's folder, None where nothing was."""
    told = _read_json(folder / "request.json")
    if told is None:
        return None
    told |= {name: tuple(told.get(name, ())) for name in ("tasks", "only")}
    return Request(**{key: value for key, value in told.items() if key in Request.__dataclass_fields__})


@contextmanager
def lock_of(path: Path, *, is_patient: bool = False) -> Iterator[int | None]:
    """Hold a lock that the system lets go with the last process that has it open.

    Args:
        path: of the file that stands for it.
        is_patient: whether to wait until it is free, however long that takes.

    Yields:
        number of the open file, None where another process holds the lock.
    """
    with path.open("a+b") as file:
        yield file.fileno() if _taken(file.fileno(), is_patient=is_patient) else None


def _taken(file: int, *, is_patient: bool) -> bool:
    for _ in range(_LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if is_patient else fcntl.LOCK_NB))
        except BlockingIOError:
            # Whoever only looks holds it for a moment.
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        else:
            return True
    return False


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is whole at every moment."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content), "utf-8")
    draft.replace(path)


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock for which a file stands."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        try:
            # Shared, so that two who look do not take each other for the one who works.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def _tail(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")[-_LOG_CHARACTERS:].strip()
    except FileNotFoundError:
        return ""
