from __future__ import annotations

import json
from urllib.parse import parse_qs

from tests.app.conftest import text_of
from tests.counted import counted
from tests.traces import planted_trace

A = {"run": "even", "group_a": "tasks=facts"}


def shelf(page) -> dict:
    (sent,) = (
        json.loads(each.proto.json)
        for each in page.get("bidi_component")
        if each.proto.component_name == "routescope.shelf"
    )
    return sent


def chips(page) -> list[str]:
    return [button.label for button in page.button if button.key and button.key.startswith("chip_")]


def test_changes_of_the_selection_are_undone_and_done_again(open_app):
    page = open_app("load", {"run": "even", "tasks": "spans,facts", "experts": "L02.E3"})
    assert page.button(key="undo").disabled
    page.button(key="chip_0").click().run()
    page.button(key="clear").click().run()
    assert chips(page) == []
    page.button(key="undo").click().run()
    assert chips(page) == ["facts ✕", "L02·E3 ✕"]
    page.button(key="undo").click().run()
    assert chips(page) == ["spans ✕", "facts ✕", "L02·E3 ✕"]
    assert page.button(key="undo").disabled
    page.button(key="redo").click().run()
    page.button(key="redo").click().run()
    assert chips(page) == []
    assert page.button(key="redo").disabled
    # A new change forgets what was undone.
    page.button(key="undo").click().run()
    page.button(key="chip_0").click().run()
    assert page.button(key="redo").disabled


def test_stepping_through_prompts_is_no_step_to_undo_token_by_token(open_app):
    page = open_app("tokens", {"run": "even", "focus": "facts-002@4"})
    page.button(key="next").click().run()
    assert not page.button(key="undo").disabled
    page.button(key="undo").click().run()
    assert page.query_params["focus"] == "facts-002@4"


def test_what_is_selected_can_be_kept_and_had_again(open_app):
    page = open_app("load", {"run": "even", "tasks": "spans,facts", "focus": "facts-002@4"})
    sent = shelf(page)
    assert parse_qs(sent["query"]) == {"tasks": ["spans,facts"]}
    assert sent["summary"] == "2 tasks"
    assert shelf(open_app("load", {"run": "even"}))["query"] == ""


def test_a_group_is_made_of_what_is_selected_and_stays_when_that_is_cleared(open_app):
    page = open_app("load", {"run": "even", "tasks": "facts"})
    page.button(key="make_A").click().run()
    page.button(key="clear").click().run()
    assert page.query_params["group_a"] == "tasks=facts"
    assert any(button.key == "group_A" for button in page.button)
    page.button(key="group_A").click().run()
    assert "group_a" not in page.query_params


def test_groups_are_compared_with_each_other_or_with_the_rest(open_app):
    page = open_app("groups", A)
    assert not page.exception
    said = text_of(page)
    # task facts owns expert 2 of the last layer
    assert "Most of all **L02·E2**" in said
    assert "6 prompts (A) and 30 prompts (the rest)" in said
    said = text_of(open_app("groups", A | {"group_b": "tasks=spans"}))
    assert "6 prompts (A) and 6 prompts (B)" in said


def test_groups_that_overlap_or_do_not_exist_are_said(open_app):
    page = open_app("groups", A | {"group_b": "tasks=facts,spans"})
    assert not page.exception
    assert "share none" in page.warning[0].value
    page = open_app("groups", {"run": "even", "group_a": "tasks=gone"})
    assert "No group is made yet" in text_of(page)
    assert "a group A of tasks or prompts that this run does not hold" in page.warning[0].value


def test_groups_are_chosen_on_the_page_itself(open_app):
    page = open_app("groups", {"run": "even"})
    one, other = (page.selectbox(key=f"pick_group_{name}") for name in "AB")
    assert (one.value, other.value) == ("nothing yet", "all other prompts")
    one.set_value("knowledge: 2 tasks").run()
    assert parse_qs(page.query_params["group_a"]) == {"tasks": ["facts,capitals"]}
    page.selectbox(key="pick_group_B").set_value("spans").run()
    assert "12 prompts (A) and 6 prompts (B)" in text_of(page)
    page.selectbox(key="pick_group_B").set_value("all other prompts").run()
    assert "group_b" not in page.query_params
    assert "12 prompts (A) and 24 prompts (the rest)" in text_of(page)
    # What was selected elsewhere has no name here, and stays.
    page = open_app("groups", {"run": "even", "group_a": "prompts=facts-000,spans-000"})
    assert page.selectbox(key="pick_group_A").value == "what was selected"
    page.selectbox(key="pick_group_B").set_value("topics").run()
    assert "2 prompts (A) and 6 prompts (B)" in text_of(page)


def test_within_a_task_only_prompts_of_both_sides_count(open_app):
    page = open_app(
        "groups", {"run": "even", "group_a": "prompts=facts-000,facts-001,spans-000", "compared": "the same task"}
    )
    assert not page.exception


def test_counts_alone_cannot_be_grouped(app_on):
    page = app_on(counted(planted_trace(seed=0, n_prompts_a_task=2)), "groups")
    assert "counts per task only" in text_of(page)
