"""Long computations in processes of their own, so that no session waits for another's.

A job answers one question, named by its key; sessions that ask the same share it. What it finds it leaves in a
folder, and says there why it failed.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Job", "Jobs", "ended", "started"]

_REPOSITORY = Path(__file__).resolve().parents[1]
# Each holds some hundred megabytes of libraries, and the machine has other users.
_MOST_AT_ONCE = 1
_LOG_TAIL = 600
# What was found by more questions than these is let go, those first that nobody has come back to for longest.
_MOST_KEPT = 256
_SECONDS_TO_END = 5


@dataclass(frozen=True)
class Job:
    """How a computation stands.

    Attributes:
        state: "waiting" for another one to end, "running", "done" or "failed".
        seconds: since it started to run.
        folder: where it leaves its results; None while it waits.
        message: the end of what it wrote before it failed, else empty.
        key: names the question.
    """

    state: Literal["waiting", "running", "done", "failed"]
    seconds: float = 0.0
    folder: Path | None = None
    message: str = ""
    key: str = ""


class Jobs:
    """The computations of one server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: dict[str, tuple[subprocess.Popen[bytes], Path, float]] = {}
        self._waiting: set[str] = set()
        self._home = tempfile.TemporaryDirectory(prefix="routescope-jobs-")
        atexit.register(self.stop)

    def ensure(self, key: str, *, module: str, arguments: Sequence[str]) -> Job:
        """Start the job of this key unless it was started before, and say how it stands.

        Args:
            key: names the question; equal keys are one job.
            module: run as `python -m module FOLDER arguments…`.
            arguments: of the module, after the folder in which it leaves its results.
        """
        with self._lock:
            if key not in self._started:
                if sum(process.poll() is None for process, _, _ in self._started.values()) >= _MOST_AT_ONCE:
                    self._waiting.add(key)
                    return Job("waiting", key=key)
                self._started[key] = self._start(module, arguments)
                self._waiting.discard(key)
                self._let_go()
            # The last that was asked for stands last.
            self._started[key] = self._started.pop(key)
            return _now(key, *self._started[key])

    def standing(self, key: str) -> Job | None:
        """How the job of this key stands, None where it was not started."""
        with self._lock:
            return _now(key, *self._started[key]) if key in self._started else None

    def is_asked(self, key: str) -> bool:
        """Whether somebody asked for the job of this key, though it may have to wait."""
        with self._lock:
            return key in self._started or key in self._waiting

    @property
    def is_busy(self) -> bool:
        """Whether another job would have to wait."""
        with self._lock:
            return sum(process.poll() is None for process, _, _ in self._started.values()) >= _MOST_AT_ONCE

    def forget(self, key: str) -> None:
        """Let the job of this key be started anew."""
        with self._lock:
            process, folder, _ = self._started.pop(key, (None, None, None))
        if process is not None and folder is not None:
            ended(process)
            shutil.rmtree(folder, ignore_errors=True)

    def stop(self) -> None:
        """End what still runs, and forget what was found."""
        with self._lock:
            for process, _, _ in self._started.values():
                ended(process)
            self._started.clear()

    def _let_go(self) -> None:
        ended_ones = [key for key, (process, _, _) in self._started.items() if process.poll() is not None]
        for key in ended_ones[: max(0, len(self._started) - _MOST_KEPT)]:
            _, folder, _ = self._started.pop(key)
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self, module: str, arguments: Sequence[str]) -> tuple[subprocess.Popen[bytes], Path, float]:
        folder = Path(tempfile.mkdtemp(dir=self._home.name))
        # Threads of numerical libraries would take the cores from the sessions that draw meanwhile.
        quiet = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
        process = started(module, (str(folder), *arguments), log=folder / "log.txt", environment=quiet)
        return process, folder, time.monotonic()


def _now(key: str, process: subprocess.Popen[bytes], folder: Path, since: float) -> Job:
    seconds = time.monotonic() - since
    code = process.poll()
    if code is None:
        return Job("running", seconds, folder, key=key)
    if code == 0:
        return Job("done", seconds, folder, key=key)
    wrote = (folder / "log.txt").read_text("utf-8", "replace")[-_LOG_TAIL:].strip()
    return Job("failed", seconds, folder, wrote, key=key)


def started(
    module: str,
    arguments: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    keeps: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """A process that runs a module of this repository, whatever folder the app was started from.

    Args:
        module: run as `python -m module arguments…`.
        arguments: of the module.
        log: file for all that it writes.
        environment: names to set beside those of this process.
        keeps: open files of ours that stay open in it.
    """
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=_REPOSITORY,
            env=os.environ | dict(environment or {}),
            pass_fds=tuple(keeps),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal is meant for the app, which ends what it started.
            start_new_session=True,
        )


def ended(process: subprocess.Popen[bytes]) -> int:
    """Have a process end, with a few seconds to put its things in order.

    Returns:
        its exit status.
    """
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
