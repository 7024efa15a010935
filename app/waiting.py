"""What is computed beside the page: the page waits for it and says so, shows what it gives, or how it failed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

import streamlit as st

from app import cache, status
from app.jobs import Job

__all__ = ["found_or_waiting"]

T = TypeVar("T")

_POLL_SECONDS = 1.0


def found_or_waiting(ask: Callable[[], T | Job], what: str, *, failed: str, meanwhile: str = "") -> T | None:
    """What a computation gives; None where it is not there, which the page then says. It is drawn again once it is.

    Args:
        ask: gives what was found, or the job of `cache.jobs()` that is finding it; asked again while the page waits.
        what: what is being done, such as "Tasks are being clustered".
        failed: a sentence on what is not there where it ended with an error, as Markdown.
        meanwhile: what the page shows instead, such as "colors are tasks".
    """
    found = ask()
    if not isinstance(found, Job):
        return found
    if found.state == "failed":
        _tell_failed(failed, found)
    else:
        status.waiting_for(what)
        _wait(ask, what, meanwhile)
    return None


@st.fragment(run_every=_POLL_SECONDS)
def _wait(ask: Callable[[], object], what: str, meanwhile: str) -> None:
    """Say what is being found, until it is there."""
    found = ask()
    shown = f"; meanwhile {meanwhile}" if meanwhile else ""
    if not isinstance(found, Job) or found.state == "failed":
        st.rerun()
    elif found.state == "waiting":
        st.caption(f":material/hourglass: {what}, after another computation{shown}.")
    else:
        # UMAP compiles itself when it is first used on a machine.
        first = " (the first may take a minute)" if meanwhile else ""
        st.caption(f":material/progress_activity: {what}, for {found.seconds:.0f} s so far{first}{shown}.")


def _tell_failed(what: str, job: Job) -> None:
    """Say that a computation ended with an error, show what it wrote last, and offer to begin it anew."""
    why = "" if job.message else " It wrote nothing, as when the system ends it for want of memory."
    st.error(f"{what}{why}", icon=":material/error:")
    name = hashlib.blake2b(job.key.encode(), digest_size=6).hexdigest()
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            "Try again",
            key=f"try_again_{name}",
            icon=":material/refresh:",
            on_click=cache.jobs().forget,
            args=(job.key,),
        )
        if job.message:
            with st.popover("What it wrote last", type="tertiary", key=f"wrote_{name}", width="content"):
                st.code(job.message, language=None)
