"""Two groups of prompts, A and B, kept in the URL, so that a link compares what its sender compared."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from app import state
from routing import RoutingTrace, Selection

__all__ = ["NAMES", "forget", "lost", "made", "make"]

NAMES = ("A", "B")
_IN_URL = {"A": "group_a", "B": "group_b"}


def made(trace: RoutingTrace) -> dict[str, Selection]:
    """The groups that the URL names, as far as the trace holds them.

    Returns:
        "A" and "B", those that there are → tasks and prompts.
    """
    found = {}
    for name in NAMES:
        asked = dict(parse_qsl(state.option(_IN_URL[name]) or ""))
        group = Selection.from_query(
            {part: text for part, text in asked.items() if part in ("tasks", "prompts")}, trace, missing="drop"
        )
        if group.tasks or group.prompts:
            found[name] = group
    return found


def lost(trace: RoutingTrace) -> list[str]:
    """Names of the groups that the URL asks for and of which the trace holds nothing."""
    there = made(trace)
    return [name for name in NAMES if state.option(_IN_URL[name]) and name not in there]


def make(name: str, selection: Selection) -> None:
    """Make what is selected a group; for callbacks."""
    state.set_options(**{_IN_URL[name]: urlencode(selection.to_query())})


def forget(name: str) -> None:
    """Take a group out of the URL; for callbacks."""
    state.set_options(**{_IN_URL[name]: None})
