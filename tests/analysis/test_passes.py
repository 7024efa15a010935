from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from analysis.balance import balance_metrics
from analysis.balance_scales import balance_scales, importance, load_by_position
from analysis.convergence import load_convergence
from analysis.pass_load import pass_load, worst_passes
from analysis.passes import batches_of, passes_of
from analysis.positions import bin_names, bin_of_position
from analysis.size_effects import chance_of_sizes, drawn_counts
from routing import Selection
from routing.errors import SelectionError
from tests.traces import encoder_decoder_trace, null_trace, planted_trace, random_trace, trace_of, traces


def literal_passes(trace, batch_size):
    """Batch and step of every token, one token after the other."""
    tokens = trace.tokens
    batch = {prompt: number // batch_size for number, prompt in enumerate(dict.fromkeys(tokens["prompt"]))}
    first = {}
    rows = []
    for row in tokens.itertuples():
        if row.phase == "generated":
            key = row.prompt, row.stack
            first[key] = min(first.get(key, row.position), row.position)
    for row in tokens.itertuples():
        step = 0 if row.phase == "prompt" else 1 + row.position - first[row.prompt, row.stack]
        rows.append((batch[row.prompt], step))
    return rows


def test_passes_by_hand():
    # Two prompts of a batch, read together; then their first generated tokens; then the second, which only p0 has.
    trace = trace_of(
        [[0], [1], [2], [0], [3], [1], [2]],
        prompts=[0, 0, 1, 1, 0, 1, 0],
        tasks=("a", "a"),
        phase=["prompt"] * 4 + ["generated"] * 3,
    )
    passes = passes_of(trace, batch_size=2)
    assert passes.table.reset_index().values.tolist() == [
        [0, 0, 0, "prompt", 4],
        [1, 0, 1, "generated", 2],
        [2, 0, 2, "generated", 1],
    ]
    table = pass_load(trace, batch_size=2)
    # Experts 0 1 2 0: the busiest has 2, the mean is 4/4 = 1.
    assert table.loc[(0, "L00"), ["hottest", "max_over_mean", "n_tokens"]].tolist() == [0, 2, 4]
    assert table.loc[(1, "L00"), "max_over_mean"] == 2
    assert table.loc[(2, "L00"), "max_over_mean"] == 4


@settings(max_examples=20, deadline=None)
@given(traces())
def test_passes_are_those_of_a_slow_reading(trace):
    passes = passes_of(trace, batch_size=2)
    found = [
        tuple(passes.table.loc[number, ["batch", "step"]])
        for chunk in trace.chunks(fields=(), n_tokens=7)
        for number in passes.key(chunk)
    ]
    assert found == literal_passes(trace, 2)


def test_a_stack_of_its_own_counts_its_own_steps():
    trace = encoder_decoder_trace(n_prompts=4)
    table = pass_load(trace, batch_size=4)
    assert set(table.xs("dec01", level="layer")["step"]) == {1, 2, 3, 4}
    assert set(table.xs("enc01", level="layer")["step"]) == {0}


def test_batches_by_order():
    trace = planted_trace(seed=0, n_tasks=2, n_prompts_a_task=4, n_tokens_a_prompt=4)
    assert batches_of(trace, batch_size=3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert sorted(batches_of(trace, batch_size=3, order="shuffled", seed=3)) == [0, 0, 0, 1, 1, 1, 2, 2]
    assert batches_of(trace, batch_size=4, order="task").tolist() == [0] * 4 + [1] * 4
    with pytest.raises(SelectionError, match="batch of 0"):
        batches_of(trace, batch_size=0)
    with pytest.raises(SelectionError, match="alphabet"):
        batches_of(trace, order="alphabet")


def test_one_pass_over_all_is_the_load_of_the_run():
    trace = random_trace(seed=3)
    summary = worst_passes(trace, batch_size=1000, n_permutations=5)
    read = summary.xs("prompt", level="phase")
    assert read["mean"].tolist() == pytest.approx(read["whole_run"].tolist())
    assert read["slowdown_bound"].tolist() == pytest.approx(read["mean"].tolist())
    assert read["mean_low"].isna().all()


def test_tasks_that_stand_together_make_uneven_batches_and_mixed_ones_do_not():
    options = {"n_prompts_a_task": 16, "n_layers": 2, "specialists": {"spans": (1, 0), "facts": (1, 1)}}
    trace = planted_trace(seed=1, **options)
    together = worst_passes(trace, batch_size=16, n_permutations=99).loc["prompt"]
    mixed = worst_passes(trace, batch_size=16, n_permutations=99, order="shuffled", seed=5).loc["prompt"]
    assert together.loc["L01", "p_value"] == 0.01
    assert together.loc["L00", "p_value"] > 0.01
    assert mixed.loc["L01", "p_value"] > 0.05
    assert together.loc["L01", "mean"] > 1.3 * mixed.loc["L01", "mean"]


def test_small_passes_of_an_even_router_are_no_more_uneven_than_said():
    trace = null_trace(seed=2, prompt_effect=0.0, n_prompts_a_task=40, n_layers=2)
    table = worst_passes(trace, batch_size=4, n_permutations=0)
    assert (table["mean"] / table["even_router"]).tolist() == pytest.approx([1] * 4, abs=0.06)
    assert (table["mean"] / table["load_alone"]).tolist() == pytest.approx([1] * 4, abs=0.06)


def test_draws_have_the_scatter_of_tokens_that_choose_different_experts():
    rng = np.random.default_rng(0)
    tiled = np.tile(np.arange(8), (20, 1))
    exact = np.array([np.bincount(rng.permuted(tiled, axis=1)[:, :3].ravel(), minlength=8) for _ in range(4000)])
    drawn = drawn_counts(20, rate_E=np.ones(8), top_k=3, n_draws=4000, rng=rng)
    assert drawn.mean() == pytest.approx(7.5, abs=0.1)
    assert drawn.std() == pytest.approx(exact.std(), rel=0.05)
    found = chance_of_sizes(np.array([0, 20]), rate_E=np.ones(8), top_k=3, metric="max_over_mean", seed=0, n_draws=2000)
    real = balance_metrics(exact.astype(float), exists=np.ones(8, bool))["max_over_mean"].mean()
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(real, abs=0.03)


def test_scales_by_hand():
    # p0 uses expert 0 only, p1 expert 1 only: uneven in each sequence (2/1), even over batch and run.
    trace = trace_of([[0], [0], [1], [1]], n_experts=2, prompts=[0, 0, 1, 1], tasks=("a", "a"))
    table = balance_scales(trace, batch_size=2)["max_over_mean"]
    assert table.loc[("sequence", "L00")] == 2
    assert table.loc[("batch", "L00")] == 1
    assert table.loc[("run", "L00")] == 1


def test_specialists_make_sequences_uneven_though_the_run_is_even():
    trace = planted_trace(seed=4, n_prompts_a_task=20, n_tasks=8)
    table = balance_scales(trace, batch_size=16)
    run, sequence = (table.loc[(scale, "L03")] for scale in ("run", "sequence"))
    assert run["max_over_mean"] < 1.25
    assert sequence["max_over_mean_low"] > 1.3 * sequence["even_router"]


def test_position_bins():
    assert bin_of_position(np.array([0, 1, 2, 3, 4, 7, 8, 1023])).tolist() == [0, 1, 2, 2, 3, 3, 4, 10]
    assert bin_names(4) == ["0", "1", "2–3", "4–7"]


def test_load_by_position_adds_up_and_finds_a_busy_first_token():
    rng = np.random.default_rng(0)
    first = np.array([[3, rng.integers(3)] for _ in range(30)])
    later = np.array([rng.permutation(4)[:2] for _ in range(90)])
    experts = np.stack([np.concatenate([[first[p]], later[3 * p : 3 * p + 3]]) for p in range(30)]).reshape(-1, 2)
    trace = trace_of(experts, prompts=np.repeat(np.arange(30), 4), tasks=("a",))
    table = load_by_position(trace, n_bootstrap=50)
    assert table["n_tokens"].sel(layer="L00").values.tolist() == [30, 30, 60]
    assert table["load"].sum("expert").values.ravel().tolist() == pytest.approx([1, 1, 1])
    assert int(table["hottest"].sel(position="0", layer="L00")) == 3
    assert float(table["max_over_mean"].sel(position="0", layer="L00")) == 2
    assert float(table["max_over_mean"].sel(position="2–3", layer="L00")) < 1.5
    assert (table["max_over_mean_low"] <= table["max_over_mean_high"]).all()


def test_importance_by_hand():
    # weights .75 .25 | .5 .5 of experts {0,1} {1,2}
    trace = trace_of([[0, 1], [1, 2]], weights=[[0.75, 0.25], [0.5, 0.5]])
    assert importance(trace).values.tolist() == [[0.375, 0.375, 0.25, 0]]
    random = random_trace(seed=8)
    by_task = importance(random, by="task")
    assert by_task.sum("expert").values.ravel().tolist() == pytest.approx([1] * 9)
    slow = np.zeros(8)
    np.add.at(slow, random.experts.values[:, 1, :2].ravel(), random.weights.values[:, 1].astype(float).ravel())
    assert importance(random).values[1].tolist() == pytest.approx((slow / slow.sum()).tolist())


def test_a_drift_is_seen_and_a_steady_run_is_not():
    steady = load_convergence(null_trace(seed=3, n_layers=1), n_points=5, n_permutations=99)
    drifting = load_convergence(planted_trace(seed=3, n_layers=1), n_points=5, n_permutations=99)
    assert steady["p_value"].iloc[0] > 0.05
    assert drifting["p_value"].iloc[0] == 0.01
    assert drifting["distance"].iloc[-1] == 0
    assert drifting["distance"].iloc[0] > drifting["shuffled_95"].iloc[0]
    assert drifting.index.get_level_values("n_prompts").tolist() == [12, 24, 36, 48, 60]


def test_distance_by_hand():
    # After p0: load (1, 0); after both (1/2, 1/2): half of the assignments would have to move.
    trace = trace_of([[0], [1]], n_experts=2, prompts=[0, 1], tasks=("a", "a"))
    assert load_convergence(trace, n_permutations=0)["distance"].tolist() == [0.5, 0]


def test_order_of_the_rows_of_a_pass_does_not_matter():
    trace = random_trace(seed=5, n_tokens=60)
    rows = trace.select(Selection(tasks=tuple(reversed(trace.tasks))))
    one, other = (worst_passes(each, batch_size=1000, n_permutations=0) for each in (trace, rows))
    assert one["mean"].tolist() == pytest.approx(other["mean"].tolist())
