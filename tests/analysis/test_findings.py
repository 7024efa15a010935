from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analysis.findings import Finding, findings
from analysis.findings.answers import right_answers
from analysis.findings.control import LEVEL, ranked
from analysis.findings.finding import Family, beyond
from analysis.findings.losing import close_calls
from analysis.findings.made_adapters import alike_adapters
from analysis.load import activation_rate
from analysis.specialists import specialists
from routing import RoutingTrace, Selection, open_trace, save_trace
from tests.adapter_traces import hyper_moe_trace, pha_trace
from tests.counted import counted
from tests.traces import TASKS, encoder_decoder_trace, facts_of, null_trace, planted_trace, random_trace, trace_of

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
        assert "stable across halves of the prompts" in each.sentence
        assert 1 < each.effect_low < each.effect < each.effect_high


def test_findings_are_ranked_and_their_links_lead_somewhere(planted):
    found = findings(planted)
    strengths = [each.strength for each in found]
    assert strengths == sorted(strengths, reverse=True)
    assert 0 <= min(strengths) <= max(strengths) <= 1
    for each in found:
        assert each.view in ("tasks", "load", "unselected", "together", "adapters", "causes", "compare")
        assert each.uncertainty
        assert 0 <= each.p_value <= each.q_value + 1e-12 <= LEVEL
        assert Selection.from_query(each.selection_query, planted).to_query() == each.selection_query


@pytest.mark.parametrize(
    ("planted_in", "first"),
    [
        ({"specialists": {"facts": (2, 5)}, "strength": 4.0}, ("specialist", "L02·E5 serves facts")),
        ({"specialists": {}, "popular": {(1, 4): 4.0}}, ("uneven", "L01·E4 takes")),
        ({"specialists": {}, "popular": {(1, 4): -30.0}}, ("idle", "1 expert of 8 in L01 (E4) never worked")),
        ({"specialists": {}, "popular": {(1, 4): -4.0}}, ("cold", "1 expert of 8 in L01 (E4) hardly works")),
    ],
)
def test_what_was_planted_alone_is_said_first(planted_in, first):
    found = findings(planted_trace(seed=5, n_tasks=6, n_prompts_a_task=16, **planted_in))
    assert (found[0].kind, found[0].sentence[: len(first[1])]) == first


def test_an_expert_of_a_type_of_task_takes_tasks_enough():
    names = [f"task {number}" for number in range(12)]
    types = {name: "extractive" if number < 5 else "other" for number, name in enumerate(names)}
    rng = np.random.default_rng(0)
    task = np.repeat(np.arange(12), 8)
    # top-1 of 6: tokens of the five extractive tasks choose E2 half of the time
    chosen = np.where((task < 5)[:, None] & (rng.random((96, 10)) < 0.5), 2, rng.integers(0, 6, (96, 10)))
    trace = trace_of(
        chosen.reshape(-1, 1),
        n_experts=6,
        prompts=np.repeat(np.arange(96), 10).tolist(),
        tasks=[names[number] for number in task],
        task_types=types,
    )
    (found,) = (each for each in findings(trace) if "extractive" in each.sentence)
    assert found.sentence.startswith("L00·E2 serves extractive tasks: ")
    assert "stable across halves of the prompts (r 0.9" in found.sentence
    # rate inside ½ + ½ · 1/6 = 7/12, outside 1/6, over all 5/12 · 7/12 + 7/12 · 1/6 = 0.34: 1.7 times
    assert found.effect == pytest.approx(1.7, abs=0.15)
    assert found.effect_low < found.effect < found.effect_high


def test_what_changed_since_an_earlier_run_of_the_same_prompts():
    shape = {"n_tasks": 4, "n_prompts_a_task": 12, "specialists": {}}
    before, after = planted_trace(seed=3, **shape), planted_trace(seed=4, popular={(2, 6): 1.5}, **shape)
    found = findings(after, before=before)
    changed = [each for each in found if each.kind == "changed"]
    assert changed[0].sentence.startswith("L02·E6 is chosen")
    assert "as often as before, by the same 48 prompts" in changed[0].sentence
    assert [each for each in findings(planted_trace(seed=4, **shape), before=before) if each.kind == "changed"] == []


