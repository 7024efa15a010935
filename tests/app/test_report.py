"""A report is one file that asks nobody for anything, and in which every text stays a text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs
from typer.testing import CliRunner

from app.cli import cli
from app.report.markdown import blocks_html, inline_html
from app.report.page import report_page
from app.report.parts import Panel, Section
from app.report.run import run_report, view_report
from routing import open_trace, save_trace
from tests.adapter_traces import task_moe_trace
from tests.analysis.test_findings import stored_knock_out
from tests.counted import counted
from tests.hostile import hostile
from tests.odd_runs import ODD
from tests.traces import planted_trace


class Elements(HTMLParser):
    """Names and attributes of all elements, and the texts of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.open: str | None = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        self.open = dict(attrs).get("id") if tag == "script" else None

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, data):
        if self.open:
            self.scripts[self.open] = self.scripts.get(self.open, "") + data


@pytest.fixture(scope="module")
def page() -> str:
    trace = hostile(planted_trace(seed=3, n_tasks=4, n_prompts_a_task=6, n_layers=2, strength=5.0))
    return run_report(trace, name="</title><script>window.hacked = true</script>")


def test_a_report_names_no_other_file_and_forbids_all_requests(page):
    elements = Elements(page)
    for tag, attributes in elements.seen:
        assert not {"src", "srcset", "action", "background"} & set(attributes), tag
        assert tag not in ("link", "img", "iframe", "object", "embed", "form", "base")
        assert (attributes.get("href") or "#").startswith("#")
    (policy,) = (dict(a)["content"] for tag, a in elements.seen if dict(a).get("http-equiv"))
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert "@import" not in page.split("</style>")[0]
    assert "url(" not in page.split("</style>")[0]


def test_plotly_is_in_it_once(page):
    assert page.count(get_plotlyjs()[:2000]) == 1


def test_hostile_texts_stay_texts(page):
    elements = Elements(page)
    scripts = [attributes for tag, attributes in elements.seen if tag == "script"]
    run = [each for each in scripts if each.get("type") != "application/json"]
    assert len(run) == 2
    assert all(each["nonce"] for each in run)
    for tag, attributes in elements.seen:
        assert not [name for name in attributes if name.startswith("on")], tag
    for name, text in elements.scripts.items():
        assert json.loads(text) is not None, name
    assert "<script>window.hacked" not in page
    assert "&lt;script&gt;window.hacked" in page
    assert "[U+202E]gnirts" in page


def test_a_report_holds_what_belongs_to_its_figures(page):
    assert page.count('class="plot"') >= 5
    for said in ("What stands out", "Can it be trusted?", "What the numbers mean", "How the run was recorded"):
        assert f"<h2>{said}</h2>" in page
    assert "PlantedForCausalLM" in page
    assert "<strong>Question.</strong>" in page
    assert "Trustworthiness <strong>" in page


def test_a_report_tells_what_the_checks_of_the_load_saw(page):
    assert "Is the load healthy?" in page
    assert re.search(r"Of \d checks?, .*<strong>(act|watch|good|unknown):</strong> ", page)


def test_the_numbers_of_a_figure_are_all_there():
    table = pd.DataFrame({"task": [f"t{n}" for n in range(300)], "score": [n / 3 for n in range(300)]})
    panel = Panel(title="A **bold** title", figure=None, reading="It rises.", table=lambda: table, key="scores")
    page = report_page("t", subtitle="", sections=[Section(title="s", panels=(panel,))], facts={})
    assert "the first 200 of 300 rows" in page
    csv = json.loads(Elements(page).scripts["c0"])
    assert csv == table.to_csv(index=False)
    assert "<h3>A <strong>bold</strong> title</h3>" in page


def test_figures_travel_as_plotly_wrote_them():
    figure = go.Figure(go.Scattergl(x=[1, 2], y=[3, 4], name="</script>"), layout={"width": 300, "height": 200})
    panel = Panel(title="t", figure=figure, reading="", table=pd.DataFrame, key="k")
    page = report_page("t", subtitle="", sections=[Section(title="s", panels=(panel,))], facts={})
    spec = json.loads(Elements(page).scripts["d0"])
    assert spec["data"][0]["name"] == "</script>"
    assert (spec["data"][0]["type"], "width" in spec["layout"]) == ("scatter", False)
    assert "height:200px" in page


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("**L07\\.E1** takes `x < y` 1.5 \\* more", "<strong>L07.E1</strong> takes <code>x &lt; y</code> 1.5 * more"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("[a](javascript:b)", "[a](javascript:b)"),
        ("**open", "<strong>open</strong>"),
        ("path C:\\new", "path C:\\new"),
    ],
)
def test_markdown_of_a_line(markdown, expected):
    assert inline_html(markdown) == expected


