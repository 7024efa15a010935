"""Links from one view to another that keep what is looked at."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.sentences import escaped
from routing import RoutingTrace, Selection, expert_name

__all__ = ["expert_link", "tell_lost_run", "view_link"]


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


def expert_link(trace: RoutingTrace, layer: str, expert: int, *, label: str | None = None) -> None:
    """Draw a link to an expert's page.

    Args:
        trace: the trace that holds it.
        layer: label of its layer.
        expert: its number.
        label: text of the link, as Markdown; the expert's name, where it is None.
    """
    text = label or f"Page of {escaped(expert_name(layer, expert, names=trace.expert_names))}"
    view_link("expert", text, icon=":material/badge:", expert=state.expert_in_url(layer, expert))


def tell_lost_run(name: str) -> None:
    """Say so where the address asks for another run beside this one, and there is none of that name.

    Args:
        name: of the URL, under which the other run is asked for.
    """
    asked = state.option(name)
    if asked and asked not in {run.name for run in cache.runs()}:
        st.warning(f"There is no run named “{escaped(asked)}” here to compare with.", icon=":material/link_off:")


def _nothing() -> None: ...
