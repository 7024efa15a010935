from __future__ import annotations

from dataclasses import replace

import pytest

from app.view_list import VIEWS
from routing import Focus, RoutingTrace, Selection
from tests.app.conftest import text_of
from tests.counted import counted
from tests.traces import encoder_decoder_trace, planted_trace, trace_of


def test_no_run_is_an_invitation(open_app, tmp_path):
    page = open_app(runs=tmp_path)
    assert not page.exception
    assert page.title[0].value == "No run to show yet"
    assert "make app" in page.code[0].value


def test_a_run_that_cannot_be_read_does_not_lock_the_app(open_app, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "header.json").write_text('{"format": "routescope-trace/99"}')
    page = open_app("load", runs=tmp_path)
    assert not page.exception
    assert "99" in page.error[0].value
    assert page.selectbox(key="choice_run").value == "broken"


def test_a_link_reproduces_the_selection(open_app):
    page = open_app("load", {"run": "skewed", "tasks": "spans,facts", "layers": "L02", "experts": "L02.E3"})
    assert [button.label for button in page.button if button.key.startswith("chip")] == [
        "spans ✕",
        "facts ✕",
        "L02 ✕",
        "L02·E3 ✕",
    ]
    assert page.selectbox(key="choice_run").value == "skewed"


@pytest.mark.parametrize(
    "query",
    [{"layers": "L99"}, {"experts": "nonsense"}, {"tasks": "absent,spans"}, {"prompts": "%00"}, {"focus": "x@y"}],
)
@pytest.mark.parametrize("view", ["load", "tasks"])
def test_a_bad_link_opens_what_there_is_and_says_what_is_not(open_app, view, query):
    page = open_app(view, {"run": "even", **query})
    assert not page.exception
    assert "asks for more than the run holds" in page.warning[0].value
    chips = [button.label for button in page.button if button.key.startswith("chip")]
    assert chips == (["spans ✕"] if "tasks" in query else [])


def test_a_link_to_a_run_that_is_not_here_says_so(open_app):
    page = open_app("load", {"run": "<b>gone</b>"})
    assert not page.exception
    assert "no run named" in page.warning[0].value
    assert "<b>" not in page.warning[0].value


def test_a_chip_takes_its_part_out_and_the_address_follows(open_app):
    page = open_app("load", {"run": "even", "tasks": "spans,facts", "experts": "L02.E3"})
    page.button(key="chip_0").click().run()
    assert page.query_params["tasks"] == "facts"
    page.button(key="clear").click().run()
    assert "tasks" not in page.query_params
    assert "experts" not in page.query_params
    assert page.query_params["run"] == "even"


def test_filters_write_the_address(open_app):
    page = open_app("load", {"run": "even"})
    pills = next(group for group in page.get("button_group") if group.key == "layers")
    pills.set_value(["L01"]).run()
    assert page.query_params["layers"] == "L01"


def test_tasks_are_filtered_by_type_and_kept_in_the_order_of_the_trace(open_app):
    page = open_app("load", {"run": "even", "tasks": "capitals"})
    pills = next(group for group in page.get("button_group") if group.key == "tasks_knowledge")
    assert pills.value == ["capitals"]
    pills.set_value(["capitals", "facts"]).run()
    assert page.query_params["tasks"] == "facts,capitals"


def test_what_a_view_needs_and_the_run_lacks_is_a_sentence(app_on):
    page = app_on(counted(planted_trace(seed=0)), "tokens")
    assert not page.exception
    assert "holds counts per task only" in page.info[0].value


def test_what_is_synthetic_says_so(app_on):
    trace = trace_of([[0, 1], [1, 2]])
    note = replace(trace.provenance, note="Synthetic: planted for a test.")
    page = app_on(RoutingTrace(replace(trace.storage, provenance=note)), "load")
    assert "synthetic data" in text_of(page)


def test_a_selection_survives_its_own_address():
    trace = encoder_decoder_trace()
    selection = Selection(
        tasks=("spans",),
        layers=("enc03",),
        experts=(("dec01", 3),),
        prompts=("p1",),
        focus=Focus(prompt="p2", position=4),
    )
    assert Selection.from_query(selection.to_query(), trace) == selection


def test_the_overview_is_found_by_its_name_as_well(open_app):
    page = open_app("overview", {"run": "skewed", "tasks": "facts"})
    assert not page.exception
    assert page.title[0].value == VIEWS[0].question
    assert page.query_params["run"] == "skewed"
    assert page.query_params["tasks"] == "facts"
