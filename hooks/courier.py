"""The writing thread: takes what was recorded, in order, and remembers the first thing that went wrong."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from routing import RecordingError, RoutingError

__all__ = ["Courier"]

Errand = Callable[[], None]


class Courier:
    """Runs errands one after the other on a thread of its own.

    After a failure further errands are only told to `give_up`, so that nobody waits for a buffer for ever. The queue
    needs no bound: what travels in it holds one of a bounded number of buffers.
    """

    def __init__(self) -> None:
        self._errands: queue.SimpleQueue[tuple[Errand, Errand] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        # A daemon: a hard exit of the program must not hang on the disk; `close` waits for all that was handed over.
        self._thread = threading.Thread(target=self._run, name="routescope-writer", daemon=True)
        self._thread.start()

    def send(self, errand: Errand, *, give_up: Errand = lambda: None) -> None:
        """Have an errand run; if an earlier one failed, have it given up."""
        self._errands.put((errand, give_up))

    def check(self) -> None:
        """Raise what went wrong on the writing thread.

        Raises:
            RecordingError: an errand failed.
        """
        if self._failure is None:
            return
        if isinstance(self._failure, RoutingError):
            raise self._failure
        msg = (
            f"Writing the trace failed: {type(self._failure).__name__}: {self._failure}. "
            "What was committed before can be opened; mend the cause and record the rest again."
        )
        raise RecordingError(msg) from self._failure

    @property
    def failed(self) -> bool:
        """Whether an errand has failed."""
        return self._failure is not None

    def close(self) -> None:
        """Wait until every errand is done; the courier can be closed twice."""
        if self._thread.is_alive():
            self._errands.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (errand := self._errands.get()) is not None:
            run, give_up = errand
            if self._failure is not None:
                give_up()
                continue
            try:
                run()
            except BaseException as failure:  # noqa: BLE001 - it is raised again on the recording thread
                self._failure = failure
                give_up()
