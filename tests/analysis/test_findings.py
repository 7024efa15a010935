from __future__ import annotations

import numpy as np
import pytest

from analysis.counts import assignment_counts
from analysis.findings import findings
from analysis.load import activation_rate
from analysis.specialists import specialists
from routing import Selection, open_trace, save_trace
from routing.memory import trace_from_counts
from tests.traces import TASKS, encoder_decoder_trace, null_trace, planted_trace, random_trace, trace_of

TYPES = {kind: number for number, kind in enumerate(dict.fromkeys(TASKS.values()))}


@pytest.fixture(scope="module")
def planted():
    """Each type owns an expert of the last layer, one expert is overloaded and one never chosen."""
    return planted_trace(
        seed=1,
        n_tasks=8,
        n_prompts_a_task=20,
        strength=2.5,
        specialists={task: (3, TYPES[kind]) for task, kind in TASKS.items()},
        popular={(1, 2): 2.0, (0, 3): -30.0},
        with_logits=False,
    )


def test_specialists_by_hand():
    # top-1 of 4; task a: 6 prompts on E0; task b: 18 prompts, two on each of E0 … → rates of E0: 1 and 1/9
    #   overall (6 + 2) / 24 = 1/3 → ratio 3
    experts = [[0]] * 6 + [[each] for each in [0, 1, 2, 3, 1, 2, 3, 1, 2, 0, 1, 2, 3, 1, 2, 3, 1, 2]]
    trace = trace_of(experts, n_experts=4, prompts=list(range(24)), tasks=["a"] * 6 + ["b"] * 18)
    table = specialists(trace)
    assert table[["task", "layer", "expert"]].values.tolist() == [["a", "L00", 0]]
    row = table.iloc[0]
    assert (row["rate"], row["overall"], row["ratio"]) == (1, pytest.approx(1 / 3), pytest.approx(3))
    assert 1 < row["ratio_low"] < 3 < row["ratio_high"]
    assert row["lift_first_half"] > 0.5


def test_an_effect_that_is_sure_but_small_is_not_listed():
    trace = planted_trace(seed=2, n_tasks=4, n_prompts_a_task=40, strength=0.8, with_logits=False)
    assert specialists(trace).empty
    assert not specialists(trace, smallest_lift=0.3).empty


def test_an_effect_of_half_of_the_prompts_is_not_listed():
    # every other prompt of task a goes to E0, so that the two halves disagree
    experts = [[0], [1]] * 10 + [[1], [2], [3]] * 10
    trace = trace_of(experts, n_experts=4, prompts=list(range(50)), tasks=["a"] * 20 + ["b"] * 30)
    assert specialists(trace).query("task == 'a'").empty


def test_what_was_planted_is_said(planted):
    found = findings(planted)
    kinds = {kind: [each for each in found if each.kind == kind] for kind in {each.kind for each in found}}
    assert set(kinds) >= {"specialist", "uneven", "idle", "information", "taxonomy"}
    assert kinds["uneven"][0].sentence.startswith("L01·E2 takes")
    assert "E3" in kinds["idle"][0].sentence
    assert "L03" in kinds["information"][0].sentence
    for each in kinds["specialist"]:
        task = next(task for task in TASKS if f"serves {task}:" in each.sentence)
        assert each.selection_query == {"experts": f"L03.E{TYPES[TASKS[task]]}"}


def test_findings_are_ranked_and_their_links_lead_somewhere(planted):
    found = findings(planted)
    strengths = [each.strength for each in found]
    assert strengths == sorted(strengths, reverse=True)
    assert 0 <= min(strengths) <= max(strengths) <= 1
    for each in found:
        assert each.view in ("tasks", "load", "map")
        assert each.uncertainty
        assert Selection.from_query(each.selection_query, planted).to_query() == each.selection_query


def test_silence_where_nothing_holds():
    traces = [null_trace(seed=seed, n_tasks=8, n_prompts_a_task=6, with_logits=False) for seed in range(10)]
    assert sum(bool(findings(trace)) for trace in traces) <= 1


@pytest.mark.parametrize("trace", [trace_of([[0, 1]]), encoder_decoder_trace(), random_trace(seed=0, n_prompts=3)])
def test_small_traces_do_not_boast(trace):
    assert [each.kind for each in findings(trace) if each.kind != "uneven"] == []


def test_an_empty_selection_has_no_findings():
    trace = trace_of([[0, 1]], tasks=("a", "b"))
    assert findings(trace.select(Selection(prompts=("p1",)))) == []


def test_counts_only_speaks_of_load(planted):
    counts = assignment_counts(planted, by="task")
    trace = trace_from_counts(
        counts.values, layer_facts=planted.layer_facts, tasks=planted.tasks, n_tokens=planted.n_tokens
    )
    found = findings(trace)
    assert {each.kind for each in found} <= {"uneven", "idle", "task_type"}
    assert found[0].sentence.startswith("L01·E2 takes 3")
    assert "counts only" in found[0].uncertainty


def test_findings_are_kept_beside_the_trace(planted, tmp_path):
    trace = open_trace(save_trace(planted, tmp_path / "run"))
    made = findings(trace)
    assert (tmp_path / "run" / "derived" / "findings").is_dir()
    assert findings(trace) == made
    assert np.isfinite([each.strength for each in made]).all()


def test_the_interval_agrees_with_redrawing_prompts(planted):
    row = specialists(planted).iloc[0]
    rates = activation_rate(planted, by="prompt").sel(layer=row["layer"], expert=row["expert"]).values
    inside = planted.prompts["task"].to_numpy() == row["task"]
    rng = np.random.default_rng(0)
    mine, others = (rng.choice(part, (4000, len(part))).mean(axis=1) for part in (rates[inside], rates[~inside]))
    ratio = mine / (inside.mean() * mine + (1 - inside.mean()) * others)
    assert [row["ratio_low"], row["ratio_high"]] == pytest.approx(np.quantile(ratio, [0.025, 0.975]), rel=0.02)
