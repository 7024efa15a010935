"""What the user looks at, kept in the URL: a link reproduces the screen.

The only file that touches `st.session_state` and `st.query_params`. The URL is the one source: each widget is
set from it before it is drawn, and writes to it in its callback, before the page runs again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import streamlit as st

from app.sentences import escaped
from routing import RoutingTrace, Selection, SelectionError

__all__ = [
    "Looked",
    "choose",
    "choose_one",
    "choose_several",
    "chosen",
    "component_state",
    "expert_in_url",
    "go_to",
    "going_to",
    "heard",
    "history",
    "link_query",
    "look",
    "option",
    "pick",
    "position",
    "redo",
    "revision",
    "search",
    "select",
    "set_options",
    "toggle",
    "undo",
]

T = TypeVar("T")

# Names that belong to the Selection, whatever the trace; everything else in the URL is an option of a view.
SELECTION_NAMES = ("tasks", "layers", "experts", "prompts", "focus")
_WRITES = "_writes"
_GOING = "_going"
_HISTORY = "_history"
_MOST_STEPS = 100
# How long after a write the browser may still show the URL of before.
_STALE_SECONDS = 0.6


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


def chosen(name: str, choices: Sequence[T], *, default: T | None = None, text: Callable[[T], str] = str) -> T:
    """What `choose` of the same arguments would give, for where the widget stands further down the page."""
    by_text = {text(choice): choice for choice in choices}
    return by_text.get(_query().get(name, ""), choices[0] if default is None else default)


def choose(
    label: str,
    choices: Sequence[T],
    *,
    name: str,
    default: T | None = None,
    text: Callable[[T], str] = str,
    shown: Callable[[T], str] | None = None,
    kind: str = "segmented",
    help: str | None = None,  # noqa: A002 (Streamlit's word)
    label_visibility: str = "visible",
) -> T:
    """One of a few choices, kept in the URL under `name`.

    Args:
        label: what the choice is about.
        choices: what there is to choose from, at least one.
        name: name in the URL, one for each choice of the app.
        default: what holds where the URL says nothing; the first choice where it is None.
        text: a choice as the URL writes it.
        shown: a choice as the page writes it; as the URL does, where it is None.
        kind: "segmented" for up to five choices side by side, "select" for a list, "slider" for many in order.
        help: what to know before choosing.
        label_visibility: "visible", "hidden" or "collapsed".

    Returns:
        the choice; the default where the URL names none that exists.
    """
    fallback = choices[0] if default is None else default
    value = chosen(name, choices, default=fallback, text=text)
    key = f"choice_{name}"

    def changed() -> None:
        picked = st.session_state[key]
        _write({name: None if picked is None or picked == fallback else text(picked)})

    _seed(key, value)
    common: dict[str, Any] = {
        "key": key,
        "on_change": changed,
        "format_func": shown or text,
        "help": help,
        "label_visibility": label_visibility,
    }
    if kind == "segmented":
        # Streamlit reads Markdown in the labels of buttons, though not in those of lists.
        common["format_func"] = lambda choice: escaped((shown or text)(choice))
        st.segmented_control(label, list(choices), required=True, **common)
    elif kind == "slider":
        st.select_slider(label, list(choices), **common)
    else:
        st.selectbox(label, list(choices), **common)
    return value


def pick(label: str, choices: Sequence[str], *, key: str, value: str, on_change: Callable[[str], None]) -> None:
    """A list, one of whose items is on; which one is decided by the caller, from the URL.

    Args:
        label: what the choice is about.
        choices: what there is to choose from.
        key: of this widget.
        value: what is on.
        on_change: called with what the user picks.
    """
    _seed(key, value)
    st.selectbox(label, list(choices), key=key, on_change=lambda: on_change(str(st.session_state[key])))


def choose_several(
    label: str,
    choices: Sequence[str],
    *,
    key: str,
    chosen: Iterable[str],
    on_change: Callable[[tuple[str, ...]], None],
    shown: Callable[[str], str] = str,
    label_visibility: str = "visible",
) -> None:
    """Pills, any number of which may be on; what is on is decided by the caller, from the URL.

    Args:
        label: what the choice is about.
        choices: what there is to choose from.
        key: of this widget.
        chosen: which of them are on.
        on_change: called with those that are on after a click.
        shown: a choice as the page writes it.
        label_visibility: "visible", "hidden" or "collapsed".
    """
    on = [choice for choice in choices if choice in set(chosen)]
    _seed(key, on)
    # A task's name comes from a file: Streamlit would read Markdown in it, and fetch the pictures that it names.
    st.pills(
        escaped(label),
        list(choices),
        selection_mode="multi",
        key=key,
        format_func=lambda choice: escaped(shown(choice)),
        label_visibility=label_visibility,
        on_change=lambda: on_change(tuple(st.session_state[key])),
    )


def choose_one(
    label: str,
    choices: Sequence[T],
    *,
    key: str,
    chosen: T,
    on_change: Callable[[T], None],
    shown: Callable[[T], str] = str,
    label_visibility: str = "visible",
) -> None:
    """One of a long list; which one it is is decided by the caller, from the URL.

    Args:
        label: what the choice is about.
        choices: what there is to choose from.
        key: of this widget.
        chosen: which of them it is.
        on_change: called with the choice after a click.
        shown: a choice as the page writes it.
        label_visibility: "visible", "hidden" or "collapsed".
    """
    _seed(key, chosen)
    st.selectbox(
        label,
        list(choices),
        key=key,
        format_func=shown,
        label_visibility=label_visibility,
        on_change=lambda: on_change(st.session_state[key]),
    )


def search(label: str, *, name: str, placeholder: str = "") -> str:
    """A text to look for, kept in the URL under `name`.

    Returns:
        what was typed, without blanks around it; empty where nothing was.
    """
    value = _query().get(name, "")
    key = f"search_{name}"

    def changed() -> None:
        _write({name: st.session_state[key].strip() or None})

    _seed(key, value)
    st.text_input(label, key=key, on_change=changed, placeholder=placeholder)
    return value


def toggle(label: str, *, name: str, default: bool = False, help: str | None = None) -> bool:  # noqa: A002
    """A switch, kept in the URL under `name` as "1" or "0"."""
    value = _query().get(name, "1" if default else "0") == "1"
    key = f"toggle_{name}"

    def changed() -> None:
        on = bool(st.session_state[key])
        _write({name: None if on == default else str(int(on))})

    _seed(key, value)
    st.toggle(label, key=key, on_change=changed, help=help)
    return value


def component_state(key: str, name: str) -> Any:
    """What a component of the page last told us under one name, None where it said nothing."""
    value = st.session_state.get(key)
    return value.get(name) if value else None


def position(key: str, value: Any) -> int:
    """A number that grows when `value` is not the last run's: how a component tells news from echoes."""
    slot = f"_revision_{key}"
    number, last = st.session_state.get(slot, (0, None))
    if number == 0 or last != value:
        number += 1
        st.session_state[slot] = (number, value)
    return int(number)


