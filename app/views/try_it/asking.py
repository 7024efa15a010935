"""Asking the models that stay loaded, without holding up the page."""

from __future__ import annotations

import streamlit as st

from app import cache, state, status
from app.recordings.record_sentences import first_and_rest
from app.sentences import escaped
from app.tries.asked import Found, TryRequest
from app.tries.warm import Asked

__all__ = ["answered"]

# A model that is loaded answers within this time, in the same drawing of the page.
_PATIENCE_SECONDS = 1.5
_POLL_SECONDS = 0.4
_STAGES = {
    "waiting": "The model is being loaded, or reads another text first",
    "loading": "The model is being loaded; it stays loaded for the next text",
    "reading": "The model reads the text",
}


def answered(request: TryRequest, *, slot: str) -> Found | None:
    """What was found; None while it is being found, or where it cannot be, which the page then says.

    Args:
        request: what is asked.
        slot: names what it is asked for; this session keeps the last answer of each.
    """
    asked = state.remembered(f"try_{slot}", request, lambda: cache.tries().ask(request))
    assert isinstance(asked, Asked)
    with status.doing("Reading the text with the model"):
        is_there = asked.wait(_PATIENCE_SECONDS)
    if not is_there:
        status.waiting_for("The model reads the text")
        _wait(asked)
        return None
    if asked.stage == "failed":
        first, rest = first_and_rest(asked.message)
        st.error(escaped(first), icon=":material/error:")
        if rest:
            st.caption(escaped(rest))
        st.button(
            "Try again", key=f"again_{slot}", icon=":material/refresh:", on_click=state.remembered,
            args=(f"try_{slot}", None, lambda: None),
        )  # fmt: skip
        return None
    return asked.found()


@st.fragment(run_every=_POLL_SECONDS)
def _wait(asked: Asked) -> None:
    """Say what is done, until there is an answer."""
    if asked.wait(0):
        st.rerun()
    what = _STAGES.get(asked.stage, "The text is being read")
    st.caption(f":material/progress_activity: {what}; {asked.seconds:.0f} s so far.")
