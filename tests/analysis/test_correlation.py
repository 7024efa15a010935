from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.correlation import feature_correlation, task_features
from analysis.specialization import specialization
from routing.errors import SelectionError
from tests.traces import TASKS, null_trace, planted_trace, trace_of


def test_correlation_by_hand():
    # four tasks of one prompt; expert 0 of 2 is chosen by 1, 1, 0, 0 → r with the feature (1, 1, 0, 0) is 1
    #   and with (1, 0, 1, 0) is 0; expert 1 is the mirror of expert 0
    trace = trace_of([[0], [0], [1], [1]], n_experts=2, prompts=[0, 1, 2, 3], tasks=("a", "b", "c", "d"))
    features = pd.DataFrame({"x": [1, 1, 0, 0], "y": [1, 0, 1, 0]}, index=list("abcd"))
    found = feature_correlation(trace, features=features, n_permutations=2000)
    assert found["r"].sel(feature="x", layer="L00").values.tolist() == pytest.approx([1, -1])
    assert found["r"].sel(feature="y", layer="L00").values.tolist() == pytest.approx([0, 0])
    # 4!/(2! 2!) = 6 deals, two of which give |r| = 1
    assert float(found["p_value"].sel(feature="x", layer="L00", expert=0)) == pytest.approx(1 / 3, abs=0.04)
    assert found["n_tasks"].values.tolist() == [2, 2]


def test_r_is_that_of_the_library():
    trace = planted_trace(seed=0, n_tasks=8, n_prompts_a_task=4, with_logits=False)
    found = feature_correlation(trace, n_permutations=10)
    rates = specialization(trace, n_permutations=0)["rate"].sel(layer="L02", expert=3).values
    feature = [float(kind == "extractive") for kind in trace.task_types.values()]
    slow = np.corrcoef(rates, feature)[0, 1]
    assert float(found["r"].sel(feature="extractive", layer="L02", expert=3)) == pytest.approx(slow)


def test_types_that_several_tasks_share_are_the_features():
    trace = planted_trace(seed=1, n_tasks=8, n_prompts_a_task=1, with_logits=False)
    assert list(task_features(trace).columns) == ["extractive", "classification", "knowledge"]
    counts = list(trace.task_types.values())
    most = max(counts.count(name) for name in set(counts))
    assert task_features(trace, min_tasks=most + 1).empty


def test_planted_type_experts_are_found():
    owners = {task: (2, 6) for task, kind in TASKS.items() if kind == "extractive"}
    features = pd.DataFrame({"extractive": [kind == "extractive" for kind in TASKS.values()]}, index=list(TASKS))
    trace = planted_trace(seed=2, n_tasks=8, specialists=owners, strength=4.0, with_logits=False)
    found = feature_correlation(trace, features=features.astype(float))
    best = found["r"].sel(feature="extractive")
    assert float(best.sel(layer="L02", expert=6)) > 0.95
    # two of eight tasks: 28 ways to choose them, so that p cannot be much below 1/28
    assert float(found["p_value"].sel(feature="extractive", layer="L02", expert=6)) < 0.06


def test_with_few_tasks_and_many_experts_chance_correlates_well_and_is_not_believed():
    alarms, best = [], []
    for seed in range(20):
        found = feature_correlation(null_trace(seed=seed, n_tasks=8, with_logits=False), n_permutations=300, seed=seed)
        alarms.append(float(found["p_any"].min()) <= 0.05)
        best.append(float(np.abs(found["r"]).max()))
    assert np.mean(best) > 0.8
    assert sum(alarms) <= 4


def test_the_family_of_features_is_harder_to_pass_than_one():
    found = feature_correlation(planted_trace(seed=3, n_tasks=8, with_logits=False), n_permutations=300)
    assert (found["p_any"] >= found["p_value"]).all()


def test_tasks_alike_and_features_without_variance_have_no_r():
    trace = trace_of([[0, 1], [0, 1], [0, 1]], prompts=[0, 1, 2], tasks=("a", "b", "c"))
    found = feature_correlation(trace, features=pd.DataFrame({"x": [1, 0, 0]}, index=list("abc")))
    assert found["r"].isnull().all()
    assert found["p_value"].isnull().all()
    none = feature_correlation(trace)
    assert none.sizes["feature"] == 0


def test_wrong_features_are_refused_by_name():
    trace = trace_of([[0, 1], [1, 2]], prompts=[0, 1], tasks=("a", "b"))
    with pytest.raises(SelectionError, match="'b'"):
        feature_correlation(trace, features=pd.DataFrame({"x": [1]}, index=["a"]))
    with pytest.raises(SelectionError, match="form"):
        feature_correlation(trace, features=pd.DataFrame({"form": ["p", "q"]}, index=["a", "b"]))
