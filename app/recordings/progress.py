"""How far a recording is, and the load of its experts so far, drawn again while it runs."""

from __future__ import annotations

import streamlit as st

from app import cache, headings, sentences, status
from app.panel import definitions_popover, mode
from app.recordings.kept import Standing
from app.recordings.live import live_of
from app.recordings.record_sentences import duration, of_live
from figures.heatmap import load_heatmap

__all__ = ["watch"]

_POLL_SECONDS = 0.5
# A heatmap is heavier than a line of text, and nobody reads it twice a second.
_DRAW_SECONDS = 3.0
_STAGES = {
    "waiting": "Another recording is at work; this one begins when that ends.",
    "loading": "Loading PyTorch and the model",
    "measuring": "Measuring what recording costs",
    "stopping": "Stopping; what is recorded is kept",
}


def watch(name: str) -> None:
    """Show a recording that is under way, until it ends.

    Args:
        name: of the run that it makes.
    """
    status.waiting_for(f"{name} is being recorded")
    _progress(name)
    _live_load(name)


@st.fragment(run_every=_POLL_SECONDS)
def _progress(name: str) -> None:
    standing = cache.recordings().standing(name)
    if standing is None or not standing.is_alive:
        cache.look_again()
        st.rerun()
        return
    share = standing.n_prompts / standing.n_prompts_total if standing.n_prompts_total else 0.0
    with st.container(key=f"progress_{name}", gap="xsmall"):
        st.progress(min(1.0, share))
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.button(
                "Cancel",
                key=f"cancel_{name}",
                icon=":material/stop_circle:",
                help="What is recorded until then is kept, and can be opened.",
                disabled=standing.stage == "stopping",
                on_click=cache.recordings().stop,
                args=(name,),
            )
            st.markdown(_line(standing))


@st.fragment(run_every=_DRAW_SECONDS)
def _live_load(name: str) -> None:
    live = live_of(cache.recordings().folder(name))
    if live is None:
        return
    with st.container(key=f"live_{name}", gap="xsmall"):
        with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
            headings.part("Load of each expert so far", width="stretch")
            definitions_popover(("expert_load",), key=f"live_{name}")
        figure = load_heatmap(live.load, exists=live.exists, mode=mode())
        reading = of_live(live)
        st.plotly_chart(
            figure, key=f"live_load_{name}", theme=None, config={"displayModeBar": False}, alt=sentences.spoken(reading)
        )
        st.markdown(reading)


def _line(standing: Standing) -> str:
    seconds = duration(standing.seconds)
    if standing.stage in _STAGES:
        return f"{_STAGES[standing.stage]} … {seconds}"
    if not standing.n_prompts:
        return f"{standing.n_prompts_total:,} prompts; the first batch is on its way … {seconds}"
    left = standing.seconds_left
    ahead = f", about {duration(left)} to go" if left is not None else ""
    return (
        f"**{standing.n_prompts:,}** of {standing.n_prompts_total:,} prompts · "
        f"{standing.tokens_a_second:,.0f} tokens/s · {seconds}{ahead}"
    )
