"""Routers are proven while they first run: most in the first forward, an image tower when the first image comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hooks.proof import Witness
from hooks.sites import Site
from hooks.taps import Reading
from routing import RecordingError

__all__ = ["Proving"]


class Proving:
    """The proof of a model's routers, spread over the forwards in which they first run.

    Args:
        sites: the routers.
    """

    def __init__(self, sites: list[Site]) -> None:
        self._witness = Witness(sites)
        self._unproven = set(range(len(sites)))

    def begin(self) -> None:
        """Watch; the taps must be attached."""
        self._witness.__enter__()

    def heard(self, number: int, reading: Reading) -> None:
        """Take the first reading of a router."""
        self._witness.receive(number, reading)

    def settled(self) -> list[Site]:
        """The routers as the forwards so far have proven them; from now on only the others are watched.

        Raises:
            RecordingError: a router's recording does not explain what its experts did.
        """
        sites = self._witness.proven()
        self.end()
        self._witness.sites = sites
        self._unproven = set(self._witness.pending)
        if self._unproven:
            self._witness.__enter__()
        return list(sites)

    @property
    def complete(self) -> bool:
        """Whether every router has been proven."""
        return not self._unproven

    def prove_late(
        self, readings: Sequence[Reading | None], *, sites: list[Site], holds: Callable[[int], bool]
    ) -> None:
        """Prove routers that ran for the first time in a later forward, and complete them in `sites`.

        Raises:
            RecordingError: the trace that was begun has no place for one of them.
        """
        late = [number for number in sorted(self._unproven) if readings[number] is not None]
        if not late:
            return
        proven = self._witness.proven()
        for number in late:
            old, new = sites[number].facts, proven[number].facts
            if not holds(number) or (old.n_experts, old.top_k) != (new.n_experts, new.top_k):
                msg = (
                    f"The router of {new.label} ({new.module}) ran for the first time after the trace was begun, and "
                    f"the trace has no place for its {new.n_experts} experts. Record a batch first in which it runs."
                )
                raise RecordingError(msg)
            sites[number] = proven[number]
        self._witness.sites = list(sites)
        self._unproven -= set(late)
        # A replay costs about as much as the experts themselves, so what is proven is not watched any more.
        self.end()
        if self._unproven:
            self._witness.__enter__()

    def end(self) -> None:
        """Stop watching."""
        self._witness.__exit__(None, None, None)
