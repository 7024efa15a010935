"""Overview: what was recorded, is it trustworthy, what stands out?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from analysis.findings import Finding, findings
from analysis.findings.control import LEVEL
from analysis.scores import task_scores
from analysis.stored_studies import studies_stamp
from app import cache, choices, headings, sentences
from app.commands.findings import link_of
from app.commands.terminal import bytes_in_words
from app.explain import hint
from app.links import view_link
from app.panel import data_popover, definitions_popover, empty, mode, panel
from app.questions import findings_since
from app.runs import Run, snapshots
from app.training import CURVES, training_panels
from app.trust import checks
from figures.bars import score_dots
from routing import RoutingTrace, Selection, TraceSummary, summary

__all__ = ["render"]

_SIGNS = {
    "good": ":green[:material/check_circle:]",
    "doubt": ":orange[:material/warning:]",
    "unknown": ":gray[:material/help:]",
}
_MOST_FINDINGS = 8
# Options of views that a link takes back, so that it shows what the finding says whatever was looked at before.
_PLAIN = dict.fromkeys(("part", "values", "over", "zoom", "within_task", "layer", "tie"))


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the view."""
    found = cache.answer(trace, summary)
    _numbers(found)
    left, right = st.columns([3, 2], gap="large")
    with right:
        _trust(found)
    _scores(trace, selection)
    # Findings ask every question of the house; what is quick stands on the page before they are answered.
    with left:
        _findings(trace)
    training_panels(
        trace,
        *CURVES.values(),
        heading="How it came to be: the same prompts over training",
        key="overview",
    )


def _numbers(found: TraceSummary) -> None:
    experts = sorted({facts.n_experts for facts in found.layers})
    top_k = sorted({facts.top_k for facts in found.layers})
    cards = (
        # Where the router decides once a prompt, prompts are what there is to count.
        *([(f"{found.unit.capitalize()}s", f"{found.n_tokens:,}", "n_tokens")] if found.unit != "prompt" else []),
        ("Prompts", f"{found.n_prompts:,}", "n_prompts"),
        ("Tasks", f"{len(found.tasks):,}", "n_tasks"),
        ("MoE layers", f"{found.n_layers:,}", "n_layers"),
        ("Experts a layer", _span(experts), "n_experts"),
        (f"Selected a {found.unit}", _span(top_k), "top_k"),
        ("On disk", bytes_in_words(found.disk_bytes) if found.disk_bytes is not None else "in memory", "disk_bytes"),
    )
    with st.container(horizontal=True, gap="small", key="numbers"):
        for label, value, column in cards:
            st.metric(label, value, border=True, help=hint(column, within=("summary",)))
    st.caption(_provenance(found))


def _span(values: Sequence[int]) -> str:
    return "none" if not values else str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _provenance(found: TraceSummary) -> str:
    made = found.provenance
    routers = dict.fromkeys(f"{facts.router_class} ({facts.score_function})" for facts in found.layers)
    parts = [
        made.model,
        made.revision,
        made.model_class,
        f"routers: {', '.join(routers)}" if routers else None,
        f"on {made.device} in {made.dtype}" if made.device else None,
        made.started[:16].replace("T", " ") + " UTC" if made.started else None,
        f"transformers {made.transformers}" if made.transformers else None,
        f"torch {made.torch}" if made.torch else None,
        f"level {found.level}",
        f"tasks from {made.tasks}" if made.tasks else None,
        f"digest {found.digest}",
    ]
    return " · ".join(sentences.escaped(part) for part in parts if part)


def _findings(trace: RoutingTrace) -> None:
    headings.section("What stands out")
    earlier = _earlier(trace)
    before = None if earlier is None else cache.trace_of(earlier)
    # Findings tell of studies, too, and one may have ended since they were last asked for.
    studies = studies_stamp(trace)
    found = (
        cache.answer(trace, findings, beside=studies)
        if before is None
        else cache.answer_over({"now": trace, "before": before}, findings_since, beside=studies)
    )
    if not found:
        st.markdown("Nothing beyond what chance gives: load is even, and no expert prefers a task.")
    for number, finding in enumerate(found[:_MOST_FINDINGS]):
        with st.container(gap=None, key=f"finding_{number}"):
            view_link(
                finding.view,
                sentences.escaped(finding.sentence),
                icon=":material/arrow_forward:",
                selection=Selection.from_query(finding.selection_query, trace, missing="drop"),
                **(_PLAIN | {"other": earlier.name if earlier is not None else None} | finding.options),
            )
            st.caption(sentences.escaped(finding.uncertainty))
    rest = found[_MOST_FINDINGS:]
    more = f" {sentences.count(len(rest), 'weaker one')} in “Data”." if rest else ""
    st.caption(
        "Strongest first, each a link to the view that shows it. Of all questions asked for this list, what is said "
        f"here beats chance at a false-discovery rate of {LEVEL:.0%}.{more}"
    )
    with st.container(horizontal=True, gap="small"):
        definitions_popover(("findings",), key="findings")
        data_popover(lambda: _table(found), key="findings", definitions=("findings",))


def _earlier(trace: RoutingTrace) -> Run | None:
    """The snapshot that the reader compares with, None for none."""
    run = cache.run_of(trace)
    earlier = {str(each.step): each for each in snapshots(cache.runs(), run) if each.path != run.path} if run else {}
    if run is not None and run.step is not None:
        earlier = {step: each for step, each in earlier.items() if (each.step or 0) < (run.step or 0)}
    if not earlier:
        return None
    steps = ["none", *earlier]
    shown = {"none": "nothing earlier"} | {step: f"step {int(step):,}" for step in earlier}
    step = choices.choose("Compared with", steps, name="since", shown=shown.__getitem__, kind="select")
    return None if step == "none" else earlier[step]


def _table(found: Sequence[Finding]) -> pd.DataFrame:
    columns = ["kind", "sentence", "effect", "effect_low", "effect_high", "unit", "strength", "p_value", "q_value"]
    rows = [{name: getattr(each, name) for name in columns} | {"link": link_of(each)} for each in found]
    return pd.DataFrame(rows, columns=[*columns, "link"])


def _trust(found: TraceSummary) -> None:
    headings.section("Can it be trusted?")
    for check in checks(found):
        st.markdown(f"{_SIGNS[check.verdict]} {check.sentence}")


def _scores(trace: RoutingTrace, selection: Selection) -> None:
    scores = cache.answer(trace, task_scores)
    shown = scores.loc[list(selection.tasks)] if selection.tasks else scores
    known = shown.dropna(subset=["score"])
    if known.empty:
        headings.section("How well the model did")
        empty(sentences.of_scores(shown), "Record tasks with targets to see scores beside the routing.")
        return
    ordered = known.sort_values(["task_type", "score"], ascending=[True, False], kind="stable")
    panel(
        "How well the model did, task by task",
        score_dots(
            ordered, task_types=trace.task_types, value_title="mean score (accuracy, exact match or F1)", mode=mode()
        ),
        key="overview_scores",
        reading=sentences.of_scores(shown),
        table=lambda: shown.reset_index(),
        definitions=("task_scores",),
    )
