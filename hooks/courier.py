"""The writing thread: takes what was recorded, in order, and remembers the first thing that went wrong."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from routing import RecordingError, RoutingError

__all__ = ["Courier"]

Errand = Callable[[], None]

SECONDS_TO_REST = 0.5


class Courier:
    """Runs errands one after the other on a thread of its own.

    After a failure further errands are only told to `give_up`, so that nobody waits for a buffer for ever. The queue
    needs no bound: what travels in it holds one of a bounded number of buffers.

    Attributes:
        at_rest: run each half second in which nothing was handed over, until it says that nothing is left to do.
    """

    def __init__(self) -> None:
        self._errands: queue.SimpleQueue[tuple[Errand, Errand] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self.at_rest: Callable[[], bool] = lambda: True
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
        while (handed := self._next()) is not None:
            self._tried(*handed)

    def _next(self) -> tuple[Errand, Errand] | None:
        """What is handed over next; what was put off is seen to meanwhile."""
        at_rest = False
        while True:
            try:
                return self._errands.get(timeout=None if at_rest else SECONDS_TO_REST)
            except queue.Empty:
                at_rest = self._tried(self.at_rest)

    def _tried(self, errand: Callable[[], object], give_up: Errand = lambda: None) -> bool:
        """Whether an errand was done to its end, or cannot be."""
        if self._failure is not None:
            give_up()
            return True
        try:
            return errand() is not False
        except BaseException as failure:  # noqa: BLE001 - it is raised again on the recording thread
            self._failure = failure
            give_up()
            return True
