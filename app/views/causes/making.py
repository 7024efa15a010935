"""Asking a run's model what breaks without experts: the command, and a button that runs it in the background."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from app import cache, choices, status
from app.sentences import count, escaped
from app.studies.asked import KnockOutRequest, Standing, standing_of, start, why_not
from routing import RoutingTrace, Selection, expert_name

__all__ = ["filled_in", "making", "watched"]

_POLL_SECONDS = 1.0
_SERVING, _CHOSEN = "serving", "selected"
_SIZES, _LIMITS = ("1", "3", "6"), ("4", "12", "24", "all")
_N_RANDOM = ("20", "50", "100", "200")


def watched(trace: RoutingTrace) -> bool:
    """Show the study of this run that is being made, or why the last one was not.

    Returns:
        whether one is being made.
    """
    standing = standing_of(trace, jobs=cache.studies())
    if standing is None or standing.job.state == "done":
        return False
    if standing.job.state == "failed":
        st.error(escaped(standing.problem) or "The study ended with an error.", icon=":material/error:")
        if standing.job.message and not standing.problem:
            with st.expander("What it wrote last"):
                st.code(standing.job.message, language=None)
        return False
    status.waiting_for("The study is being made")
    _watch(trace)
    return True


def filled_in(trace: RoutingTrace) -> str:
    """What the reader has to fill in behind a command, as far as the app does not know it."""
    reason = why_not(trace)
    missing = {"--model": "FOLDER", "--tasks": "TASKS", "--out": "FOLDER"}
    return "".join(f" {flag} {word}" for flag, word in missing.items() if f"({flag})" in reason)


def making(trace: RoutingTrace, selection: Selection, *, is_made: bool) -> None:
    """Let the reader say what is taken out; show the command that does it, and run it.

    Args:
        trace: the run.
        selection: its experts can be taken out.
        is_made: whether a study of this run is being made.
    """
    request = _asked(trace, selection)
    if request is None:
        st.markdown("Select experts (in Tasks, Load or Map) to knock them out.")
        return
    reason = why_not(trace)
    st.code(request.command() + filled_in(trace), language="bash", wrap_lines=True)
    if reason:
        st.markdown(reason)
        return
    n_sets = len(request.serving) + len(request.experts)
    n_passes = 1 + n_sets * (1 + request.n_random)
    least = 1 / (1 + request.n_random)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        is_busy = cache.studies().is_busy
        st.button(
            "Run it here",
            key="knock_out",
            type="primary",
            icon=":material/play_arrow:",
            disabled=is_made or is_busy,
            on_click=lambda: start(trace, request, jobs=cache.studies()),
        )
        busy = " Another study is at work; this one can begin when that ends." if is_busy and not is_made else ""
        st.markdown(
            f"{count(n_passes, 'pass', plural='passes')} over the prompts: the whole model, and without each of "
            f"{count(n_sets, 'set')} and of {request.n_random} random sets for each, so that p can be {least:.3f} at "
            "the least. Results are kept beside the run: a study that was stopped goes on where it was, and one that "
            f"was made is enlarged where more random sets are asked for.{busy}"
        )


def _asked(trace: RoutingTrace, selection: Selection) -> KnockOutRequest | None:
    types = tuple(dict.fromkeys(kind for kind in trace.task_types.values() if kind))
    over = "task_type" if len(types) > 1 else "task"
    groups = types if over == "task_type" else trace.tasks
    ways = [_SERVING] * (len(groups) > 1 and trace.level != "counts") + [_CHOSEN] * bool(selection.experts)
    if not ways:
        return None
    words = {_SERVING: f"those that each {'type of task' if over == 'task_type' else 'task'} uses most"}
    words[_CHOSEN] = f"the {count(len(selection.experts), 'expert')} selected"
    with st.container(horizontal=True, gap="large", vertical_alignment="bottom"):
        way = choices.choose("Experts to take out", ways, name="take", default=ways[-1], shown=words.__getitem__)
        size = "3"
        if way == _SERVING:
            size = choices.choose("How many for each", _SIZES, name="size", default="3")
        limit = choices.choose(
            "Prompts a task", _LIMITS, name="n_prompts", default="12", help="Drawn by a seed; more give less noise."
        )
        n_random = choices.choose(
            "Random sets",
            _N_RANDOM,
            name="n_random",
            help="For each set, of like load: p is the rank among them, (1 + sets that harm as much) / (1 + sets). Say "
            "how many before you look: asking for more until p is small finds something in noise, too.",
        )
    common = KnockOutRequest(
        trace=str(trace.path), over=over, n_random=int(n_random), limit=None if limit == "all" else int(limit)
    )
    if way == _CHOSEN:
        together = ",".join(expert_name(layer, expert) for layer, expert in selection.experts)
        return replace(common, experts=(together,))
    return replace(common, serving=tuple(groups), n_experts=int(size))


@st.fragment(run_every=_POLL_SECONDS)
def _watch(trace: RoutingTrace) -> None:
    """How far the study is, until it ends."""
    standing = standing_of(trace, jobs=cache.studies())
    if standing is None or standing.job.state != "running":
        st.rerun()
        return
    with st.container(key="study_progress", gap="xsmall"):
        st.progress(standing.n_done / standing.n_total if standing.n_total else 0.0)
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.button(
                "Stop",
                key="stop_study",
                icon=":material/stop_circle:",
                help="What was measured is kept: the same question goes on there.",
                on_click=lambda: cache.studies().forget(standing.key),
            )
            st.markdown(_progress(standing))


def _progress(standing: Standing) -> str:
    seconds = standing.job.seconds
    if not standing.n_total:
        return f"Loading PyTorch and the model, and measuring it whole … {seconds:.0f} s"
    return f"**{standing.n_done}** of {count(standing.n_total, 'pass', plural='passes')} · {seconds:.0f} s"
