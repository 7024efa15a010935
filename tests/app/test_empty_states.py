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


@pytest.mark.parametrize("view", [view.url for view in VIEWS])
def test_a_selection_that_leaves_nothing_is_said_in_every_view(open_app, view):
    page = open_app(view, NOTHING | {"run": "skewed"})
    assert not page.exception
    assert page.title[0].value in {each.question for each in VIEWS}
    assert len(text_of(page)) > 100


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
