"""The one error of this folder: a file of the authors' code that cannot be read, recognized or mapped."""

from __future__ import annotations

from collections.abc import Sequence


class AuthorsFileError(ValueError):
    """A file is not what the authors' code writes, or cannot be turned into what was asked for."""


def listed(names: Sequence[str], *, at_most: int = 3) -> str:
    """The first few names and how many more there are: "a, b, c and 4 more"."""
    shown = ", ".join(names[:at_most])
    return shown if len(names) <= at_most else f"{shown} and {len(names) - at_most} more"
