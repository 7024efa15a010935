"""The process that reads texts: started when it is first needed, shared by all sessions, kept warm while it is used."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import Any, Literal

from app.jobs import ended
from app.runs import REPOSITORY
from app.tries.asked import Found, TryRequest, found_in, write_request

__all__ = ["Asked", "WarmModels"]

Stage = Literal["waiting", "loading", "reading", "done", "failed"]

# A model takes memory: nobody who types leaves it alone for so long.
_IDLE_SECONDS = 600.0
_MOST_THREADS = 8
_LOST = "The process that reads texts ended before it had an answer; there may be too little memory. Try again."


class Asked:
    """One request, and how it stands. When nobody holds it any more, its folder and the text in it are gone.

    Attributes:
        request: what is asked.
        folder: where the answer is left.
        stage: what is being done, or how it ended.
        message: why it failed, in a sentence.
    """

    def __init__(self, request: TryRequest, *, home: Path) -> None:
        self.request = request
        self.folder = Path(tempfile.mkdtemp(dir=home))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.stage: Stage = "waiting"
        self.message = ""
        self.n_sent = 0
        self._since = time.monotonic()
        self._ended = threading.Event()
        (self.folder / "wanted").touch()

    @property
    def seconds(self) -> float:
        """How long ago it was asked."""
        return time.monotonic() - self._since

    def wait(self, seconds: float) -> bool:
        """Wait for the answer, no longer than so many seconds.

        Returns:
            whether it has come to its end.
        """
        return self._ended.wait(seconds)

    def told(self, stage: Stage, message: str = "") -> None:
        """Note how it stands."""
        self.stage, self.message = stage, message
        if stage in ("done", "failed"):
            self._ended.set()

    def found(self) -> Found:
        """The answer, once it is done."""
        return found_in(self.folder)


class WarmModels:
    """Answers requests one after another, in a process of its own that keeps its models loaded.

    Args:
        idle_seconds: after which the process ends, if nothing is asked.
    """

    def __init__(self, *, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        # Held by the sessions that wait for them, and by nobody else.
        self._asked: weakref.WeakValueDictionary[str, Asked] = weakref.WeakValueDictionary()
        self._prepared: dict[str, Asked] = {}
        self._home: tempfile.TemporaryDirectory[str] | None = None
        atexit.register(self.stop)

    def prepare(self, model: str) -> None:
        """Have a model loaded before anything is asked of it."""
        with self._lock:
            if not self._is_running:
                self._prepared.clear()
            before = self._prepared.get(model)
            if before is None or before.stage == "failed":
                self._prepared[model] = self._begun(TryRequest(model=model))

    def ask(self, request: TryRequest) -> Asked:
        """Ask; the answer comes while the caller waits for it."""
        with self._lock:
            return self._begun(request)

    @property
    def is_running(self) -> bool:
        """Whether a process holds models now."""
        with self._lock:
            return self._is_running

    @property
    def held_bytes(self) -> int:
        """Memory that the process holds now; 0 where there is none, or the system does not say."""
        with self._lock:
            process = self._process
        try:
            pages = int(Path(f"/proc/{process.pid if process is not None else 0}/statm").read_text("ascii").split()[1])
        except (OSError, ValueError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        """End the process, and remove what it wrote."""
        with self._lock:
            process, self._process = self._process, None
            home, self._home = self._home, None
            self._prepared.clear()
        if process is not None:
            _shut(process)
        if home is not None:
            home.cleanup()

    @property
    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _begun(self, request: TryRequest) -> Asked:
        if self._home is None:
            self._home = tempfile.TemporaryDirectory(prefix="routescope-tries-", ignore_cleanup_errors=True)
        asked = Asked(request, home=Path(self._home.name))
        write_request(asked.folder, request)
        self._asked[asked.folder.name] = asked
        self._send(asked)
        return asked

    def _send(self, asked: Asked) -> None:
        asked.n_sent += 1
        for _ in range(2):
            if not self._is_running:
                self._start()
            assert self._process is not None
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(f"{asked.folder}\n".encode())
                self._process.stdin.flush()
            except OSError:
                # It ended in this very moment, for nobody had asked for long.
                _shut(self._process)
            else:
                return
        asked.told("failed", _LOST)

    def _start(self) -> None:
        assert self._home is not None
        if self._process is not None:
            _shut(self._process)
        n_threads = max(1, min(_MOST_THREADS, (os.cpu_count() or 2) // 2))
        quiet = {
            # A model folder is a folder: nothing is looked for elsewhere, and no text leaves the machine.
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(n_threads)),
        }
        with (Path(self._home.name) / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.tries.worker", self._home.name, str(self._idle_seconds)],
                cwd=REPOSITORY,
                env=os.environ | quiet,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C in the terminal is meant for the app, which ends what it started.
                start_new_session=True,
            )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _pass_on(self, folder: str, **told: Any) -> None:
        # Between two words nothing here may hold the request, which ends with whoever asked.
        if (asked := self._asked.get(folder)) is not None:
            asked.told(**told)

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Note what the process says, until it ends."""
        assert process.stdout is not None
        for line in process.stdout:
            self._pass_on(**json.loads(line))
        process.wait()
        with self._lock:
            if self._process is not process:
                return
            for asked in list(self._asked.values()):
                # What it did not begin with before it ended is asked of the next one.
                if asked.stage == "waiting" and asked.n_sent < 2:
                    self._send(asked)
                elif asked.stage not in ("done", "failed"):
                    asked.told("failed", _LOST)


def _shut(process: subprocess.Popen[bytes]) -> None:
    """End a process and let go of its pipes."""
    ended(process)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                # What was written last found nobody to read it.
                continue