def test_markdown_of_a_definition():
    written = blocks_html("**name**\n\n- **Question.** Who\n  works?\n- Two")
    assert (
        written == "<p><strong>name</strong></p>\n<ul><li><strong>Question.</strong> Who works?</li><li>Two</li></ul>"
    )


@pytest.mark.parametrize("odd", ["one token", "encoder–decoder", "counts"])
def test_small_and_odd_runs_have_a_report(odd):
    assert "Can it be trusted?" in run_report(ODD[odd](), name="odd")


TOGETHER, CAUSES, CHANGED, PLACED = (
    "Which experts work together, and along which paths?",
    "What breaks when experts are gone?",
    "What changed since the earlier run?",
    "Where should experts live, on 8 devices?",
)


def headings(page: str) -> set[str]:
    return set(re.findall(r"<h2>(.+?)</h2>", page))


def test_a_report_has_a_section_for_each_view_that_applies(tmp_path: Path):
    shape = {"n_tasks": 4, "n_prompts_a_task": 12, "strength": 4.0, "n_layers": 3}
    trace = planted_trace(seed=5, specialists={"facts": (2, 5)}, **shape)
    run = save_trace(trace, tmp_path / "run")
    stored_knock_out(tmp_path / "run", p=0.01)
    earlier = planted_trace(seed=5, specialists={}, **shape)
    page = run_report(open_trace(run), name="run", before=earlier)
    assert {TOGETHER, CAUSES, CHANGED, PLACED} <= headings(page)
    for title in (
        "Strongest pairs of experts in one token",
        "How many paths tokens take",
        "Do neighbors go to the same expert?",
        "How much the routing changed",
        "Experts used otherwise",
        "The busiest device on unseen prompts",
        "Assignments dropped, by capacity factor and layer",
    ):
        assert f"<h3>{title}</h3>" in page
    assert "Loss without these experts: 1 set of 1 expert" in page
    assert "loses 0.310 nats a token" in page
    plain = run_report(trace, name="run")
    assert not {CAUSES, CHANGED} & headings(plain)
    assert {TOGETHER, PLACED} <= headings(plain)


def test_what_does_not_apply_is_left_out():
    by_task = run_report(task_moe_trace(seed=0), name="routes")
    assert not any(each.startswith(("What breaks", "Where should")) for each in headings(by_task))
    bare = run_report(counted(planted_trace(seed=0, n_tasks=3, n_prompts_a_task=2)), name="counts")
    assert not {TOGETHER, CAUSES, CHANGED, PLACED} & headings(bare)
    other = planted_trace(seed=1, n_tasks=2, n_prompts_a_task=2, n_experts=4, n_layers=1)
    assert CHANGED in headings(run_report(other, name="other", before=planted_trace(seed=0, n_tasks=2, n_layers=2)))


def test_the_report_of_a_view_says_what_was_looked_at():
    trace = planted_trace(seed=0, n_tasks=2, n_prompts_a_task=2)
    panel = Panel(title="t", figure=go.Figure(), reading="r", table=pd.DataFrame, definitions=("lift",), key="k")
    page = view_report(trace, [panel], name="run", question="Who?", looked_at={"tasks": "<a>"}, mode="dark")
    assert '<body class="dark">' in page
    assert re.search(r"<th>tasks</th><td>&lt;a&gt;</td>", page)
    assert "<strong>lift</strong>" in page


def test_the_command_writes_a_file(tmp_path: Path):
    save_trace(planted_trace(seed=0, n_tasks=2, n_prompts_a_task=3, n_layers=2), tmp_path / "run")
    out = tmp_path / "new" / "report.html"
    told = CliRunner().invoke(cli, ["report", str(tmp_path / "run"), "--out", str(out)])
    assert told.exit_code == 0, told.output
    assert "opens without a network" in told.output
    assert out.read_text("utf-8").startswith("<!DOCTYPE html>")
    (tmp_path / "file").write_text("")
    told = CliRunner().invoke(cli, ["report", str(tmp_path / "run"), "--out", str(tmp_path / "file" / "report.html")])
    assert told.exit_code == 2


@pytest.mark.parametrize(
    ("reading", "kept"),
    [
        ("A is busiest. Click a cell to look at it, or the name of a layer to select it.", "A is busiest."),
        ("Filled is beyond chance; click a dot to pick that expert.", "Filled is beyond chance."),
        ("“ Click here” brings most.", "“ Click here” brings most."),
    ],
)
def test_a_report_asks_for_no_click_and_has_its_title_once(reading, kept):
    panel = Panel(title="Load", reading=reading, key="load", table=pd.DataFrame, figure=None)
    page = report_page("Who works?", subtitle="", sections=[Section(title="Who works?", panels=(panel,))], facts={})
    assert f"<figcaption>{kept}</figcaption>" in page
    assert "<h2>Who works?</h2>" not in page
    assert "<h2>Load</h2>" in page
