"""Which groups of a map its legend leaves out, kept in the URL, for each coloring by itself.

The URL names the coloring and the groups; under another coloring the names would mean something else.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, unquote

from app import state

__all__ = ["hidden_groups", "hide"]

_NAME = "hidden"


def hidden_groups(coloring: str) -> tuple[str, ...]:
    """The groups that the URL leaves out under a coloring, in its order.

    Args:
        coloring: what tells the groups apart, such as the title of the legend.
    """
    of, _, names = (state.option(_NAME) or "").partition("~")
    return tuple(unquote(each) for each in names.split(",") if each) if unquote(of) == coloring else ()


def hide(coloring: str, groups: Iterable[str]) -> None:
    """Leave these groups out, and no others; for callbacks."""
    names = ",".join(quote(each, safe=" ") for each in groups)
    state.set_options(**{_NAME: f"{quote(coloring, safe=' ')}~{names}" if names else None})
