"""Names and notes come from files: the page shows them as they are, and fetches nothing that they name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from routing import RoutingTrace, save_trace
from tests.app.conftest import text_of
from tests.traces import planted_trace

PICTURE = "![p](https://example.org/p.png)"
# What Streamlit reads Markdown in: bodies, labels of buttons and links, hints. Lists and tables show texts as they are.
READS_MARKDOWN = (
    "markdown",
    "caption",
    "info",
    "warning",
    "error",
    "button",
    "page_link",
    "heading",
    "metric",
    "expander",
    "popover",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A run whose experts, layers and note are called by pictures, under a folder called so, too."""
    folder = tmp_path_factory.mktemp("runs")
    trace = planted_trace(seed=3, n_tasks=4, n_prompts_a_task=6, n_layers=3, n_experts=6, n_runners_up=2)
    facts = [
        replace(each, expert_names=[f"{number} {PICTURE}" for number in range(each.n_experts)], note=PICTURE)
        for each in trace.layer_facts
    ]
    named = RoutingTrace.from_arrays(
        trace.experts.values,
        **{name: getattr(trace, name).values for name in ("scores", "weights", "logits")},
        tokens=trace.tokens,
        prompts=trace.prompts,
        layer_facts=facts,
        provenance=replace(trace.provenance, note=f"noted {PICTURE}", model=PICTURE),
    )
    save_trace(named, folder / "![p](here)")
    return folder


def read_as_markdown(node) -> list[str]:
    """Every text of the page that Markdown is read in."""
    found = [text for child in getattr(node, "children", {}).values() for text in read_as_markdown(child)]
    if getattr(node, "type", "") in READS_MARKDOWN:
        proto = node.proto
        for field, value in proto.ListFields():
            if field.name in ("body", "label", "help") and isinstance(value, str):
                found.append(value)
    return found


@pytest.mark.parametrize(
    ("view", "query"),
    [
        ("", {"run": "nowhere"}),
        ("tasks", {"experts": "L01.E2"}),
        ("load", {}),
        ("tokens", {"focus": "t0-p0@1"}),
        ("expert", {}),
        ("together", {"experts": "L01.E2,L01.E3"}),
        ("unselected", {"experts": "L01.E2"}),
    ],
)
def test_a_name_from_a_file_is_no_markdown(open_app, runs, view, query):
    prompt = {"focus": f"{planted_prompt(runs)}@1"} if "focus" in query else {}
    page = open_app(view, query | prompt, runs=runs)
    assert not page.exception
    told = read_as_markdown(page._tree)
    named = [re.sub(r"\\(.)", r"\1", text) for text in told]
    assert any("![p](here)" in text for text in named) == (query.get("run") == "nowhere")
    assert any(PICTURE in text for text in named)
    assert not [text for text in told if "![p](" in text]
    assert text_of(page)


def planted_prompt(runs: Path) -> str:
    from routing import open_trace

    return str(open_trace(next(runs.iterdir())).prompts["prompt"].iloc[0])
