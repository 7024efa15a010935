"""Widgets whose value stands in the URL: each is set from it before it is drawn, and writes to it in its callback.

A browser names a choice of a list by its label. It may be a page behind, after a step back or a quick click; what it
then names, and the list on the page does not, was chosen by nobody: Streamlit hands the label over as it came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import streamlit as st

from app.sentences import escaped
from app.state import option, set_options

__all__ = ["choose", "choose_one", "choose_several", "chosen", "is_on", "search", "toggle"]

T = TypeVar("T")


def chosen(name: str, choices: Sequence[T], *, default: T | None = None, text: Callable[[T], str] = str) -> T:
    """What `choose` of the same arguments would give, for where the widget stands further down the page."""
    by_text = {text(choice): choice for choice in choices}
    return by_text.get(option(name) or "", choices[0] if default is None else default)


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
        if picked in choices:
            set_options(**{name: None if picked == fallback else text(picked)})

    default_of = {"segmented": "default", "slider": "value", "select": "index"}[kind]
    common: dict[str, Any] = {
        **_seed(key, value, **{default_of: list(choices).index(value) if kind == "select" else value}),
        "key": key,
        "on_change": changed,
        "help": help,
        "label_visibility": label_visibility,
    }
    if kind == "segmented":
        # Streamlit reads Markdown in the labels of buttons, though not in those of lists.
        common["format_func"] = lambda choice: escaped((shown or text)(choice))
        st.segmented_control(label, list(choices), required=True, **common)
        return value
    common["format_func"] = _told_apart(choices, shown or text)
    if kind == "slider":
        st.select_slider(label, list(choices), **common)
    else:
        st.selectbox(label, list(choices), **common)
    return value


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
    seeded = _seed(key, on, default=on)
    # A task's name comes from a file: Streamlit would read Markdown in it, and fetch the pictures that it names.
    st.pills(
        escaped(label),
        list(choices),
        selection_mode="multi",
        key=key,
        format_func=lambda choice: escaped(shown(choice)),
        label_visibility=label_visibility,
        on_change=lambda: on_change(tuple(st.session_state[key])),
        **seeded,
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

    def changed() -> None:
        picked = st.session_state[key]
        if picked in choices:
            on_change(picked)

    seeded = _seed(key, chosen, index=list(choices).index(chosen))
    st.selectbox(
        label,
        list(choices),
        key=key,
        format_func=_told_apart(choices, shown),
        label_visibility=label_visibility,
        on_change=changed,
        **seeded,
    )


def search(label: str, *, name: str, placeholder: str = "") -> str:
    """A text to look for, kept in the URL under `name`.

    Returns:
        what was typed, without blanks around it; empty where nothing was.
    """
    value = option(name) or ""
    key = f"search_{name}"

    def changed() -> None:
        set_options(**{name: st.session_state[key].strip() or None})

    seeded = _seed(key, value, value=value)
    st.text_input(label, key=key, on_change=changed, placeholder=placeholder, **seeded)
    return value


def is_on(name: str, *, default: bool = False) -> bool:
    """What `toggle` of the same name would give, for where the switch stands further down the page."""
    return option(name, "1" if default else "0") == "1"


def toggle(label: str, *, name: str, default: bool = False, help: str | None = None) -> bool:  # noqa: A002
    """A switch, kept in the URL under `name` as "1" or "0"."""
    value = is_on(name, default=default)
    key = f"toggle_{name}"

    def changed() -> None:
        on = bool(st.session_state[key])
        set_options(**{name: None if on == default else str(int(on))})

    seeded = _seed(key, value, value=value)
    st.toggle(label, key=key, on_change=changed, help=help, **seeded)
    return value


def _told_apart(choices: Sequence[T], shown: Callable[[T], str]) -> Callable[[T], str]:
    """As `shown`, with a number behind labels that repeat: of two alike Streamlit takes the last for chosen."""
    labels: dict[T, str] = {}
    n_of: Counter[str] = Counter()
    for choice in choices:
        label = shown(choice)
        n_of[label] += 1
        labels[choice] = label if n_of[label] == 1 else f"{label} ({n_of[label]})"
    return labels.__getitem__


def _seed(key: str, shown: Any, **default: Any) -> dict[str, Any]:
    """Set a widget to what the URL says.

    Returns:
        its default for Streamlit: the same, so that a widget whose state was dropped on the way (a run that was
        cut short) is not taken for one that the reader set to the first choice; empty where it was set just now,
        as Streamlit warns of both at once.
    """
    if key not in st.session_state or st.session_state[key] != shown:
        st.session_state[key] = shown
        return {}
    return default
