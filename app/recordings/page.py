"""The page of a model that is being recorded, or could be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st

from app import cache, sentences
from app.recordings.kept import Request, Standing, is_locked
from app.recordings.models import about, place_of, request_for
from app.recordings.offers import Offer
from app.recordings.progress import watch
from routing import RoutingTrace

__all__ = ["offer_to_record_anew", "opened", "recording_page"]


def opened(offer: Offer) -> Offer:
    """The offer as it stands once it was chosen: a model that nobody asked for before is being recorded."""
    # What came to its end and is gone was removed by somebody who wants it anew.
    if offer.run is not None or offer.model is None or offer.standing is not None and offer.standing.stage != "done":
        return offer
    request = request_for(offer.model, runs=cache.own_runs())
    return replace(offer, standing=cache.recordings().start(offer.name, request))


def recording_page(offer: Offer) -> None:
    """Say what the model is, and how far its recording is."""
    standing = offer.standing
    alive = standing is not None and standing.is_alive
    name = sentences.escaped(offer.name)
    st.title(f"Recording {name}" if alive else f"{name} is not recorded yet", anchor=False)
    asked = place_of(standing.request.model) if standing is not None else ""
    folder = offer.model.folder if offer.model is not None else asked
    with st.container(width=760):
        if what := about(folder):
            st.markdown(sentences.escaped(what))
        if standing is None:
            return
        if alive:
            st.markdown(_plan(standing.request))
            watch(offer.name)
            return
        _tell_how_it_ended(standing)
        request = standing.request if offer.model is None else request_for(offer.model, runs=cache.own_runs())
        st.button(
            "Record it",
            key="record",
            type="primary",
            icon=":material/radio_button_checked:",
            on_click=_start,
            args=(offer.name, request),
        )


def offer_to_record_anew(offer: Offer, trace: RoutingTrace) -> None:
    """Where a trace did not come to its end: say so, and offer to record it again."""
    if trace.path is None or trace.provenance.complete or (offer.standing is None and offer.model is None):
        return
    log = Path(trace.path) / "commits.jsonl"
    if is_locked(log):
        st.info("This is being recorded right now; reload the page to see what has come.", icon=":material/autorenew:")
        return
    stage = offer.standing.stage if offer.standing is not None else "lost"
    how = {"stopped": "was stopped", "failed": "failed"}.get(stage, "was cut off")
    size = sentences.count(trace.n_tokens, trace.unit)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="cut_off"):
        why = f" {sentences.escaped(offer.standing.message)}" if stage == "failed" and offer.standing else ""
        st.warning(
            f"This recording {how} before its end; what was recorded until then is here, {size}.{why}",
            icon=":material/content_cut:",
        )
        if offer.standing is not None:
            request = replace(offer.standing.request, replaces=True)
        else:
            assert offer.model is not None
            request = request_for(offer.model, runs=cache.own_runs(), replaces=True)
        st.button(
            "Record anew",
            key="record",
            icon=":material/replay:",
            help="The new recording takes the place of this one as soon as it holds anything.",
            on_click=_start,
            args=(offer.name, request),
        )


def _start(name: str, request: Request) -> None:
    cache.recordings().start(name, request)
    cache.look_again()


def _plan(request: Request) -> str:
    tasks = sentences.and_list([sentences.escaped(each) for each in request.tasks])
    return (
        f"The prompts of {tasks} go through it once, and what its routers decide is kept in "
        f"{sentences.escaped(request.out)}. Then it opens here; recording happens once."
    )


def _tell_how_it_ended(standing: Standing) -> None:
    if standing.stage == "stopped":
        st.info("It was stopped before anything was recorded.", icon=":material/stop_circle:")
        return
    if standing.stage == "failed":
        st.error(sentences.escaped(standing.message), icon=":material/error:")
    else:
        st.error(
            "The recording ended without a word, as it does when the system ends it for want of memory or when the "
            "machine goes down. Nothing was recorded.",
            icon=":material/error:",
        )
    if standing.log:
        with st.expander("What it wrote last"):
            st.code(standing.log, language=None)
