"""Proof that the adapters of a PHA model are the ones that are stored: replayed on the first text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from hooks.proof import TOLERANCE
from hooks.taps import Handle, Replay
from hooks.taps.task_adapters import TaskAdapterTap
from routing import RecordingError

__all__ = ["AdapterProof"]


class AdapterProof:
    """Watches the first forward of every generated adapter.

    Args:
        taps: the places.
        vectors: gives what the running batch's adapters are made from.
    """

    def __init__(self, taps: Sequence[TaskAdapterTap], *, vectors: Callable[[], Tensor | None]) -> None:
        self._taps, self._vectors = taps, vectors
        self._replays: dict[int, Replay] = {}
        self._handles: list[Handle] = []

    def begin(self) -> None:
        """Watch."""
        for tap in self._taps:
            self._handles += tap.attach_witness(self._vectors, self._replays.setdefault)

    def end(self) -> None:
        """Stop watching."""
        while self._handles:
            self._handles.pop().remove()

    def settled(self) -> str:
        """How the places were proven: "replay", or "none" where dropout makes every forward another.

        Raises:
            RecordingError: the stored adapters do not explain what was added.
        """
        self.end()
        for tap in self._taps:
            replay = self._replays.get(tap.number)
            if replay is None:
                return "none"
            error, tolerance = float(replay.error), TOLERANCE.get(replay.dtype, 3e-2)
            if not error <= tolerance:
                msg = (
                    f"The adapters that {tap.path} was given do not explain what it added: replayed from their stored "
                    f"form, a row is off by {error:.2g} of its length, where {tolerance:g} is allowed. "
                    "Call the model with task_ids, and do not change its weights while it is recorded."
                )
                raise RecordingError(msg)
        return "replay"
