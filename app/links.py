"""Links from one view to another that keep what is looked at."""

from __future__ import annotations

import streamlit as st

from app import state
from routing import Selection

__all__ = ["view_link"]


def view_link(
    url: str,
    label: str,
    *,
    selection: Selection | None = None,
    icon: str | None = None,
    **options: str | None,
) -> None:
    """Draw a link to a view.

    Args:
        url: path of the view, as `shell.VIEWS` names it.
        label: text of the link, as Markdown.
        selection: what is looked at there; what is looked at now, where it is None.
        icon: a Material symbol.
        options: names of the URL to set, or with None to take out.
    """
    # Streamlit knows a page by its path, so a page made here stands for the shell's own.
    page = st.Page(_nothing, title=url.capitalize(), url_path=url)
    st.page_link(page, label=label, icon=icon, query_params=state.link_query(selection, **options))


def _nothing() -> None: ...
