from __future__ import annotations

import numpy as np
import pytest

from analysis.signatures import signatures
from analysis.single_expert import load_over_run, similar_experts
from routing import SelectionError
from tests.adapter_traces import hyper_moe_trace
from tests.traces import null_trace, planted_trace, trace_of

SHAPE = {"n_tasks": 6, "n_prompts_a_task": 8, "n_tokens_a_prompt": 12, "n_layers": 3}


def test_experts_of_one_task_are_found_to_be_alike():
    specialists = {"facts": (0, 2), "names": (1, 5), "spans": (2, 1)}
    trace = planted_trace(seed=0, specialists=specialists | {"topics": (0, 4)}, strength=4.0, **SHAPE)
    # the same task in another layer
    double = planted_trace(seed=0, specialists={"facts": (0, 2)}, strength=4.0, **SHAPE)
    found = similar_experts(trace, layer="L00", expert=2)
    assert len(found) == 3 * 8 - 1
    assert found["similarity"].is_monotonic_decreasing
    assert ("L00", 2) not in set(zip(found["layer"], found["expert"], strict=True))
    assert np.isfinite(similar_experts(double, layer="L00", expert=2)["similarity"]).all()


def test_similarity_is_the_correlation_of_lifts():
    trace = planted_trace(seed=4, **SHAPE)
    table = signatures(trace, of="expert", values="lift")
    found = similar_experts(trace, layer="L01", expert=3, n_permutations=10)
    row = found.iloc[0]
    by_name = {
        (str(layer), int(e)): values
        for layer, e, values in zip(table["layer"].values, table["expert"].values, table.to_numpy(), strict=True)
    }
    one, other = by_name["L01", 3], by_name[row["layer"], row["expert"]]
    if np.isfinite(one).all() and np.isfinite(other).all():
        assert row["similarity"] == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-6)


def test_without_an_effect_hardly_any_similarity_beats_chance():
    n_found = sum(
        bool(
            similar_experts(null_trace(seed=seed, **SHAPE), layer="L01", expert=1, n_permutations=200)[
                "beats_chance"
            ].any()
        )
        for seed in range(8)
    )
    assert n_found <= 2


def test_weights_tell_where_the_trace_holds_them():
    trace = hyper_moe_trace(seed=0)
    found = similar_experts(trace, layer=trace.layers[0], expert=0, n_permutations=10)
    here = found[found["layer"] == trace.layers[0]]
    table = trace.vectors["expert_weight_similarity"].sel(layer=trace.layers[0]).isel(expert=0).to_numpy()
    assert here.set_index("expert")["weight_similarity"].to_dict() == pytest.approx(
        {e: table[e] for e in range(1, len(table))}
    )


def test_a_few_tasks_or_an_idle_expert_are_like_nobody():
    assert similar_experts(trace_of([[0, 1]]), layer="L00", expert=0).empty
    with pytest.raises(SelectionError):
        similar_experts(trace_of([[0, 1]]), layer="L00", expert=99)


def test_a_rate_is_told_window_by_window():
    # two prompts of two tokens a window; expert 0 is chosen by 3 of 4, then by 0 of 4
    experts = [[0, 1], [0, 1], [0, 1], [2, 1], [2, 1], [2, 1], [2, 1], [2, 1]]
    found = load_over_run(trace_of(experts, prompts=[0, 0, 1, 1, 2, 2, 3, 3]), layer="L00", expert=0, n_windows=2)
    assert found["rate"].tolist() == [0.75, 0.0]
    assert found["n_tokens"].tolist() == [4, 4]
    assert found["first_prompt"].tolist() == [0, 2]
    # residuals 2 − 1.5 and 1 − 1.5: √(0.5 · 2) / 4 = 0.25
    assert found["rate_low"].tolist() == pytest.approx([0.75 - 1.96 * 0.25, 0.0])
    assert found["rate_high"].tolist() == pytest.approx([1.0, 0.0])


def test_one_prompt_has_no_interval():
    found = load_over_run(trace_of([[0, 1], [2, 1]]), layer="L00", expert=0)
    assert found["rate"].tolist() == [0.5]
    assert found["rate_low"].isna().all()