def test_right_answers_are_compared_within_tasks():
    # task a is always right on E0, task b always wrong on E1: no difference within a task. In task c, E2 when right.
    rng = np.random.default_rng(1)
    task = np.repeat(["a", "b", "c"], [20, 20, 40])
    right = np.concatenate([np.ones(20), np.zeros(20), np.tile([1, 0], 20)])
    often = np.where(task == "a", 0, np.where(task == "b", 1, np.where(right == 1, 2, 3)))
    chosen = np.where(rng.random((80, 12)) < 0.4, often[:, None], rng.integers(0, 6, (80, 12)))
    prompts = pd.DataFrame({"prompt": [f"p{n}" for n in range(80)], "task": task, "task_type": "other", "score": right})
    trace = RoutingTrace.from_arrays(
        chosen.reshape(-1, 1, 1),
        layer_facts=facts_of(1, n_experts=6, top_k=1),
        tokens=pd.DataFrame({"prompt": np.repeat(np.arange(80), 12)}),
        prompts=prompts,
    )
    family = right_answers(trace, seed=0)
    said = {finding.sentence.split(" choose ")[1].split(" more")[0]: finding for _, finding in family.candidates}
    assert set(said) == {"L00·E2", "L00·E3"}
    assert "answered right choose L00·E2" in said["L00·E2"].sentence
    assert "answered wrong choose L00·E3" in said["L00·E3"].sentence
    assert said["L00·E2"].p_value < 1e-3
    rates = activation_rate(trace, by="prompt").values[:, 0, 2][40:]
    assert said["L00·E2"].effect == pytest.approx(rates[right[40:] == 1].mean() - rates[right[40:] == 0].mean())


def test_adapters_that_follow_from_something_are_said_and_random_ones_not():
    kinds = {each.kind for each in findings(pha_trace(seed=0, n_prompts_a_task=12))}
    assert "retrieval" in kinds
    nothing = findings(pha_trace(seed=0, planted=False, n_prompts_a_task=12))
    assert not {"retrieval", "relation"} & {each.kind for each in nothing}
    family = alike_adapters(hyper_moe_trace(seed=0, n_experts=8), seed=0)
    assert any("embeddings have alike generated adapters" in finding.sentence for _, finding in family.candidates)


def stored_knock_out(folder, *, n_random: int = 99, p: float = 0.01) -> None:
    """A study as `knock_out` leaves it."""
    folder = folder / "interventions" / "knock-out-abc"
    sets = pd.DataFrame(
        {"set": ["facts", "facts"], "random": [0, 1], "layer": ["L02", "L02"], "expert": [5, 1], "load": 0.1}
    )
    numbers = {
        "nll_change": 0.31,
        "low": 0.2,
        "high": 0.42,
        "random_mean": 0.03,
        "random_low": -0.01,
        "random_high": 0.08,
    }
    effects = pd.DataFrame(
        [
            {"set": "facts", "group": group, "n_prompts": 16, "p_value": p, "n_random": n_random} | numbers
            for group in ("all", "facts")
        ]
    )
    apart = {"inside": 0.31, "outside": 0.02, "difference": 0.29, "low": 0.18, "high": 0.4}
    dissociation = pd.DataFrame([{"set": "facts", "serves": "facts", "p_value": p, "n_random": n_random} | apart])
    tables = {"sets": sets, "effects": effects, "dissociation": dissociation}
    folder.mkdir(parents=True)
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    (folder / "params.json").write_text(json.dumps({"name": "knock-out", "params": {}}))
    (folder / "result.json").write_text(json.dumps({"tables": list(tables), "params": {}}))


def test_a_knock_out_beside_the_trace_is_told_beside_the_expert(tmp_path):
    planted_in = planted_trace(seed=5, n_tasks=6, n_prompts_a_task=16, specialists={"facts": (2, 5)}, strength=4.0)
    trace = open_trace(save_trace(planted_in, tmp_path / "run"))
    assert "nocking" not in findings(trace)[0].sentence
    stored_knock_out(tmp_path / "run", p=0.001)
    found = findings(trace)
    assert found[0].sentence.endswith(
        "Knocking it out costs facts 0.31 [0.20, 0.42] nats a token, matched random sets 0.03 [-0.01, 0.08]."
    )
    (alone,) = (each for each in found if each.kind == "knock_out")
    assert alone.sentence.startswith("facts needs the experts of “facts”")
    assert (alone.view, alone.selection_query) == ("causes", {"experts": "L02.E5"})


