"""What a tap hands over: one forward pass of one router."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Emit", "Reading"]


@dataclass(frozen=True)
class Reading:
    """One forward pass of one router, on the module's device, detached, ranks in the router's own order.

    Attributes:
        ids: (row, rank) · expert number · as applied; a zero-computation expert is numbered after the real ones.
        weights: (row, rank) · factor on the expert's output, as given to the experts; 0 where nothing was applied.
        logits: (row, expert) · router output before activation; None where the router does not show it.
        dropped: (row, rank) · True where capacity took the expert away; None where nothing can be dropped.
        rows: which rows of the flattened (batch, position) input these are; None when all of them, in order.
        ratio: (row) · length of what a generated adapter added over that of the expert branch; None without adapters.
        vector: (row, feature) · what the router compared with its experts' vectors; None where it has none.
    """

    ids: Tensor
    weights: Tensor
    logits: Tensor | None = None
    dropped: Tensor | None = None
    rows: Tensor | None = None
    ratio: Tensor | None = None
    vector: Tensor | None = None


Emit = Callable[[Reading], None]