def heard(key: str, value: Any) -> None:
    """Note what the user just did in a component, so that `revision` does not echo it; for callbacks."""
    number, sent, _ = st.session_state.get(f"_sent_{key}", (0, None, None))
    st.session_state[f"_sent_{key}"] = (number, sent, value)


def revision(key: str, value: Any) -> tuple[int, Any]:
    """What to send to a component that the user and the page both move, so that neither pulls the other back.

    The component adopts the value only when the number grows, and it grows only when the page wants another value
    than the component shows. Between two numbers nothing that is sent changes, so a click costs no bytes.

    Returns:
        number, value that was wanted when it last grew.
    """
    slot = f"_sent_{key}"
    number, sent, shown = st.session_state.get(slot, (0, None, None))
    if number == 0 or value != shown:
        number, sent, shown = number + 1, value, value
    st.session_state[slot] = (number, sent, shown)
    return int(number), sent


def _query() -> dict[str, str]:
    # A run of the page that the browser asked for before it showed the last write comes with the URL of before that.
    seen = dict(st.query_params)
    superseded, latest = st.session_state.get(_WRITES, ([], {}))
    now = time.monotonic()
    early = any(query == seen and now - since < _STALE_SECONDS for query, since in superseded)
    return dict(latest) if early else seen


def _write(changes: Mapping[str, str | None]) -> None:
    now = time.monotonic()
    superseded, _ = st.session_state.get(_WRITES, ([], {}))
    before = _query()
    after = {name: value for name, value in (before | dict(changes)).items() if value}
    if after != before:
        recent = [(query, since) for query, since in superseded if now - since < _STALE_SECONDS and query != after]
        st.session_state[_WRITES] = ([*recent, (before, now)], after)
    if after != dict(st.query_params):
        st.query_params.from_dict(after)


def _seed(key: str, value: Any) -> None:
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value
