"""The page Recordings: have a model recorded, watch it, find what was recorded."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from app import cache, headings, sentences, state
from app.commands.terminal import bytes_in_words
from app.recordings import record_sentences as words
from app.recordings.dropped import without_places
from app.recordings.form import form
from app.recordings.listed import Entry, bytes_below, entries, remove
from app.recordings.progress import watch
from routing import RoutingError, RoutingTrace, Selection

__all__ = ["recordings_page"]

# The newest; the form below is to stay in sight.
_MOST_AT_ONCE = 3


def recordings_page() -> None:
    """Draw the page."""
    st.title("What was recorded, and what shall be?", anchor=False)
    st.space("xxsmall")
    root, standings = cache.own_runs(), cache.recordings().all()
    found = entries(root, cache.runs(), standings)
    for each in found:
        if each.is_under_way:
            _under_way(each)
    if ended := [each for each in found if not each.is_under_way]:
        _list(ended, root=root)
    headings.section("Record a model")
    form([each.name for each in found])


def _list(ended: list[Entry], *, root: Path) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        headings.section("Recorded", width="content")
        st.caption(f"Below {sentences.escaped(str(root))}; whoever opens this app sees the same list.", width="content")
        everything = len(ended) <= _MOST_AT_ONCE or st.toggle(f"Show all {len(ended):,}", key="recordings_all")
    for each in ended if everything else ended[:_MOST_AT_ONCE]:
        _ended(each, root=root)


def _under_way(entry: Entry) -> None:
    assert entry.standing is not None, "somebody works on it"
    with st.container(border=True, key=f"under_way_{entry.name}"):
        headings.part(f"Recording {sentences.escaped(entry.name)}")
        request = entry.standing.request
        st.caption(
            f"{sentences.escaped(request.model)} · level {request.level} · {sentences.escaped(str(entry.path))} · "
            "it goes on when this page is closed, as long as the app runs."
        )
        watch(entry.name)


def _ended(entry: Entry, *, root: Path) -> None:
    trace, unreadable = _trace_of(entry)
    how = entry.state(trace)
    icon, color = words.ICONS[how]
    with st.container(border=True, key=f"recording_{entry.name}", gap="xxsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**{sentences.escaped(entry.name)}**", width="content")
            st.badge(how, icon=icon, color=color)
            if trace is not None and not trace.provenance.complete and trace.n_tokens:
                st.badge("not finished", color="gray", help="It opens with what was recorded until then.")
            st.space("stretch")
            if trace is not None:
                st.button(
                    "Open",
                    key=f"open_{entry.name}",
                    icon=":material/open_in_full:",
                    on_click=state.go_to,
                    args=("overview", Selection()),
                    kwargs={"run": entry.name},
                )
            _delete_popover(entry, root=root)
        message = unreadable or (entry.standing.message if entry.standing is not None and how == "failed" else "")
        if message:
            first, rest = words.first_and_rest(without_places(message, root))
            st.markdown(f":red[{sentences.escaped(first)}]", help=sentences.escaped(rest) or None)
        elif how == "cut off" and trace is None:
            st.markdown("It ended without a word, as when the system ends it for want of memory; nothing was recorded.")
        st.caption(" · ".join([*_facts(entry, trace), sentences.escaped(str(entry.path))]))


def _trace_of(entry: Entry) -> tuple[RoutingTrace | None, str]:
    """The trace, and why it cannot be read."""
    if entry.run is None:
        return None, ""
    try:
        return cache.trace_of(entry.run), ""
    except RoutingError as error:
        return None, str(error)


def _facts(entry: Entry, trace: RoutingTrace | None) -> list[str]:
    facts = []
    if trace is not None:
        facts += [
            sentences.escaped(trace.provenance.model or "model unknown"),
            f"{sentences.count(trace.n_tokens, trace.unit)} × {sentences.count(trace.n_layers, 'layer')}",
            f"level {trace.level}",
            bytes_in_words(cache.answer(trace, bytes_below)),
        ]
        if trace.provenance.started:
            facts.append(str(trace.provenance.started)[:16].replace("T", " "))
    elif entry.standing is not None:
        facts += [sentences.escaped(entry.standing.request.model), "nothing was recorded"]
    # One that ended without a word did not say for how long it had been at work.
    if entry.standing is not None and entry.standing.seconds and entry.standing.stage != "lost":
        facts.append(f"took {words.duration(entry.standing.seconds)}")
        if entry.standing.peak_bytes:
            facts.append(f"memory {bytes_in_words(entry.standing.peak_bytes)}")
    return facts


def _delete_popover(entry: Entry, *, root: Path) -> None:
    with st.popover("Delete", icon=":material/delete:", key=f"delete_{entry.name}", width="content"):
        what = "The trace and all that was made from it" if entry.run is not None else "What was asked"
        st.markdown(f"{what} will be gone from {sentences.escaped(str(entry.path))}. This cannot be undone.")
        st.button(
            f"Delete {sentences.escaped(entry.name)} for good",
            key=f"delete_for_good_{entry.name}",
            type="primary",
            on_click=partial(_delete, entry, root),
        )


def _delete(entry: Entry, root: Path) -> None:
    try:
        remove(root, entry)
    except RoutingError as error:
        st.toast(sentences.escaped(str(error)), icon=":material/error:")
    cache.look_again()