def test_drops_and_ties_are_said_beyond_a_floor():
    rng = np.random.default_rng(2)
    experts = rng.permuted(np.tile(np.arange(4), (400, 1)), axis=1)[:, :2]
    dropped = np.zeros((400, 2), dtype=bool)
    dropped[:, 1] = rng.random(400) < 0.2
    where = np.repeat(np.arange(20), 20).tolist()
    trace = trace_of(experts, n_experts=4, prompts=where, dropped=dropped)
    (lost,) = (each for each in findings(trace) if each.kind == "dropped")
    assert lost.effect == pytest.approx(dropped.mean())
    assert lost.effect_low < 0.1 < lost.effect_high + 0.02
    # top-1 with a runner-up: half of the tokens differ by nothing, the others by a quarter
    scores = np.where((np.arange(400) % 2 == 0)[:, None], [0.5, 0.5], [0.5, 0.25])
    tied = trace_of(experts, n_experts=4, top_k=1, prompts=where, scores=scores)
    close = close_calls(tied, seed=0).candidates
    assert not close or close[0][1].effect == pytest.approx(0.5)


def family_of(p_values, *, said=None, kind="kind"):
    said = range(len(p_values)) if said is None else said
    plain = {"kind": kind, "effect": 1.0, "unit": "x", "uncertainty": "u", "view": "tasks", "selection_query": {}}
    make = [
        (n, Finding(sentence=f"{kind} {n}", strength=1 / (2 + n), p_value=float(p_values[n]), **plain)) for n in said
    ]
    return Family(kind=kind, p_values=np.asarray(p_values, dtype=float), candidates=make)


def test_the_control_by_hand():
    # Simes of the families: min(3 · .001, 3/2 · .02, …) = .003, min(2 · .4, .9) = .8, .03; of three, Benjamini–Hochberg
    # at .05 takes .003 ≤ .0167 and .03 ≤ .0333. R / M = 2 / 3, so questions are called at q ≤ .0333:
    #   family a: q = .003, .03, .5 → two; family c: q = .03 → one. As they are written, q times 3 / 2.
    families = [family_of([0.001, 0.02, 0.5], kind="a"), family_of([0.4, 0.9], kind="b"), family_of([0.03], kind="c")]
    found = ranked(families)
    assert {(each.sentence, round(each.q_value, 6)) for each in found} == {
        ("a 0", 0.0045),
        ("a 1", 0.045),
        ("c 0", 0.045),
    }


def test_the_control_keeps_chance_at_its_level():
    rng = np.random.default_rng(0)
    runs = [[family_of(rng.random(size)) for size in (1, 1, 4, 8, 32, 128)] for _ in range(300)]
    share = np.mean([bool(ranked(families)) for families in runs])
    assert share == pytest.approx(LEVEL, abs=3 * np.sqrt(LEVEL * (1 - LEVEL) / 300))


def test_a_small_family_is_not_drowned_by_a_large_one():
    rng = np.random.default_rng(1)
    found = ranked([family_of(rng.random(5000), kind="many"), family_of([0.001], kind="one")])
    assert [each.sentence for each in found] == ["one 0"]


def test_questions_without_a_sentence_count_too():
    many = family_of(np.concatenate([[0.002], np.ones(99)]), said=[0])
    assert ranked([many]) == []
    assert ranked([family_of([0.002])])


@pytest.mark.slow
def test_silence_where_nothing_holds():
    traces = (null_trace(seed=seed, n_tasks=8, n_prompts_a_task=6, n_layers=2) for seed in range(50))
    # of 50 traces 2.5 are expected at 5 %, and more than 6 in one of a hundred such runs
    assert sum(bool(findings(trace)) for trace in traces) <= 6


@pytest.mark.parametrize("trace", [trace_of([[0, 1]]), encoder_decoder_trace(), random_trace(seed=0, n_prompts=3)])
def test_small_traces_do_not_boast(trace):
    assert [each.kind for each in findings(trace) if each.kind != "dropped"] == []


def test_an_empty_selection_has_no_findings():
    trace = trace_of([[0, 1]], tasks=("a", "b"))
    assert findings(trace.select(Selection(prompts=("p1",)))) == []


def test_counts_only_speaks_of_load(planted):
    found = findings(counted(planted, with_prompts=False))
    assert {each.kind for each in found} <= {"uneven", "idle", "task_type"}
    assert found[0].effect_low is None
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


def test_p_beyond_a_limit_by_hand():
    # interval of e^±1.96·0.5 around 2: spread ½ on the log scale, so 1.0 lies ln 2 / ½ = 1.386 deviations below
    low, high = 2 * np.exp(-0.98), 2 * np.exp(0.98)
    assert beyond(2.0, low, high, limit=1.0) == pytest.approx(0.0828, abs=1e-3)
    assert beyond(2.0, low, high, limit=2.0) == pytest.approx(0.5)
    assert np.isnan(beyond(2.0, np.nan, np.nan, limit=1.0))
