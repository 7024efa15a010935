"""Make one recording in a process of its own: `python -m app.recordings.worker FOLDER LOCK`.

FOLDER holds what is asked; LOCK is the number of an open file whose lock says that this process works on it. It says
how far it is in `FOLDER/progress.json`, and waits for its turn: two recordings at once would each take twice as long.
Told to end, it keeps what it has recorded.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.recordings.kept import Request, Stage, is_locked, is_stopped, lock_of, read_request, write_json
from app.recordings.live import LiveCounts
from app.recordings.process import peak_bytes
from routing import RecordingError, RoutingError, open_trace, read_tasks

if TYPE_CHECKING:
    from hooks.evaluation import Progress

__all__ = ["Ledger", "main", "put_aside", "record"]

_SECONDS_BETWEEN_WORDS = 0.3


class Ledger:
    """Writes how far a recording is, for whoever asks."""

    def __init__(self, folder: Path, *, counted: LiveCounts | None = None) -> None:
        self._path = folder / "progress.json"
        self._counted = counted
        self._began = time.time()
        self._told: dict[str, Any] = {"began": self._began}
        self._last = 0.0

    def plan(self, n_prompts: int) -> None:
        """Note how many prompts there are."""
        self._told["n_prompts_total"] = n_prompts

    def stage(self, name: Stage, message: str = "") -> None:
        """Write what begins, or how it ended."""
        self._write(stage=name, message=message)

    def measured(self, overhead: dict[str, Any]) -> None:
        """The trace says what recording costs."""

    def progress(self, done: Progress) -> None:
        """Write how many prompts are done, if that was not written a moment ago."""
        self._told |= {"n_prompts": done.n_prompts, "n_tokens": done.n_tokens, "recording_seconds": done.seconds}
        if time.monotonic() - self._last > _SECONDS_BETWEEN_WORDS:
            self._write()
        if self._counted is not None:
            self._counted.refresh()

    def _write(self, **told: Any) -> None:
        self._told |= told | {"seconds": time.time() - self._began, "peak_bytes": peak_bytes()}
        write_json(self._path, self._told)
        self._last = time.monotonic()


def main(folder: Path, lock: int) -> None:
    """Make the recording that the folder asks for."""
    signal.signal(signal.SIGTERM, _stop)
    # Whoever waits for a click comes first.
    os.nice(5)
    # What the model's libraries start must not hold the lock after us.
    os.set_inheritable(lock, False)  # noqa: FBT003 (the library's signature)
    request = read_request(folder)
    if request is None:
        msg = f"{folder} holds no request.json."
        raise SystemExit(msg)
    _work(folder, request, Ledger(folder, counted=LiveCounts(Path(request.out), folder)))
    # To leave takes the libraries a while, and there is nothing more to say.
    os.close(lock)


def _work(folder: Path, request: Request, ledger: Ledger) -> None:
    try:
        if is_stopped(folder):
            raise KeyboardInterrupt
        with _turn(folder.parent / "turn", ledger):
            record(request, ledger, folder=folder)
        ledger.stage("done")
    except KeyboardInterrupt:
        ledger.stage("stopped")
    except RoutingError as error:
        traceback.print_exc()
        ledger.stage("failed", "\n".join([str(error), *getattr(error, "__notes__", ())]))
    except Exception as error:  # noqa: BLE001 - whoever waits is told, and the log has the rest
        traceback.print_exc()
        ledger.stage("failed", f"The recorder met an error of its own: {type(error).__name__}: {error}")


@contextmanager
def _turn(path: Path, ledger: Ledger) -> Iterator[None]:
    """Hold the turn, once whoever has it is done."""
    with lock_of(path) as lock:
        if lock is not None:
            yield
            return
    ledger.stage("waiting")
    with lock_of(path, is_patient=True):
        yield


def record(request: Request, ledger: Ledger, *, folder: Path) -> None:
    """Record, in this process; a trace that is to be replaced goes only once there is another.

    Args:
        request: what is asked.
        ledger: is told how it goes.
        folder: of the recording, for what is to be replaced meanwhile.

    Raises:
        RoutingError: as `recorded` and `put_aside` say.
    """
    ledger.stage("loading")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if Path(request.model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    tasks = read_tasks(list(request.tasks), limit=request.limit, seed=request.seed)
    if request.only:
        tasks = tasks.only(request.only)
    ledger.plan(len(tasks))
    from app.recordings.run import recorded

    out, aside = Path(request.out), folder / "replaced"
    if not _is_trace(out) and aside.exists():
        # An earlier attempt was killed before it had anything to put in its place.
        aside.rename(out)
    if request.replaces and _is_trace(out):
        put_aside(out, aside)
    try:
        recorded(request, tasks, watch=ledger)
    finally:
        if aside.exists():
            if _is_trace(out):
                shutil.rmtree(aside)
            else:
                aside.rename(out)


def put_aside(out: Path, aside: Path) -> None:
    """Move a trace that did not come to its end out of the way.

    Raises:
        RecordingError: it came to its end, or another process is writing it.
    """
    if open_trace(out).provenance.complete:
        msg = (
            f"{out} holds a recording that came to its end, and such a one is not replaced. "
            "Remove it, or record under another name."
        )
        raise RecordingError(msg)
    if is_locked(out / "commits.jsonl"):
        msg = f"{out} is being written by another process. Wait until that has ended, or record under another name."
        raise RecordingError(msg)
    out.rename(aside)


def _is_trace(folder: Path) -> bool:
    return (folder / "header.json").is_file()


def _stop(*_: object) -> None:
    # Once is enough: what follows is the writing of what there is.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
