from __future__ import annotations

import json
import shlex

import pandas as pd
import pytest

from app.views.expert.knock_out import effects_of, knock_out_reading
from app.views.expert.sentences import steps_reading
from routing import save_trace
from tests.app.conftest import charts_of, text_of
from tests.odd_runs import ODD
from tests.traces import planted_trace, trace_of


def test_the_page_of_a_specialist_tells_what_it_serves(open_app):
    page = open_app("expert", {"run": "even", "expert": "L02.E1"})
    assert not page.exception
    said = text_of(page)
    assert "L02·E1" in said
    assert "**L02·E1** serves sentiment most" in said
    assert "By task, beyond chance, it serves more sentiment" in said
    assert [metric.label for metric in page.metric][:2] == ["Load ÷ even share", "Share of the layer's work"]
    (contexts,) = (
        json.loads(each.proto.json)
        for each in page.get("bidi_component")
        if each.proto.component_name == "routescope.context_list"
    )
    assert len(contexts["rows"]) == 8
    for title in ("Works together with", "Comes next where it is selected", "Is selected where it comes next"):
        assert title in said


def test_without_a_name_the_page_is_that_of_the_selection_else_of_the_busiest(open_app):
    page = open_app("expert", {"run": "skewed", "experts": "L01.E4"})
    assert "## L01·E4" in text_of(page)
    # the planted run overloads expert 3 of layer L02
    assert "## L02·E3" in text_of(open_app("expert", {"run": "skewed"}))


def test_who_is_selected_where_an_expert_comes_next_is_a_share_of_tokens(app_on):
    # Top-2 of 6, then the runner-up. Expert 3 comes next in 40 tokens; each selects 1 and another.
    routed = [[1, other, 3] for other in (0, 2, 4, 5)] * 10 + [[0, 2, 4], [4, 5, 1], [5, 0, 2], [2, 4, 0]] * 10
    trace = trace_of(routed, n_experts=6, top_k=2, prompts=[row // 4 for row in range(80)], tasks=["a", "b"] * 10)
    page = app_on(trace, "expert", {"expert": "L00.E3"})
    assert not page.exception
    said = text_of(page).replace("\u00a0", " ")
    assert "100 % · " in said
    assert "L00·E1 most, in 100 % of the tokens where it comes next" in said


def test_stepping_goes_to_the_next_expert_and_keeps_the_selection(open_app):
    page = open_app("expert", {"run": "even", "expert": "L02.E1", "tasks": "facts"})
    page.button(key="expert_right").click().run()
    assert page.query_params["expert"] == "L02.E2"
    assert page.query_params["tasks"] == "facts"
    page.selectbox(key="page_layer").select("L00").run()
    assert page.query_params["expert"] == "L00.E2"
    page.button(key="select_expert").click().run()
    assert page.query_params["experts"] == "L00.E2"


@pytest.mark.parametrize("name", ["L99.E1", "nonsense", "L00.E999"])
def test_an_expert_that_is_not_there_is_said_and_another_shown(open_app, name):
    page = open_app("expert", {"run": "even", "expert": name})
    assert not page.exception
    assert page.warning


@pytest.mark.parametrize("odd", ODD)
def test_odd_runs_have_pages_too(app_on, odd):
    trace = ODD[odd]()
    assert not app_on(trace, "expert", {"expert": f"{trace.layers[-1]}.E0"}).exception


def test_experts_of_other_views_lead_here(open_app):
    for view, query in (("tasks", {}), ("tokens", {"focus": "facts-002@4"})):
        page = open_app(view, {"run": "even", "experts": "L02.E1"} | query)
        assert not page.exception
        links = [each.proto.query_string for each in page.get("page_link")]
        if view == "tasks":
            assert any("expert=L02.E1" in link for link in links)


def test_training_is_told_from_first_to_last():
    assert "From 10 % of its layer's work at step 0 to 30 % at step 200" in steps_reading(
        pd.Series({0: 0.1, 200: 0.3}), even=0.125
    ).replace("\u00a0", " ")


def test_knock_outs_of_an_expert_are_found_the_smallest_set_first():
    def effects(name: str, change: float) -> pd.DataFrame:
        table = pd.DataFrame(
            {"set": name, "group": ["all", "maths"], "n_prompts": 9, "nll_change": [change, 2 * change]}
        )
        return table.assign(low=0.0, high=1.0, random_mean=0.01, p_value=[0.2, 0.04])

    sets = pd.DataFrame(
        {
            "set": ["alone", "pair", "pair", "other", "alone"],
            "random": [0, 0, 0, 0, 1],
            "layer": "L01",
            "expert": [3, 3, 4, 5, 6],
        }
    )
    tables = {"sets": sets, "effects": pd.concat([effects("pair", 0.5), effects("alone", 0.3), effects("other", 0.1)])}
    found = effects_of([tables], layer="L01", expert=3)
    assert found["set"].tolist() == ["alone", "alone", "pair", "pair"]
    assert found["n_experts"].tolist() == [1, 1, 2, 2]
    said = knock_out_reading(found, name="L01·E3")
    assert "Without L01·E3 the targets cost +0.300 nats a token" in said
    assert "no more than chance (p = 0.200). Most hurt beyond chance: maths." in said
    # Expert 6 stands in a random set only.
    assert effects_of([tables], layer="L01", expert=6).empty
    assert effects_of([], layer="L01", expert=3).empty


def test_without_a_knock_out_the_command_is_there(open_app):
    page = open_app("expert", {"run": "even", "expert": "L02.E1"})
    assert any(shlex.split(each.value)[3:] == ["--experts", "L02·E1"] for each in page.code)


def test_commands_hold_for_a_run_whose_folder_has_a_blank_in_its_name(open_app, tmp_path):
    save_trace(planted_trace(seed=1, n_tasks=2, n_prompts_a_task=3, n_layers=2), tmp_path / "my run")
    for view, command in (("expert", "knock-out"), ("causes", "runner-up")):
        page = open_app(view, runs=tmp_path)
        (told,) = (each.value for each in page.code if each.value.startswith(f"routescope {command}"))
        assert shlex.split(told)[2] == str(tmp_path / "my run")


def test_a_snapshot_that_cannot_be_read_leaves_the_page_of_an_expert(open_app, tmp_path):
    for step in (100, 200, 300):
        save_trace(planted_trace(seed=step, n_tasks=2, n_prompts_a_task=3, n_layers=2), tmp_path / f"step-{step}")
    (tmp_path / "step-200" / "header.json").write_text("{")
    page = open_app("expert", {"run": "step-300"}, runs=tmp_path)
    assert not page.exception
    assert not page.error
    assert {"expert_run", "expert_steps"} <= set(charts_of(page))
    assert "Experts that are used alike" in text_of(page)
