"""What the page and its components have told each other, so that neither answers its own echo."""

from __future__ import annotations

from typing import Any

import streamlit as st

__all__ = ["component_state", "heard", "revision"]


def component_state(key: str, name: str) -> Any:
    """What a component of the page last told us under one name, None where it said nothing."""
    value = st.session_state.get(key)
    return value.get(name) if value else None


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
