"""What a reader can take along: the view as it stands, or the whole run, as one HTML file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import streamlit as st

from app import state
from app.panel import mode
from app.report.parts import Panel
from routing import RoutingTrace

__all__ = ["share_popover"]


def share_popover(trace: RoutingTrace, panels: Sequence[Panel], *, name: str, question: str, url: str) -> None:
    """Offer this view and this run as files that open anywhere; they are written when they are asked for.

    Args:
        trace: the run.
        panels: what the view has shown.
        name: what the reader calls the run.
        question: of the view.
        url: path of the view.
    """
    looked_at = state.link_query()
    kept, drawn = tuple(panels), mode()

    def of_view() -> str:
        # Reports ask every question of the house; the app need not know how before someone wants one.
        from app.report.run import view_report

        return view_report(trace, kept, name=name, question=question, looked_at=looked_at, mode=drawn)

    def of_run() -> str:
        from app.report.run import run_report

        return run_report(trace, name=name)

    with st.popover("Share", icon=":material/ios_share:", key="share", width="content"):
        st.caption("One HTML file with its figures, numbers and definitions. It opens offline, in any browser.")
        _download("This view", of_view, file=f"{name}-{url or 'overview'}", key="share_view", disabled=not kept)
        _download("The whole run", of_run, file=name, key="share_run")
        st.caption("The address of this page reproduces the screen, for those who can open this app.")


def _download(label: str, made: Callable[[], str], *, file: str, key: str, disabled: bool = False) -> None:  # noqa: FBT001, FBT002
    st.download_button(
        label,
        data=lambda: made().encode("utf-8", "replace"),
        file_name=f"{re.sub(r'[^A-Za-z0-9._-]+', '-', file)}.html",
        mime="text/html",
        icon=":material/download:",
        key=key,
        on_click="ignore",
        disabled=disabled,
        width="stretch",
    )
