"""Selections travel through URLs and are checked against a trace."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing import Focus, Selection, SelectionError, expert_name
from tests.traces import planted_trace, texts, trace_of

TRACE = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=2)


def test_a_selection_as_a_query():
    selection = Selection(
        tasks=("spans", "facts"), layers=("L01",), experts=(("L03", 7),), focus=Focus(prompt="spans-000", position=4)
    )
    query = {"tasks": "spans,facts", "layers": "L01", "experts": "L03.E7", "focus": "spans-000@4"}
    assert selection.to_query() == query
    assert Selection.from_query(query, TRACE) == selection
    assert Selection.from_query({"view": "map"}, TRACE) == Selection()


@given(names=st.lists(texts.filter(bool), min_size=1, max_size=4, unique=True), position=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_any_name_travels(names, position):
    trace = trace_of([[0, 1]] * len(names), prompts=range(len(names)), tasks=[*names, names[0]])
    selection = Selection(tasks=tuple(names), focus=Focus(prompt="p0", position=position))
    assert Selection.from_query(selection.to_query(), trace) == selection


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"tasks": "cooking"}, r"no task \['cooking'\]; it holds \['spans'"),
        ({"layers": "L99"}, r"no MoE layer \['L99'\]"),
        ({"experts": "L03.E8"}, r"no expert \['L03·E8'\]"),
        ({"experts": "L03"}, "'L03' names no expert"),
        ({"prompts": "spans-999"}, r"no prompt \['spans-999'\]"),
        ({"focus": "nobody@3"}, r"no prompt \['nobody'\]"),
    ],
)
def test_what_is_not_there_is_refused_or_dropped(query, message):
    with pytest.raises(SelectionError, match=message):
        Selection.from_query(query, TRACE)
    assert Selection.from_query(query | {"layers": "L01,L98"}, TRACE, missing="drop") == Selection(layers=("L01",))


def test_select_refuses_what_is_not_there():
    with pytest.raises(SelectionError, match="cooking"):
        TRACE.select(Selection(tasks=("cooking",)))


def test_experts_are_printed_with_their_layer():
    assert expert_name("L07", 12) == "L07·E12"
