from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from analysis.load import expert_load
from analysis.stored_studies import studies_stamp
from app import cache
from app.definitions import definition_of, definitions
from app.runs import find_runs
from routing import Selection, save_trace
from tests.traces import planted_trace, trace_of

CALLS: list[str] = []


def tally(trace, *, of: int = 1) -> int:
    """How many tokens, times a number; remembers that it was asked."""
    CALLS.append(trace.digest)
    return trace.n_tokens * of


def tally_of_two(traces):
    """As `tally`, of the trace called now."""
    return tally(traces["now"])


def test_a_question_is_answered_once_for_each_trace_option_and_selection(tmp_path):
    save_trace(planted_trace(seed=1, n_prompts_a_task=2), tmp_path / "a")
    save_trace(planted_trace(seed=2, n_prompts_a_task=2), tmp_path / "b")
    a, b = (
        cache.trace_of(run)
        for run in sorted(find_runs([tmp_path]), key=lambda run: run.name)
        if str(tmp_path) in run.path
    )
    CALLS.clear()
    first = cache.answer(a, tally)
    assert cache.answer(a, tally) == first == a.n_tokens
    assert len(CALLS) == 1
    assert cache.answer(a, tally, of=2) == 2 * first
    cache.answer(b, tally)
    part = cache.answer(a, tally, within=Selection(tasks=("spans",)))
    assert part == first / 6
    assert len(CALLS) == 4
    # What is pointed at, rather than filtered, does not ask again.
    cache.answer(a, tally, within=Selection(tasks=("spans",), experts=(("L00", 1),)))
    assert len(CALLS) == 4


def test_tables_that_a_job_left_are_read_once_and_nobody_changes_those_of_another(tmp_path):
    left = {"one": pd.DataFrame({"task": ["a", "b"], "rate": [0.5, np.nan]}), "two": pd.DataFrame({"n": [1]})}
    left["one"].attrs["overall"] = {"p_value": 0.5}
    for name, table in left.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    mine = cache.tables_left_in(tmp_path)
    assert list(mine) == ["one", "two"]
    mine["one"]["rate"] = 0.0
    mine["two"].loc[0, "n"] = 9
    mine["one"].attrs["overall"]["p_value"] = 0.0
    # Whoever asks next sees what the job left, though the files are gone.
    for path in tmp_path.glob("*.parquet"):
        path.unlink()
    for name, table in cache.tables_left_in(tmp_path).items():
        pd.testing.assert_frame_equal(table, left[name], check_dtype=False)
        assert table.attrs == left[name].attrs


def test_what_lies_beside_a_trace_is_part_of_the_question(tmp_path):
    save_trace(trace_of([[0, 1]]), tmp_path / "a")
    trace = cache.trace_of(next(run for run in find_runs([tmp_path]) if str(tmp_path) in run.path))
    assert studies_stamp(trace) == studies_stamp(trace_of([[0, 1]])) == ()
    CALLS.clear()
    cache.answer(trace, tally, beside=studies_stamp(trace))
    folder = trace.path / "interventions" / "knock-out-abc"
    folder.mkdir(parents=True)
    (folder / "params.json").write_text("{}")
    # A study that is still being made says nothing yet.
    cache.answer(trace, tally, beside=studies_stamp(trace))
    assert len(CALLS) == 1
    (folder / "result.json").write_text("{}")
    (one,) = studies_stamp(trace)
    assert (one[0], one[2]) == ("knock-out-abc", 2)
    cache.answer(trace, tally, beside=studies_stamp(trace))
    assert len(CALLS) == 2
    # Enlarged, its result is written anew.
    (folder / "result.json").write_text('{"tables": []}')
    cache.answer(trace, tally, beside=studies_stamp(trace))
    cache.answer_over({"now": trace, "before": trace}, tally_of_two, beside=studies_stamp(trace))
    assert len(CALLS) == 4


def test_answers_cannot_be_written_into(tmp_path):
    save_trace(trace_of([[0, 1]]), tmp_path / "a")
    trace = cache.trace_of(next(run for run in find_runs([tmp_path]) if str(tmp_path) in run.path))
    load = cache.answer(trace, expert_load)
    with pytest.raises(ValueError, match="read-only"):
        load.values[0, 0] = 1


def test_the_versions_that_decide_are_part_of_the_question():
    trace = trace_of([[0, 1]])
    question = cache._question(tally, {"": trace}, None, {"of": 3})
    assert dict(question.versions).keys() >= {"numpy", "scikit-learn", "umap-learn", "numba"}
    assert hash(question) == hash(cache._question(tally, {"": trace}, None, {"of": 3}))
    assert question.traces[0][2] == trace.digest


def test_arrays_are_no_options():
    trace = trace_of([[0, 1]])
    with pytest.raises(TypeError, match="hash"):
        cache.answer(trace, tally, of=np.ones(2))


def test_definitions_come_from_the_one_document():
    known = definitions()
    for heading, section in known.items():
        assert section.text.startswith("**")
        assert definition_of(heading) == section
    assert definition_of("there is no such metric") is None


def dots(table: pd.DataFrame, *, title: str) -> go.Figure:
    CALLS.append(title)
    return go.Figure(
        go.Scatter(x=table.index, y=table["y"], name=table.attrs.get("name", "")), {"title": {"text": title}}
    )


def test_a_picture_is_drawn_anew_when_what_it_shows_has_changed_and_only_then():
    CALLS.clear()
    table = pd.DataFrame({"y": [0.1, 0.2]}, index=["a", "b"])
    first = cache.picture(dots, table, title="one")
    assert cache.picture(dots, table.copy(deep=False), title="one") is first
    assert first.layout.title.text == "one"
    for other in (table + 1e-15, table.rename(index={"b": "c"}), table.assign(y=np.float32(0.1)), table.iloc[::-1]):
        assert cache.picture(dots, other, title="one") is not first
    named = table.copy()
    named.attrs["name"] = "series"
    assert cache.picture(dots, named, title="one").data[0].name == "series"
    assert cache.picture(dots, table, title="two").layout.title.text == "two"
    assert len(CALLS) == 7


def test_a_function_that_others_may_share_a_name_with_draws_no_kept_picture():
    with pytest.raises((AttributeError, pickle.PicklingError)):
        cache.picture(lambda: go.Figure())
