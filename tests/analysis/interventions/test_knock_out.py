"""Knock-outs: what is planted is found, what cannot matter does not, and a stopped study goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedModel

from analysis.interventions import Bench, Progress, knock_out, matched_sets, serving_sets
from analysis.interventions.effects import effects, rank_p_value
from analysis.stored_studies import stored_studies
from hooks import Recorder, find_sites
from hooks.knock_out import experts_knocked_out
from hooks.proof import prove_sites
from routing import RecordingError, RoutingTrace, SelectionError, TaskSet, open_trace
from tests.analysis.interventions.makers import bench_of, own_words
from tests.hooks.forwards import n_hooks
from tests.tiny import byte_tokenizer, tiny_model
from tests.tiny_systems import tiny_system
from tests.traces import TASKS, planted_trace

TYPES = {"choice": "classification", "span": "extractive", "text": "knowledge"}


def traced(model: PreTrainedModel, tasks: TaskSet, out: Path) -> RoutingTrace:
    with Recorder(model, byte_tokenizer(), out=out) as recorder:
        recorder.run(tasks, max_new_tokens=0)
    return open_trace(out)


def routed_apart() -> PreTrainedModel:
    """Task-level MoE in which the first layer gives each task an expert of its own."""
    model = tiny_system("task_moe", num_layer_experts=6)
    unit = model.router.units[0]
    with torch.no_grad():
        # Logits that are the same for all tasks but for one large entry of each task's own.
        embedding = torch.eye(3, 6)
        model.task_embedding.weight.copy_(embedding)
        unit.linear1.weight.copy_(torch.eye(5, 6) * 4)
        unit.linear1.bias.zero_()
        unit.linear2.weight.copy_(torch.eye(6, 5) * 4)
        unit.linear2.bias.zero_()
        for block in model.routed_layers[0].blocks:
            for parameter in block.parameters():
                parameter.mul_(1.5)
    return model.eval()


def test_a_planted_dissociation_is_found(tmp_path: Path) -> None:
    model = routed_apart()
    tasks = own_words(model, TYPES)
    trace = traced(model, tasks, tmp_path / "trace")
    groups = list(TYPES.values())[:2]
    sets = serving_sets(trace, groups, n_experts=1)
    assert sets == {"classification": [("enc00", 0)], "extractive": [("enc00", 1)]}
    found = knock_out(trace, bench_of(model, tasks), sets=sets, serves={each: each for each in groups}, n_random=5)
    table = found.effects.set_index(["set", "group"])
    for one, other in (groups, groups[::-1]):
        assert table.loc[(one, one), "nll_change"] > 0.2
        assert table.loc[(one, one), "low"] > 0
        assert table.loc[(one, other), "nll_change"] == 0
    inside = found.dissociation.set_index("set")
    assert (inside["difference"] > 0.2).all()
    # Of an expert that one task alone uses, no other set of the layer does that task any harm.
    assert (inside["n_random"] == 5).all()
    assert (table["random_high"].loc[[(each, each) for each in groups]] <= 0).all()
    (double,) = found.double.to_dict("records")
    assert double["interaction"] == pytest.approx(
        double["a_on_a"] - double["a_on_b"] + double["b_on_b"] - double["b_on_a"]
    )
    assert double["low"] > 0
    assert found.sets.query("random > 0")["expert"].isin([0, 1]).sum() < len(found.sets)


def test_an_expert_that_is_the_copy_of_its_successor_does_not_matter(tmp_path: Path) -> None:
    model = routed_apart()
    tasks = own_words(model, TYPES, n_prompts=2)
    layer = model.routed_layers[0]
    for block in layer.blocks[1:]:
        block.load_state_dict(layer.blocks[0].state_dict())
    trace = traced(model, tasks, tmp_path / "trace")
    found = knock_out(trace, bench_of(model, tasks), sets={"copy": [("enc00", 0)]}, n_random=3, over="task")
    assert found.effects["nll_change"].abs().max() < 1e-5
    assert len(found.dissociation) == len(found.double) == 0


@torch.no_grad()
def test_without_an_expert_the_model_is_the_one_that_never_had_it() -> None:
    model = tiny_model("olmoe")
    ids = torch.randint(2, 250, (3, 7), generator=torch.Generator().manual_seed(0))
    sites = prove_sites(model, find_sites(model), lambda: model(ids))
    gone = {"L00": [2], "L01": [0, 5], "L02": [7]}
    kept = [[e for e in range(8) if e not in gone[f"L{layer:02d}"]][:6] for layer in range(3)]
    more = [(f"L{layer:02d}", e) for layer in range(3) for e in range(8) if e not in kept[layer]]
    config = OlmoeConfig(**{**model.config.to_dict(), "num_experts": 6})
    smaller = OlmoeForCausalLM(config).eval()
    weights = model.state_dict()
    for layer, experts in enumerate(kept):
        for name, value in weights.items():
            if name.startswith(f"model.layers.{layer}.mlp.gate") or f"layers.{layer}.mlp.experts." in name:
                weights[name] = value[experts]
    smaller.load_state_dict(weights)
    before = n_hooks(model)
    with experts_knocked_out(model, sites, more):
        without = model(ids).logits
    torch.testing.assert_close(without, smaller(ids).logits, rtol=1e-4, atol=1e-5)
    assert n_hooks(model) == before
    assert not torch.equal(model(ids).logits, without)


@torch.no_grad()
@pytest.mark.parametrize("family", ["deepseek_v3", "gpt_oss", "switch"])
def test_biases_groups_and_capacity_do_not_bring_an_expert_back(family: str) -> None:
    model = tiny_model(family)
    given = {"input_ids": torch.randint(2, 250, (3, 7), generator=torch.Generator().manual_seed(0))}
    if family == "switch":
        given["decoder_input_ids"] = given["input_ids"]
    sites = prove_sites(model, find_sites(model), lambda: model(**given))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    plain = model(**given).logits
    with experts_knocked_out(model, sites, [(site.facts.label, e) for site in sites for e in (1, 3)]):
        without = model(**given).logits
    assert without.isfinite().all()
    assert not torch.equal(plain, without)
    assert torch.equal(model(**given).logits, plain)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("system", ["hypermoe", "hypermoe_switch", "task_moe"])
def test_our_systems_run_without_experts(system: str, tmp_path: Path) -> None:
    model = tiny_system(system)
    tasks = own_words(model, {"choice": "classification", "span": "extractive"}, n_prompts=2)
    trace = traced(model, tasks, tmp_path / "trace")
    bench = bench_of(model, tasks)
    layer = trace.layers[-1]
    found = knock_out(trace, bench, sets={"one": [(layer, 1)]}, n_random=2)
    assert found.effects["nll_change"].notna().all()
    assert found.sets["random"].max() == 2


def test_what_cannot_be_knocked_out_is_refused_by_name(tmp_path: Path) -> None:
    model = tiny_system("pha")
    tasks = own_words(model, {"choice": "classification", "span": "extractive", "text": "other"}, n_prompts=1)
    trace = traced(model, tasks, tmp_path / "trace")
    with pytest.raises(RecordingError, match="prototypes are retrieved, not run"):
        knock_out(trace, bench_of(model, tasks), sets={"one": [("retriever", 1)]}, n_random=1)
    model = tiny_model("olmoe")
    sites = prove_sites(model, find_sites(model), lambda: model(torch.tensor([[5, 6, 7]])))
    for experts, message in (
        ([("L09", 0)], "no router 'L09'"),
        ([("L00", 8)], "experts 0 to 7, not 8"),
        ([("L00", e) for e in range(7)], "a token needs 2"),
    ):
        with pytest.raises(RecordingError, match=message), experts_knocked_out(model, sites, experts):
            pass


def test_a_stopped_study_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_system("task_moe", num_layer_experts=4)
    tasks = own_words(model, TYPES, n_prompts=2)
    trace = traced(model, tasks, tmp_path / "trace")
    calls: list[str] = []
    measured = Bench.measured

    def counted(self: Bench, **options: Any) -> pd.DataFrame:
        calls.append("pass")
        return measured(self, **options)

    monkeypatch.setattr(Bench, "measured", counted)

    def stop(done: Progress) -> None:
        if done.n_done == 3:
            raise KeyboardInterrupt

    study = {"sets": {"one": [("enc00", 1)], "two": [("dec01", 0)]}, "n_random": 3}
    with pytest.raises(KeyboardInterrupt):
        knock_out(trace, bench_of(model, tasks), **study, progress=stop)
    assert len(calls) == 3
    seen: list[Progress] = []
    whole = knock_out(trace, bench_of(model, tasks), **study, progress=seen.append)
    n_total = seen[-1].n_total
    assert len(calls) == n_total
    assert [each.n_done for each in seen] == list(range(1, n_total + 1))
    again = knock_out(trace, bench_of(model, tasks), **study)
    assert len(calls) == n_total
    pd.testing.assert_frame_equal(whole.effects, again.effects)
    (stored,) = stored_studies(trace)
    assert (stored.name, stored.path) == ("knock-out", whole.path)
    assert stored.params["over"] == "task_type"
    pd.testing.assert_frame_equal(stored.tables["effects"], whole.effects)
    # A unit that was cut off is measured again; another model has another folder.
    unit = sorted((whole.path / "units").glob("*.parquet"))[1]
    unit.write_bytes(unit.read_bytes()[:40])
    pd.testing.assert_frame_equal(knock_out(trace, bench_of(model, tasks), **study).effects, whole.effects)
    other = knock_out(trace, bench_of(tiny_system("task_moe", num_layer_experts=4, seed=3), tasks), **study)
    assert other.path != whole.path
    assert {each.name for each in (trace.path / "interventions").iterdir()} == {other.path.name, whole.path.name}


def test_random_sets_match_layers_numbers_and_load(tmp_path: Path) -> None:
    import xarray as xr

    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(16), size=2)
    load = xr.DataArray(shares, dims=("layer", "expert"), coords={"layer": ["L00", "L01"], "expert": np.arange(16)})
    chosen = [("L00", int(shares[0].argmax())), ("L01", 3), ("L01", 5)]
    found = matched_sets(load, chosen, n_sets=20, seed=1)
    assert len(set(found)) == 20
    assert found == matched_sets(load, chosen, n_sets=20, seed=1)
    for each in found:
        assert [layer for layer, _ in each] == ["L00", "L01", "L01"]
        assert not set(each) & set(chosen)
    everything = [pair for pair in found]
    distance = [abs(shares[1][[b, c]].sum() - shares[1][[3, 5]].sum()) for _, (_, b), (_, c) in everything]
    anything = [abs(shares[1][[b, c]].sum() - shares[1][[3, 5]].sum()) for b in range(16) for c in range(b)]
    assert np.mean(distance) < np.mean(anything)
    with pytest.raises(SelectionError, match="no expert 16"):
        matched_sets(load, [("L00", 16)], n_sets=2)
    with pytest.raises(SelectionError, match="too few for a random set"):
        matched_sets(load, [("L00", e) for e in range(9)], n_sets=2)


def test_one_expert_has_as_many_random_ones_as_are_asked_for() -> None:
    import xarray as xr

    labels = ["enc00", "enc01", "enc02", "dec00"]
    shares = np.random.default_rng(0).dirichlet(np.ones(8), size=4)
    shares[0, 6:] = np.nan  # a smaller layer has no room for the experts of a larger one
    load = xr.DataArray(shares, dims=("layer", "expert"), coords={"layer": labels, "expert": np.arange(8)})
    # half of the other seven are near in load, and enough for three
    few = matched_sets(load, [("enc01", 2)], n_sets=3)
    nearest = np.argsort(np.abs(shares[1] - shares[1, 2]))[1:5]
    assert len(few) == 3
    assert {expert for ((_, expert),) in few} <= set(nearest.tolist())
    many = matched_sets(load, [("enc01", 2)], n_sets=12)
    assert len(set(many)) == 12
    assert {one for one in many[:7]} == {(("enc01", expert),) for expert in range(8) if expert != 2}
    order = np.argsort(np.abs(shares[2] - shares[1, 2]))[:5]
    assert many[7:] == [(("enc02", int(expert)),) for expert in order]
    # no other stack, and no smaller layer, stands in
    assert len(matched_sets(load, [("enc01", 2)], n_sets=50)) == 15
    assert len(matched_sets(load, [("dec00", 0)], n_sets=50)) == 7


def test_three_experts_of_small_layers_have_as_many_random_sets_as_are_asked_for() -> None:
    import xarray as xr

    labels = ["enc00", "enc01", "enc02", "enc03", "dec00", "dec01"]
    shares = np.random.default_rng(0).dirichlet(np.ones(3), size=6)
    load = xr.DataArray(shares, dims=("layer", "expert"), coords={"layer": labels, "expert": np.arange(3)})
    chosen = [("enc00", 1), ("enc02", 0), ("dec01", 2)]
    found = matched_sets(load, chosen, n_sets=60)
    assert len(set(found)) == 60
    # Its own layers allow 2 × 2 × 2; then as many layers of each stack.
    assert all([layer for layer, _ in each] == ["enc00", "enc02", "dec01"] for each in found[:8])
    for each in found:
        assert not set(each) & set(chosen)
        assert sorted(layer[:3] for layer, _ in each) == ["dec", "enc", "enc"]
        assert len({layer for layer, _ in each}) == 3
    for fewer in (3, 8, 9, 30):
        assert matched_sets(load, chosen, n_sets=fewer) == found[:fewer]


def test_more_random_sets_begin_with_the_fewer() -> None:
    import xarray as xr

    shares = np.random.default_rng(1).dirichlet(np.ones(8), size=3)
    load = xr.DataArray(shares, dims=("layer", "expert"), coords={"layer": ["L0", "L1", "L2"], "expert": np.arange(8)})
    for chosen in ([("L0", 1)], [("L0", 1), ("L1", 2)], [("L0", 1), ("L0", 2), ("L2", 0)]):
        most = matched_sets(load, chosen, n_sets=70, seed=3)
        for fewer in (1, 4, 11, 16, 40):
            assert matched_sets(load, chosen, n_sets=fewer, seed=3) == most[:fewer]


def test_a_study_is_enlarged_without_measuring_anything_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_system("task_moe", num_layer_experts=6)
    tasks = own_words(model, TYPES, n_prompts=2)
    trace = traced(model, tasks, tmp_path / "trace")
    passes: list[str] = []
    measured = Bench.measured
    monkeypatch.setattr(Bench, "measured", lambda self, **options: passes.append("") or measured(self, **options))
    sets = {"one": [("enc00", 1)], "two": [("enc00", 0), ("dec01", 0)]}
    small = knock_out(trace, bench_of(model, tasks), sets=sets, n_random=3)
    assert len(passes) == 1 + 2 * 4
    large = knock_out(trace, bench_of(model, tasks), sets=sets, n_random=9)
    assert len(passes) == 1 + 2 * 10
    assert large.path == small.path
    assert (large.effects["n_random"] == 9).all()
    kept = large.sets.query("random <= 3").reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, small.sets)
    # The same in one go, elsewhere; and asked again with fewer, it keeps what it has.
    whole = knock_out(trace, bench_of(model, tasks), sets=sets, n_random=9, beside=tmp_path / "elsewhere")
    pd.testing.assert_frame_equal(whole.effects, large.effects)
    n_passes = len(passes)
    again = knock_out(trace, bench_of(model, tasks), sets=sets, n_random=2)
    assert len(passes) == n_passes
    pd.testing.assert_frame_equal(again.effects, large.effects)
    (stored,) = stored_studies(trace)
    assert stored.params["n_random"] == 9
    # p is the rank among all: (1 + those that harm as much) / (1 + all).
    of_all = large.effects.query("set == 'one' and group == 'all'").iloc[0]
    assert of_all["p_value"] * 10 == pytest.approx(round(of_all["p_value"] * 10))


def test_experts_are_ranked_over_prompts_or_over_tasks() -> None:
    names = list(TASKS)[:8]
    kinds = pd.Series({name: kind for name, kind in TASKS.items() if name in names})
    shared = str(kinds.value_counts().index[0])
    mine = kinds.index[kinds == shared]
    trace = planted_trace(seed=0, n_tasks=8, n_layers=2, specialists=dict.fromkeys(mine, (0, 1)))
    for ranked_by in ("z", "r"):
        found = serving_sets(trace, [shared], ranked_by=ranked_by, n_experts=2)[shared]
        assert (len(found), found[0]) == (2, ("L00", 1))
    with pytest.raises(SelectionError, match="ranked by 'z'"):
        serving_sets(trace, ["facts"], over="task", ranked_by="r")


def test_effects_by_hand() -> None:
    before = pd.DataFrame(
        {
            "prompt": list("abcd"),
            "task": list("xxyy"),
            "task_type": ["t"] * 4,
            "nll": [1.0, 2, 3, 4],
            "score": [1.0] * 4,
        }
    )
    after = before.assign(nll=[2.0, 3, 3, 4], score=[0.0, 1, 1, 1])
    table = effects(before, after, over="task").set_index("group")
    assert table.loc["x", ["nll_change", "low", "high", "score_change"]].tolist() == [1, 1, 1, -0.5]
    assert table.loc["y", "nll_change"] == 0
    assert table.loc["all", "nll_change"] == 0.5
    assert rank_p_value(3, [1, 2, 3, 4]) == pytest.approx(3 / 5)
    with pytest.raises(SelectionError, match="nothing can be paired"):
        effects(before, after.iloc[:2], over="task")


def test_the_bench_measures_what_an_evaluation_scores(tmp_path: Path) -> None:
    from tests.hooks.test_evaluation import TASKS

    model = tiny_model("olmoe")
    with Recorder(model, byte_tokenizer(), out=tmp_path / "trace") as recorder:
        table = recorder.run(TASKS).table.set_index("prompt")
    bench = bench_of(model, TASKS, generates=True)
    measured = bench.measured().set_index("prompt")
    assert "text-1" not in measured.index  # neither target nor options
    np.testing.assert_array_equal(measured["score"], table.loc[measured.index, "score"])
    tokenizer = byte_tokenizer()
    for prompt in TASKS.prompts[:-1]:
        ids, target = tokenizer(prompt.text)["input_ids"], tokenizer(prompt.target)["input_ids"]
        with torch.no_grad():
            likely = model(torch.tensor([[*ids, *target]])).logits[0].log_softmax(-1)
        expected = -np.mean([float(likely[len(ids) - 1 + place, each]) for place, each in enumerate(target)])
        assert measured.loc[prompt.id, "nll"] == pytest.approx(expected, rel=1e-4)
    # The loss alone is the same loss, and another study.
    plain = bench_of(model, TASKS, scores=False)
    alone = plain.measured().set_index("prompt")
    np.testing.assert_allclose(alone["nll"], measured.loc[alone.index, "nll"], rtol=1e-4)
    assert alone["score"].isna().all()
    assert plain.identity() != bench_of(model, TASKS).identity()


def test_scores_are_held_up_to_random_sets_as_well(tmp_path: Path) -> None:
    from tests.hooks.test_evaluation import TASKS

    model = tiny_model("olmoe")
    trace = traced(model, TASKS, tmp_path / "trace")
    bench = bench_of(model, TASKS)
    found = knock_out(trace, bench, sets={"two": [("L00", 1), ("L02", 4)]}, n_random=4, over="task")
    table = found.effects.set_index("group")
    sites = bench.sites
    with experts_knocked_out(model, sites, [("L00", 1), ("L02", 4)]):
        after = bench.measured()
    before = bench.measured()
    change = (after["score"] - before["score"])[before["task"] == "choice"].mean()
    assert table.loc["choice", "score_change"] == pytest.approx(change)
    low, high = table.loc["choice", ["score_low", "score_high"]]
    assert low <= change <= high
    null = table.loc["choice", ["random_score_low", "random_score_mean", "random_score_high"]].to_numpy(dtype=float)
    assert (np.diff(null) >= 0).all()
    # By task twice over is the same table.
    pd.testing.assert_frame_equal(found.by_task, found.effects)
    assert 0.2 <= table.loc["choice", "score_p_value"] <= 1
    assert np.isnan(table.loc["span", "score_change"])  # generated answers were not asked for
    assert table.loc["all", "n_random"] == 4
