"""What the page says of a computation that ended with an error, and how it is begun anew."""

from __future__ import annotations

import hashlib

import streamlit as st

from app import cache
from app.jobs import Job

__all__ = ["tell_failed"]


def tell_failed(what: str, job: Job) -> None:
    """Say that a computation ended with an error, show what it wrote last, and offer to begin it anew.

    Args:
        what: a sentence on what is not there for it, as Markdown.
        job: of `cache.jobs()`.
    """
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
