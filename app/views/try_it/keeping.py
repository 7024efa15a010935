"""A typed text kept as a run of its own, for those who want that."""

from __future__ import annotations

import re

import streamlit as st

from app import cache
from app.sentences import escaped
from routing import RoutingError, RoutingTrace, save_trace

__all__ = ["keep_popover"]

_NAME = re.compile(r"\w[\w.-]{0,60}")


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


def _keep(trace: RoutingTrace, name: str) -> None:
    folder = cache.own_runs() / name
    if not _NAME.fullmatch(name):
        st.error("A name is made of letters, digits, points, hyphens and underscores.")
    elif folder.exists():
        st.error(f"There is a run “{escaped(name)}” already. Choose another name.")
    else:
        try:
            save_trace(trace, folder)
        except (OSError, RoutingError) as error:
            st.error(f"It could not be kept: {escaped(str(error))}")
            return
        cache.look_again()
        st.success(f"Kept as the run “{escaped(name)}”; the list above offers it from the next click on.")
