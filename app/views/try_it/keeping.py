"""A typed text kept as a run of its own, for those who want that."""

from __future__ import annotations

import shutil
from pathlib import Path

import streamlit as st

from app import cache
from app.recordings.record_sentences import why_no_name
from app.sentences import escaped
from routing import RoutingError, RoutingTrace, save_trace

__all__ = ["keep_popover", "kept_as"]


def keep_popover(trace: RoutingTrace) -> None:
    """Offer to keep what is shown as a recording."""
    with (
        st.popover("Keep as a recording", icon=":material/save:", type="tertiary", key="keep_try"),
        st.form("keep_form", border=False),
    ):
        st.caption("The text and its routing are then a run like any other, which every user of this app can open.")
        name = st.text_input("Name of the run", key="keep_name", placeholder="my-text")
        if st.form_submit_button("Keep it"):
            _keep(trace, (name or "").strip())


def kept_as(trace: RoutingTrace, folder: Path) -> str:
    """Write a trace into a folder in one step, so that nobody finds half of it.

    Returns:
        why it could not be written; empty where it was.
    """
    # Whoever looks for runs passes over names that begin with a dot.
    draft = folder.with_name(f".{folder.name}.draft")
    try:
        save_trace(trace, draft)
        draft.rename(folder)
    except (OSError, RoutingError) as error:
        return str(error)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return ""


def _keep(trace: RoutingTrace, name: str) -> None:
    folder = cache.own_runs() / name
    # Of one that is being recorded there may be no trace yet.
    under_way = [each.name for each in cache.recordings().all() if each.is_alive]
    taken = [*(run.name for run in cache.runs()), *under_way, *([name] if name and folder.exists() else [])]
    if problem := why_no_name(name, taken):
        st.error(problem)
    elif problem := kept_as(trace, folder):
        st.error(f"It could not be kept: {escaped(problem)}")
    else:
        cache.look_again()
        st.success(f"Kept as the run “{escaped(name)}”; the list above offers it from the next click on.")
