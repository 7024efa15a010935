"""What the user looks at, kept in the URL: a link reproduces the screen.

The only file that touches `st.query_params`. The URL is the one source: the page is drawn from it, and callbacks
write to it before the page runs again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import streamlit as st

from routing import RoutingTrace, Selection, SelectionError

__all__ = [
    "Looked",
    "expert_in_url",
    "go_to",
    "going_to",
    "history",
    "link_query",
    "look",
    "option",
    "redo",
    "remembered",
    "select",
    "set_options",
    "undo",
    "went",
]

T = TypeVar("T")

# Names that belong to the Selection, whatever the trace; everything else in the URL is an option of a view.
SELECTION_NAMES = ("tasks", "layers", "experts", "prompts", "focus")
_WRITES = "_writes"
_GOING = "_going"
_HISTORY = "_history"
_MOST_STEPS = 100
# How long after a write the browser may still come with the URL of before; going back there is told by `went`.
_STALE_SECONDS = 3.0


@dataclass(frozen=True)
class Looked:
    """What the URL asks for, as far as the trace holds it.

    Attributes:
        selection: what the trace holds of it.
        problem: a sentence on what it does not hold, None where all is well.
    """

    selection: Selection
    problem: str | None = None


def option(name: str, default: str | None = None) -> str | None:
    """The value of one name in the URL.

    Returns:
        the text as it stands there, `default` where the URL does not name it.
    """
    return _query().get(name, default)


def look(trace: RoutingTrace) -> Looked:
    """The selection that the URL asks for.

    A link to what another run holds must not be a dead end: what this trace lacks is left out, and said.
    """
    asked = {name: value for name, value in _query().items() if name in SELECTION_NAMES}
    try:
        return Looked(Selection.from_query(asked, trace))
    except SelectionError as error:
        return Looked(Selection.from_query(asked, trace, missing="drop"), str(error))


def select(selection: Selection, **options: str | None) -> None:
    """Make this what the user looks at; for callbacks, before the page runs again.

    Args:
        selection: the new selection.
        options: names of the URL that change with it, None taking one out.
    """
    asked = selection.to_query()
    _write({name: asked.get(name) for name in SELECTION_NAMES} | options)


def set_options(**options: str | None) -> None:
    """Write options of a view into the URL, None taking one out; for callbacks."""
    _write(options)


def history() -> tuple[int, int]:
    """How many changes of the selection can be undone, and how many done again."""
    past, future = st.session_state.get(_HISTORY, ((), ()))
    return len(past), len(future)


def undo() -> None:
    """Go back to the selection of before the last change; for callbacks."""
    past, future = st.session_state.get(_HISTORY, ((), ()))
    if past:
        _return_to(past[-1], past=past[:-1], future=(*future, _selected(_query())))


def redo() -> None:
    """Take back the last `undo`; for callbacks."""
    past, future = st.session_state.get(_HISTORY, ((), ()))
    if future:
        _return_to(future[-1], past=(*past, _selected(_query())), future=future[:-1])


def remembered(name: str, key: Hashable, find: Callable[[], T]) -> T:
    """What was found for this key the last time, in this session alone; found now where that was another key.

    Args:
        name: what it is, one for each use.
        key: names the question.
        find: answers it.
    """
    slot = f"_remembered_{name}"
    kept = st.session_state.get(slot)
    if kept is None or kept[0] != key:
        kept = st.session_state[slot] = (key, find())
    found: T = kept[1]
    return found


def _return_to(selected: dict[str, str], *, past: tuple, future: tuple) -> None:
    _write({name: selected.get(name) for name in SELECTION_NAMES})
    st.session_state[_HISTORY] = (past, future)


def _selected(query: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in query.items() if name in SELECTION_NAMES}


def _remember(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Note a change of the selection; going along the tokens of one prompt is reading, and no step of its own."""
    one, other = _selected(before), _selected(after)
    places = (one.pop("focus", "").partition("@")[0], other.pop("focus", "").partition("@")[0])
    if one == other and (places[0] == places[1] or not places[0]):
        return
    past, _ = st.session_state.get(_HISTORY, ((), ()))
    st.session_state[_HISTORY] = ((*past, _selected(before))[-_MOST_STEPS:], ())


def go_to(view: str, selection: Selection, **options: str | None) -> None:
    """Open another view before the page is drawn again; for callbacks, which cannot do so themselves.

    Args:
        view: its path, as `shell.VIEWS` names it.
        selection: what is looked at there.
        options: names of the URL to set, or with None to take out.
    """
    st.session_state[_GOING] = (view, link_query(selection, **options))


def going_to() -> tuple[str, dict[str, str]] | None:
    """The view, and its query, that a callback asked to open; None where none did. Answers once."""
    going: tuple[str, dict[str, str]] | None = st.session_state.pop(_GOING, None)
    return going


def link_query(selection: Selection | None = None, **options: str | None) -> dict[str, str]:
    """The query of a link to another view of this run.

    Args:
        selection: what the link selects; what is selected now, where it is None.
        options: names of the URL to set, or with None to take out.

    Returns:
        name → value, for `st.page_link`.
    """
    query = _query()
    if selection is not None:
        query = {name: value for name, value in query.items() if name not in SELECTION_NAMES}
        query |= selection.to_query()
    query |= {name: value for name, value in options.items() if value is not None}
    return {name: value for name, value in query.items() if options.get(name, value) is not None}


def expert_in_url(layer: str, expert: int) -> str:
    """An expert as a name of the URL writes it: L07.E12."""
    return Selection(experts=((layer, expert),)).to_query()["experts"]


def went() -> None:
    """The reader went back or forward in the browser: what its URL says now is meant; for callbacks."""
    st.session_state.pop(_WRITES, None)


def _query() -> dict[str, str]:
    # A run that the browser asked for before it showed our last write comes with the URL of before that write.
    seen = dict(st.query_params)
    superseded, latest = st.session_state.get(_WRITES, ({}, {}))
    since = superseded.get(frozenset(seen.items()))
    late = since is not None and time.monotonic() - since < _STALE_SECONDS
    # No link of the app drops the whole query; a run without any, after a write that left some, has lost it.
    return dict(latest) if late or not seen else seen


def _write(changes: Mapping[str, str | None]) -> None:
    now = time.monotonic()
    before = _query()
    after = {name: value for name, value in (before | dict(changes)).items() if value}
    if after != before:
        _remember(before, after)
        superseded, _ = st.session_state.get(_WRITES, ({}, {}))
        recent = {query: since for query, since in superseded.items() if now - since < _STALE_SECONDS}
        recent[frozenset(before.items())] = now
        recent.pop(frozenset(after.items()), None)
        st.session_state[_WRITES] = (recent, after)
    if after != dict(st.query_params):
        st.query_params.from_dict(after)
