from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.expert_bound import expert_bound
from analysis.packing import even_packs, packs_together, replicated
from analysis.placement_maps import engine_map
from analysis.placement_study import placement_what_if, prompt_halves
from analysis.placements import (
    Placement,
    balanced_placement,
    coactivated_placement,
    linear_placement,
    read_placement,
)
from routing.errors import SelectionError
from tests.traces import encoder_decoder_trace, facts_of, null_trace, planted_trace, random_trace, trace_of


def test_replicas_go_to_the_most_load_a_replica():
    # 12 3 1: the first becomes 6 6, then 6 > 3 again: 4 4 4 3 1.
    assert replicated(np.array([12.0, 3, 1]), n_slots=5).tolist() == [0, 0, 0, 1, 2]


def test_even_packs_by_hand():
    # 9 | 7 → then 3 to the second (10), which is full: 1 to the first.
    assert even_packs(np.array([9.0, 7, 3, 1]), n_packs=2).tolist() == [0, 1, 1, 0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=4, max_size=24), st.sampled_from([2, 4]))
def test_packs_are_full_and_never_far_from_even(weights, n_packs):
    weight = np.array(weights[: len(weights) // n_packs * n_packs])
    pack = even_packs(weight, n_packs=n_packs)
    assert (np.bincount(pack, minlength=n_packs) == len(weight) // n_packs).all()
    total = np.bincount(pack, weights=weight, minlength=n_packs)
    # The heaviest pack beats the lightest by no more than the heaviest thing, for as long as there is room.
    assert total.max() - total.min() <= len(weight) * weight.max() + 1e-6
    again = packs_together(np.zeros((len(weight),) * 2), load_E=weight, n_packs=n_packs, slack=0.0)
    assert again.tolist() == pack.tolist()


def test_experts_chosen_together_come_to_one_pack():
    together = np.zeros((4, 4))
    together[0, 3] = together[3, 0] = together[1, 2] = together[2, 1] = 10
    pack = packs_together(together, load_E=np.ones(4), n_packs=2, slack=0.0)
    assert pack[0] == pack[3] != pack[1] == pack[2]


def test_linear_shares_by_hand():
    trace = trace_of([[0], [1]], n_experts=4)
    placement = linear_placement(trace, n_devices=2)
    assert placement.slots_LS.tolist() == [[0, 1, 2, 3]]
    assert placement.shares(n_experts=4)[0].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    # Six experts on four devices: two places each, empty ones marked.
    uneven = linear_placement(trace_of([[0]], n_experts=6), n_devices=4)
    assert uneven.slots_LS.tolist() == [[0, 1, 2, -1, 3, 4, 5, -1]]


def test_a_busy_expert_is_replicated_and_its_load_halved():
    trace = trace_of([[0], [1]], n_experts=4)
    placement = balanced_placement(trace, np.array([[8.0, 2, 2, 2]]), n_devices=2, n_redundant=2)
    share = placement.shares(n_experts=4)[0]
    assert share.sum(axis=1).tolist() == [1, 1, 1, 1]
    load = np.array([8.0, 2, 2, 2]) @ share
    assert load.max() / load.mean() < 1.2
    assert placement.n_slots == 6


def test_groups_stay_on_a_node():
    facts = facts_of(1, n_experts=8, top_k=2, n_groups=4, top_groups=2)
    trace = trace_of([[0, 1]], n_experts=8, layer_facts=facts)
    placement = balanced_placement(trace, np.arange(8.0)[None], n_devices=4, n_nodes=2)
    node_of = {expert: slot // 4 for slot, expert in enumerate(placement.slots_LS[0].tolist())}
    assert all(node_of[2 * group] == node_of[2 * group + 1] for group in range(4))


def literal_measures(trace, placement, batch_size):
    """Every measure, pass by pass and token by token."""
    share = placement.shares(n_experts=trace.n_experts)
    from analysis.passes import passes_of

    passes = passes_of(trace, batch_size=batch_size)
    (chunk,) = trace.chunks(n_tokens=trace.n_tokens)
    key = passes.key(chunk)
    factors, sglang, vllm, largest, mean = [], [], [], 0.0, 0.0
    for number in range(len(passes.table)):
        tops, means = [], []
        for layer, facts in enumerate(trace.layer_facts):
            load = np.zeros(placement.n_devices)
            for token in np.flatnonzero(key == number):
                for expert in chunk.experts[token, layer, : facts.top_k]:
                    load += share[layer, expert]
            tops.append(load.max())
            means.append(load.mean())
        factors += [top / low for top, low in zip(tops, means, strict=True)]
        sglang.append(np.mean([(low + 1e-5) / (top + 1e-5) for top, low in zip(tops, means, strict=True)]))
        vllm.append(sum(means) / sum(tops))
        largest, mean = largest + sum(tops), mean + sum(means)
    nodes, leaving, pairs, tokens = 0, 0, 0, 0
    a_node = placement.n_slots // placement.n_nodes
    places = {}
    for prompt in range(trace.n_prompts):
        places[prompt] = sum(passes.batch_P[other] == passes.batch_P[prompt] for other in range(prompt))
    for token in range(trace.n_tokens):
        home = places[chunk.prompt[token]] % placement.n_devices // (placement.n_devices // placement.n_nodes)
        for layer, facts in enumerate(trace.layer_facts):
            chosen = chunk.experts[token, layer, : facts.top_k].tolist()
            on = [placement.slots_LS[layer].tolist().index(expert) // a_node for expert in chosen]
            nodes, tokens, pairs = nodes + len(set(on)), tokens + 1, pairs + len(on)
            leaving += sum(each != home for each in on)
    return {
        "device_max_over_mean": np.mean(factors),
        "balancedness_sglang": np.mean(sglang),
        "balancedness_vllm": np.mean(vllm),
        "slowdown_bound": largest / mean,
        "nodes_per_token": nodes / tokens,
        "leaving_share": leaving / pairs,
    }


def test_measures_are_those_of_a_slow_reading():
    from routing import Selection

    trace = planted_trace(seed=2, n_tasks=2, n_prompts_a_task=6, n_layers=2)
    study = placement_what_if(trace, n_devices=4, n_nodes=2, batch_size=3, n_random=0)
    judged = prompt_halves(trace)[1]
    half = trace.select(Selection(prompts=tuple(trace.prompts["prompt"].iloc[judged])))
    for name in ("linear", "balanced"):
        expected = literal_measures(half, study.placements[name], 3)
        row = study.table.loc[(name, "judged")]
        assert {key: row[key] for key in expected} == pytest.approx(expected)


def test_both_balancednesses_differ_where_layers_do():
    # One pass, two layers: device loads (4, 0) and (2, 2). SGLang: mean of 2/4 and 2/2; vLLM: (2 + 2)/(4 + 2).
    experts = [[[0], [0]], [[0], [0]], [[0], [1]], [[0], [1]]]
    trace = trace_of(experts * 2, n_experts=2, prompts=[0] * 4 + [1] * 4, tasks=("a", "a"))
    row = placement_what_if(trace, n_devices=2, n_random=0).table.loc[("linear", "judged")]
    assert row["balancedness_sglang"] == pytest.approx(0.75, abs=1e-4)
    assert row["balancedness_vllm"] == pytest.approx(4 / 6, abs=1e-4)
    assert row["slowdown_bound"] == pytest.approx(6 / 4)


def test_halves_hold_half_of_every_task():
    trace = planted_trace(seed=1, n_tasks=4, n_prompts_a_task=5)
    one, other = prompt_halves(trace, seed=3)
    assert sorted([*one, *other]) == list(range(20))
    for task in range(4):
        assert abs((trace.task_of_prompt[one] == task).sum() - (trace.task_of_prompt[other] == task).sum()) <= 1


def test_a_fitted_placement_helps_on_prompts_that_it_has_not_seen():
    trace = planted_trace(seed=4, specialists={}, popular={(1, 0): 2.5, (1, 1): 2.5}, n_prompts_a_task=20, n_layers=2)
    table = placement_what_if(trace, n_devices=4, batch_size=40).table["slowdown_bound"]
    assert table["balanced", "judged"] < table["linear", "judged"] - 0.1
    assert table["balanced", "judged"] < table["random", "judged"]


def test_nothing_is_gained_where_there_is_nothing_to_gain():
    trace = null_trace(seed=5, prompt_effect=0.0, n_prompts_a_task=30, n_layers=2)
    table = placement_what_if(trace, n_devices=4, n_nodes=2, batch_size=40, n_random=20).table
    assert table["slowdown_bound"]["balanced", "judged"] == pytest.approx(
        table["slowdown_bound"]["random", "judged"], abs=0.05
    )
    assert table["nodes_per_token"]["coactivated", "judged"] == pytest.approx(
        table["nodes_per_token"]["random", "judged"], abs=0.05
    )


def test_pairs_that_go_together_cross_less():
    rng = np.random.default_rng(0)
    partner = np.array([4, 5, 6, 7])
    first = rng.integers(0, 4, 600)
    experts = np.stack([first, np.where(rng.random(600) < 0.9, partner[first], rng.integers(4, 8, 600))], axis=1)
    trace = trace_of(experts, n_experts=8, prompts=np.repeat(np.arange(30), 20), tasks=("a",))
    study = placement_what_if(trace, n_devices=4, n_nodes=2)
    nodes = study.table["nodes_per_token"]
    assert nodes["linear", "judged"] == 2
    assert nodes["coactivated", "judged"] < 1.2
    assert study.device_load.sel(placement="coactivated").sum("device").values.tolist() == pytest.approx([1])


def test_a_placement_travels_as_json(tmp_path):
    trace = random_trace(seed=1)
    placement = linear_placement(trace, n_devices=4, n_nodes=2)
    (tmp_path / "map.json").write_text(json.dumps(placement.to_json()), "utf-8")
    again = read_placement(tmp_path / "map.json", trace)
    assert (again.name, again.n_devices, again.n_nodes) == ("linear", 4, 2)
    assert again.slots_LS.tolist() == placement.slots_LS.tolist()
    engine = read_placement({"physical_to_logical_map": [list(range(8))[::-1]] * 3}, trace, n_devices=2, name="mine")
    assert engine.slots_LS[0].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    study = placement_what_if(trace, n_devices=2, imported=[engine], n_random=0)
    assert ("mine", "judged") in study.table.index


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"physical_to_logical_map": [[0, 1]]},
        {"physical_to_logical_map": [[0, 1, 2, 3, 4, 5, 6, 6]] * 3, "n_devices": 2},
        {"physical_to_logical_map": [list(range(8))] * 3},
        {"physical_to_logical_map": [list(range(8))] * 3, "n_devices": 3},
        {"physical_to_logical": {"L00": list(range(8))}, "n_devices": 2},
        {"physical_to_logical_map": 7},
        {"physical_to_logical_map": ["01234567"] * 3, "n_devices": 2},
        {"physical_to_logical_map": [[*range(7), 7.5]] * 3, "n_devices": 2},
        {"physical_to_logical_map": [[*range(7), True]] * 3, "n_devices": 2},
        {"physical_to_logical_map": [[*range(8), -2]] * 3, "n_devices": 3},
        {"physical_to_logical_map": [[*range(8), 10**30]] * 3, "n_devices": 3},
        {"physical_to_logical_map": [[]] * 3, "n_devices": 2},
        {"physical_to_logical_map": [list(range(8)), list(range(8)), [*range(8), 0, 0]], "n_devices": 2},
        {"physical_to_logical_map": [list(range(8))] * 3, "n_devices": "two"},
        {"physical_to_logical_map": [list(range(8))] * 3, "n_devices": 0},
        {"physical_to_logical_map": [list(range(8))] * 3, "n_devices": 2.0},
        {"physical_to_logical_map": [list(range(8))] * 3, "n_devices": 2, "n_nodes": -1},
    ],
)
def test_maps_that_do_not_fit_are_refused(given):
    with pytest.raises(SelectionError) as error:
        read_placement(given, random_trace(seed=1))
    assert str(error.value).count(". ") >= 1


def test_layouts_that_cannot_be_are_refused(tmp_path):
    trace = random_trace(seed=1)
    for options in ({"n_devices": 0}, {"n_devices": 3, "n_nodes": 2}):
        with pytest.raises(SelectionError, match="cannot be laid out"):
            placement_what_if(trace, **options)
    with pytest.raises(SelectionError, match="do not divide"):
        coactivated_placement(trace, np.ones((3, 8)), together_LEE=np.ones((3, 8, 8)), n_devices=3, n_nodes=3)
    (tmp_path / "x.json").write_text("[1]", "utf-8")
    for path in ("x.json", "none.json"):
        with pytest.raises(SelectionError):
            read_placement(tmp_path / path, trace)


def test_stacks_of_different_size_are_placed():
    study = placement_what_if(encoder_decoder_trace(), n_devices=2, n_nodes=2, n_random=2)
    assert isinstance(study.placements["linear"], Placement)
    assert np.isfinite(study.table["slowdown_bound"]).all()
    assert isinstance(study.table, pd.DataFrame)


def test_an_engine_counts_layers_without_experts_too():
    # Layers 1 and 2 of a model whose layer 0 is dense.
    trace = trace_of([[[0], [1]]] * 4, n_experts=4, layer_facts=facts_of(2, n_experts=4, top_k=1, first=1))
    placement = balanced_placement(trace, np.array([[4.0, 1, 1, 1], [1, 1, 1, 4.0]]), n_devices=3)
    written = engine_map(placement.slots_LS, trace.layer_facts)
    assert list(written) == ["physical_to_logical_map"]
    rows = written["physical_to_logical_map"]
    assert rows[0] == [0, 1, 2, 3, 0, 1]
    assert rows[1:] == placement.slots_LS.tolist()
    again = read_placement(json.loads(json.dumps(written)), trace, n_devices=3)
    assert again.slots_LS.tolist() == placement.slots_LS.tolist()


def test_an_engine_has_no_empty_slots():
    trace = trace_of([[0]], n_experts=6)
    with pytest.raises(SelectionError, match="one table"):
        engine_map(linear_placement(trace, n_devices=4).slots_LS, trace.layer_facts)
    with pytest.raises(SelectionError, match="one table"):
        both = encoder_decoder_trace()
        engine_map(np.zeros((both.n_layers, 8), int), both.layer_facts)


def test_saved_time_is_against_linear_on_the_same_batches():
    trace = planted_trace(seed=4, specialists={}, popular={(1, 0): 2.5, (1, 1): 2.5}, n_prompts_a_task=20, n_layers=2)
    table = placement_what_if(trace, n_devices=4, n_nodes=2, batch_size=8).table
    judged = table.xs("judged", level="part")
    bound = judged["slowdown_bound"]
    assert judged["saved_time"].to_dict() == pytest.approx((1 - bound / bound["linear"]).to_dict(), abs=1e-9)
    assert judged.loc["linear", ["saved_time_low", "saved_time_high"]].tolist() == [0, 0]
    assert judged.loc["balanced", "saved_time_low"] > 0.1
    assert judged.loc["balanced", "saved_time_low"] < judged.loc["balanced", "saved_time"]
    sends = judged["sends_per_token"]
    assert judged.loc["balanced", "saved_sends"] == pytest.approx(1 - sends["balanced"] / sends["linear"])
    assert table.attrs["n_batches"] == 8


def test_where_there_is_nothing_to_save_the_interval_holds_zero():
    trace = null_trace(seed=5, prompt_effect=0.0, n_prompts_a_task=30, n_layers=2)
    judged = placement_what_if(trace, n_devices=4, batch_size=8, n_random=2).table.xs("judged", level="part")
    assert judged.loc["balanced", "saved_time_low"] < 0 < judged.loc["balanced", "saved_time_high"]
    assert np.isnan(judged["saved_sends"]).all()  # One node: nothing is sent, nothing saved.


def test_an_expert_with_more_than_a_device_bounds_every_placement():
    # Experts of eight assignments: 0 has five, so one of two devices does 5/8 at least, 1.25 times the mean.
    trace = trace_of([[0]] * 5 + [[1], [2], [3]], n_experts=4)
    bound = expert_bound(trace, linear_placement(trace, n_devices=2)).iloc[0]
    assert (bound["expert"], bound["n_replicas"], bound["n_needed"]) == (0, 1, 2)
    assert bound["share"] == pytest.approx(5 / 8)
    assert bound["bound"] == pytest.approx(1.25)
    load = np.array([[5.0, 1, 1, 1]])
    spread = balanced_placement(trace, load, n_devices=2, n_redundant=2)
    assert expert_bound(trace, spread).iloc[0]["bound"] <= 1
