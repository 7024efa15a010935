"""Where there is nothing to show, every view says so, calmly, and what would bring something."""

from __future__ import annotations

import json
import shutil

import pytest
from streamlit.util import calc_hash

from app.view_list import VIEWS
from tests.app.conftest import text_of

# Tasks of one kind, a prompt of another: nothing is both.
NOTHING = {"tasks": "facts", "prompts": "topics-001", "layout": "pca", "expert": "L02.E1", "group_a": "tasks=facts"}
# What each view says then; those that read the run as a whole, or need what this run lacks, say that as ever.
SAID = {
    "overview": "What stands out",
    "tasks": "Use of each expert against its overall use",
    "load": "No token of this selection was routed",
    "map": "24 experts by the lift of their tasks",
    "tokens": "No prompt is like that",
    "try_it": "The weights of this run are not where the app looks for models",
    "expert": "No token of this selection chose L02·E1",
    "groups": "is used differently by 6 prompts (A) and 30 prompts (the rest)",
    "together": "No pair of L00 can be tested",
    "unselected": "No token of this selection was routed",
    "adapters": "This run's model makes no adapters",
    "routes": "decide token by token",
    "compare": "Another run says what changed",
    "causes": "Nobody has taken experts out of this run's model yet",
    "placement": "this trace has 0",
}


@pytest.mark.parametrize("view", VIEWS, ids=[view.url for view in VIEWS])
def test_a_selection_that_leaves_nothing_is_said_in_every_view(open_app, view):
    page = open_app(view.url, NOTHING | {"run": "skewed"})
    assert not page.exception
    assert page.title[0].value == view.question
    assert SAID[view.url] in text_of(page)


@pytest.mark.parametrize("view", ["", "load", "tokens", "causes"])
def test_without_any_run_every_view_says_how_to_record_one(open_app, tmp_path, view):
    page = open_app(view, runs=tmp_path)
    assert not page.exception
    assert page.title[0].value == "No run to show yet"
    assert any("routescope record" in each.value for each in page.code)


def test_a_trace_of_another_version_is_named_and_what_to_do_with_it(open_app, planted, tmp_path):
    folder = tmp_path / "runs" / "newer"
    shutil.copytree(planted / "even", folder)
    header = json.loads((folder / "header.json").read_text("utf-8"))
    (folder / "header.json").write_text(json.dumps(header | {"format": "routescope-trace/9"}), "utf-8")
    page = open_app("load", {"run": "newer"}, runs=folder.parent)
    assert not page.exception
    assert "format version 9" in page.error[0].value
    # The picker stays, so that another run can be chosen.
    assert page.selectbox(key="choice_run").value == "newer"


def test_a_trace_that_is_deleted_while_it_is_open_ends_in_a_sentence(open_app, planted, tmp_path):
    folder = tmp_path / "runs" / "gone"
    shutil.copytree(planted / "even", folder)
    shutil.copytree(planted / "skewed", folder.parent / "there")
    page = open_app("load", {"run": "gone"}, runs=folder.parent)
    assert not page.exception
    shutil.rmtree(folder)
    for view in ("tokens", "together", "tasks"):
        page._page_hash = calc_hash(view)
        page.run()
        assert not page.exception, view
