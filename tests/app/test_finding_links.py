"""What a finding says is seen again where its link leads."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.findings import Finding, findings
from app import slow_answers
from app.recordings import PAGE
from app.sentences import percent, times
from app.view_list import VIEWS
from routing import RoutingTrace, save_trace
from tests.app.conftest import text_of
from tests.traces import planted_trace
from tests.with_prompts import with_prompts

TYPES = {"spans": 0, "names": 0, "sentiment": 1, "topics": 1, "facts": 2, "capitals": 2, "sums": 3, "shell": 4}
_TABLES = slow_answers.tables


def by_types() -> RoutingTrace:
    """Sixteen tasks; those of a type share an expert, and one expert of another layer is far too busy."""
    owners = {name: (2, number) for name, number in TYPES.items()}
    plain = planted_trace(seed=4, specialists=owners, popular={(0, 3): 4.0}, n_tasks=8, n_prompts_a_task=12, n_layers=3)
    halves = np.where(np.arange(plain.n_prompts) % 2, "-odd", "-even")
    return with_prompts(plain, task=plain.prompts["task"] + halves)


def right_by_expert() -> RoutingTrace:
    plain = planted_trace(seed=6, specialists={}, n_tasks=3, n_prompts_a_task=60, n_tokens_a_prompt=12, n_layers=2)
    rate = (plain.experts.values[:, 1, :2] == 5).any(axis=1) & (plain.tokens["phase"] == "prompt")
    used = np.bincount(plain.tokens["prompt"], weights=rate, minlength=plain.n_prompts)
    return with_prompts(plain, score=(used > np.median(used)).astype(float))


def tied() -> RoutingTrace:
    """No expert is wanted much more than the next."""
    plain = planted_trace(seed=2, specialists={}, n_tasks=3, n_prompts_a_task=20, n_layers=2)
    apart = np.random.default_rng(0).choice([0.001, 0.05], (plain.n_tokens, 1, 1), p=[0.6, 0.4])
    scores = np.broadcast_to(0.3 - apart * np.arange(plain.n_ranks), plain.scores.shape)
    return with_prompts(plain, scores=scores)


SAID = {
    "specialist": lambda each: times(each.effect),
    "task_type": lambda each: times(each.effect),
    "uneven": lambda each: times(each.effect),
    "information": lambda each: f"{each.effect:.0%} of what there is to know",
    "taxonomy": lambda each: f"AMI {each.effect:.2f}",
    "answers": lambda each: (
        f"{100 * each.effect:+.1f} points [{100 * each.effect_low:.1f}, {100 * each.effect_high:.1f}]"
    ),
    "close_calls": lambda each: percent(each.effect),
}


@pytest.mark.parametrize(
    ("trace", "kinds"),
    [
        (by_types(), ("specialist", "task_type", "uneven", "information", "taxonomy")),
        (right_by_expert(), ("answers",)),
        (tied(), ("close_calls",)),
    ],
    ids=["tasks", "answers", "ties"],
)
def test_the_figure_of_a_finding_is_seen_where_its_link_leads(open_app, tmp_path, monkeypatch, trace, kinds):
    monkeypatch.setattr(slow_answers, "tables", lambda *a, **options: _TABLES(*a, **(options | {"slow": False})))
    save_trace(trace, tmp_path / "runs" / "one")
    found = findings(trace)
    first = {each.kind: each for each in reversed(found)}
    assert set(kinds) <= set(first)
    for kind in kinds:
        finding: Finding = first[kind]
        page = open_app(finding.view, finding.selection_query | finding.options, runs=tmp_path / "runs")
        assert not page.exception
        assert SAID[kind](finding) in text_of(page), (finding.sentence, SAID[kind](finding))


def test_links_lead_to_views_that_there_are(open_app):
    page = open_app("overview", {"run": "skewed", "part": "controls", "over": "task_type"})
    known = {view.url for view in VIEWS} | {PAGE}
    links = [link.proto for link in page.get("page_link")]
    assert {link.page for link in links} <= known | {""}
    to_tasks = [link.query_string for link in links if link.page == "tasks" and "serves" in link.label]
    assert to_tasks
    # What was looked at before does not hide what the finding is about.
    assert not any("over=" in query or "part=controls" in query for query in to_tasks)
