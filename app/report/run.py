"""Reports: of a whole run for the command line and the app, and of the view that a reader looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from app.report.page import report_page
from app.report.parts import Panel, Section
from app.report.sections import run_sections
from figures.theme import Mode
from routing import RoutingTrace

__all__ = ["run_report", "view_report"]


def run_report(trace: RoutingTrace, *, name: str, before: RoutingTrace | None = None, seed: int = 0) -> str:
    """A whole run as one HTML page.

    Args:
        trace: the run.
        name: what the reader calls it.
        before: an earlier run of the same prompts, to say what changed since.
        seed: of permutations and draws.
    """
    return report_page(
        f"Routing of {name}",
        subtitle=_subtitle(trace),
        sections=run_sections(trace, before=before, seed=seed),
        facts=_facts(trace, made_with={"seed": str(seed)}),
    )


def view_report(
    trace: RoutingTrace,
    panels: Sequence[Panel],
    *,
    name: str,
    question: str,
    looked_at: Mapping[str, str],
    mode: Mode = "light",
) -> str:
    """The figures of one view as one HTML page.

    Args:
        trace: the run.
        panels: what the view showed, in its order.
        name: what the reader calls the run.
        question: of the view.
        looked_at: the query of the URL: what was selected, and the options of the view.
        mode: look of the figures.
    """
    return report_page(
        question,
        subtitle=f"{name} · {_subtitle(trace)}",
        sections=[Section(title=question, panels=tuple(panels))],
        facts=_facts(trace, made_with=dict(looked_at)),
        mode=mode,
    )


def _subtitle(trace: RoutingTrace) -> str:
    made = trace.provenance
    parts = [
        made.model,
        f"{trace.n_tokens:,} {trace.unit}s of {trace.n_prompts:,} prompts, {len(trace.tasks)} tasks",
        f"{trace.n_layers} layers, top-{trace.top_k} of {trace.n_experts} experts",
        f"recorded {made.started[:10]}" if made.started else None,
    ]
    return " · ".join(part for part in parts if part)


def _facts(trace: RoutingTrace, *, made_with: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """How the run came to be, its routers, and how the page came to be."""
    made = {name: _fact(value) for name, value in asdict(trace.provenance).items() if value not in (None, "", {}, [])}
    routers: dict[str, str] = {}
    for facts in trace.layer_facts:
        routers[facts.label] = (
            f"{facts.router_class} at {facts.module}: top-{facts.top_k} of {facts.n_experts}, {facts.score_function}, "
            f"proven by {facts.proof}"
        )
    page = {"digest of the trace": trace.digest, "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}
    return {"How the run was recorded": made, "The routers": routers, "How this page was made": page | dict(made_with)}


def _fact(value: Any) -> str:
    return ", ".join(f"{name}: {each}" for name, each in value.items()) if isinstance(value, dict) else str(value)
