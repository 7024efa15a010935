from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.clustering import Clustering
from analysis.controls import controlled_specialization, template_tokens
from analysis.more_clusters import co_clusters, density_clusters
from analysis.prompt_features import prompt_correlation, prompt_features
from analysis.reliability import against_control, split_half
from analysis.signatures import signatures
from analysis.specialization import specialization
from routing.errors import SelectionError, TraceError
from tests.traces import null_trace, planted_trace, random_trace, trace_of


def worded(seed, *, ids_of_task, expert_of, n_prompts=40, n_tokens=20, n_experts=6):
    """Prompts of two tasks, tokens drawn from the ids of the task, and the expert that (task, id, place) says."""
    rng = np.random.default_rng(seed)
    rows, experts = [], []
    for prompt in range(n_prompts):
        task = prompt % 2
        for position in range(n_tokens):
            token = int(rng.choice(ids_of_task[task]))
            rows.append((prompt, position, token))
            expert = expert_of(task, token, position)
            experts.append([int(rng.integers(n_experts)) if expert is None else expert])
    tokens = pd.DataFrame(rows, columns=["prompt", "position", "token_id"])
    tasks = tuple("ab"[prompt % 2] for prompt in range(n_prompts))
    return trace_of(experts, n_experts=n_experts, prompts=tokens["prompt"], tasks=tasks, tokens=tokens)


def called(table, smallest=0.05):
    return int((table["significant"] & (abs(table["difference"]) >= smallest)).sum())


def test_without_a_control_it_is_specialization():
    trace = planted_trace(seed=1, n_tasks=3)
    plain, controlled = specialization(trace, n_permutations=50), controlled_specialization(trace, n_permutations=50)
    difference = (plain["rate"] - plain["overall"]).values
    assert controlled["difference"].values == pytest.approx(difference)
    assert controlled["plain_difference"].values == pytest.approx(difference)
    assert controlled["z"].values == pytest.approx(plain["z"].values, nan_ok=True)
    assert (controlled["covered"] == 1).all()


def test_matching_by_hand():
    # Id 0 goes to expert 0, id 1 to expert 1, whatever the task; a has more 0, b more 1. Id 2 is b's alone.
    tokens = pd.DataFrame({"prompt": [0, 0, 0, 1, 1, 1, 1], "token_id": [0, 0, 1, 0, 1, 1, 2]})
    experts = [[0], [0], [1], [0], [1], [1], [2]]
    trace = trace_of(experts, n_experts=3, prompts=tokens["prompt"], tasks=("a", "b"), tokens=tokens)
    table = controlled_specialization(trace, match="token_id", n_permutations=0)
    assert table["plain_difference"].sel(group="a", expert=0).item() == pytest.approx(2 / 3 - (2 / 3 + 1 / 4) / 2)
    assert np.nanmax(np.abs(table["difference"].values)) == pytest.approx(0)
    assert table["covered"].values.tolist() == [1, 0.75]


def test_an_expert_of_a_word_is_no_expert_of_the_task_that_uses_it():
    words = {0: [0, 0, 0, 1, 2, 3], 1: [1, 2, 3, 3, 3, 3]}
    trace = worded(0, ids_of_task=words, expert_of=lambda task, token, place: token)
    assert called(controlled_specialization(trace, n_permutations=200)) >= 4
    assert called(controlled_specialization(trace, match="token_id", n_permutations=200)) == 0


def test_an_expert_of_a_task_stays_one_with_words_matched():
    words = {0: [0, 1, 2, 3], 1: [1, 2, 3, 4]}
    trace = worded(1, ids_of_task=words, expert_of=lambda task, token, place: 5 if task == 0 and token == 2 else None)
    table = controlled_specialization(trace, match="token_id", n_permutations=200)
    assert bool(table["significant"].sel(group="a", expert=5).item())
    assert table["difference"].sel(group="a", expert=5).item() > 0.05


def test_places_are_matched():
    # A task of longer prompts has fewer first tokens; expert 0 takes those.
    rng = np.random.default_rng(0)
    rows, experts = [], []
    for prompt in range(40):
        for position in range(4 if prompt % 2 else 16):
            rows.append((prompt, position))
            experts.append([0 if position < 2 else int(rng.integers(1, 4))])
    tokens = pd.DataFrame(rows, columns=["prompt", "position"])
    trace = trace_of(experts, prompts=tokens["prompt"], tasks=tuple("ab"[p % 2] for p in range(40)), tokens=tokens)
    assert bool(controlled_specialization(trace)["significant"].sel(group="a", expert=0).item())
    matched = controlled_specialization(trace, match="position")
    assert called(matched) == 0
    assert matched["covered"].values.tolist() == [0.25, 1]


def test_templates_are_found_from_both_ends_and_left_out():
    rng = np.random.default_rng(0)
    rows = []
    for prompt in range(12):
        body = rng.integers(20, 60, rng.integers(3, 9)).tolist()
        rows += [(prompt, place, token) for place, token in enumerate([1, 2, *body, 3])]
    tokens = pd.DataFrame(rows, columns=["prompt", "position", "token_id"])
    experts = np.where(tokens["token_id"] < 10, 0, rng.integers(1, 4, len(tokens)))[:, None]
    trace = trace_of(experts, prompts=tokens["prompt"], tasks=("a", "b") * 6, tokens=tokens)
    assert template_tokens(trace).tolist() == (tokens["token_id"] < 10).tolist()
    table = controlled_specialization(trace, without_template=True, n_permutations=0)
    assert table["rate"].sel(expert=0).values.ravel().tolist() == [0, 0]
    assert not template_tokens(random_trace(seed=0, n_prompts=4)).any()


def test_budgets_take_the_first_tokens_over_chunks():
    trace = planted_trace(seed=2, n_tasks=2, n_prompts_a_task=3)
    table = controlled_specialization(trace, tokens_a_prompt=4, n_permutations=0)
    assert table["covered"].values.tolist() == pytest.approx([4 / 14] * 2)
    first = trace.tokens["position"] < 4
    spans = first & (trace.tokens["prompt"] < 3)
    chosen = (trace.experts.values[spans.to_numpy(), 3, :2] == 0).any(axis=1).mean()
    assert table["rate"].sel(group="spans", layer="L03", expert=0).item() == pytest.approx(chosen)


def test_null_traces_stay_null_under_every_control():
    p = []
    for seed in range(4):
        trace = null_trace(seed=seed, n_tasks=4, n_prompts_a_task=12, n_layers=2)
        for options in ({"match": "position"}, {"match": "token_id"}, {"tokens_a_prompt": 6}):
            p.append(controlled_specialization(trace, n_permutations=200, **options)["p_value"].values.ravel())
    assert np.mean(np.concatenate(p) <= 0.05) < 0.08


def test_impossible_controls_are_refused():
    trace = random_trace(seed=0, n_tasks=1)
    for options in ({"match": "luck"}, {"tokens_a_prompt": 0}, {"match": "position"}):
        with pytest.raises(SelectionError):
            controlled_specialization(trace, **options)


# Features of prompts


def test_correlation_of_prompts_is_that_of_numpy():
    trace = random_trace(seed=3, n_tokens=400, n_prompts=20)
    length = pd.DataFrame({"x": np.random.default_rng(0).normal(size=20)}, index=trace.prompts["prompt"])
    table = prompt_correlation(trace, features=length, n_permutations=0, n_bootstrap=200)
    chosen = (trace.experts.values[:, 1, :2] == 4).any(axis=1)
    rate = pd.Series(chosen).groupby(trace.tokens["prompt"].to_numpy()).mean()
    assert table["r"].sel(feature="x", layer="L01", expert=4).item() == pytest.approx(
        np.corrcoef(rate, length["x"])[0, 1]
    )
    inside = (table["r_low"] <= table["r"]) & (table["r"] <= table["r_high"])
    assert float(inside.mean()) > 0.9


def test_columns_become_features():
    trace = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=4)
    table = prompt_features(trace, columns=("task", "score", "n_tokens"))
    assert table["task: spans"].tolist() == [1.0] * 4 + [0.0] * 8
    assert table["score"].tolist() == trace.prompts["score"].tolist()
    assert (table["n_tokens"] == 14).all()
    with pytest.raises(SelectionError, match="no column"):
        prompt_features(trace, columns=("mood",))


def test_a_planted_feature_is_found_and_a_null_one_is_not():
    trace = planted_trace(seed=1, n_tasks=6, n_prompts_a_task=10)
    spans = prompt_features(trace, columns=("task",))[["spans"]].assign(noise=np.random.default_rng(3).normal(size=60))
    table = prompt_correlation(trace, features=spans)
    best = table["r"].sel(feature="spans").to_series().idxmax()
    assert best == ("L03", 0)
    assert table["p_max"].sel(feature="spans", layer="L03", expert=0).item() < 0.01
    assert table["lift"].sel(feature="spans", layer="L03", expert=0).item() > 0.5
    assert not table["significant"].sel(feature="noise").any()
    assert float(table["p_max"].sel(feature="noise").min()) > 0.01
    within = prompt_correlation(trace, features=spans, within="task")
    # A feature of tasks has nothing left within them.
    assert np.isnan(within["r"].sel(feature="spans")).all()


# Clusters


def test_blocks_planted_are_found_and_shuffled_ones_are_not():
    rng = np.random.default_rng(0)
    table = rng.gamma(2, 1, (24, 12))
    table[:12, :6] += 6
    table[12:, 6:] += 6
    found = co_clusters(labelled(table, "share"), n_permutations=20)
    assert found.n_clusters == 2
    assert len(set(found.items.values[:12])) == len(set(found.items.values[12:])) == 1
    assert found.features.values[:6].tolist() == [found.items.values[0]] * 6
    assert found.p_value < 0.05
    assert found.stability > 0.9
    noise = co_clusters(labelled(rng.gamma(2, 1, (24, 12)), "share"), n_permutations=20)
    assert noise.p_value > 0.05
    assert "too small" in co_clusters(labelled(table[:2], "share")).note


def test_dense_regions_leave_the_rest_alone():
    rng = np.random.default_rng(0)
    blobs = np.concatenate([rng.normal(0, 0.1, (15, 3)), rng.normal(5, 0.1, (10, 3)), rng.uniform(-20, 20, (8, 3))])
    found = density_clusters(labelled(blobs, "share"), n_permutations=20)
    assert isinstance(found, Clustering)
    assert found.n_clusters == 2
    assert found.labels.values[:15].tolist() == [0] * 15
    assert found.labels.values[15:25].tolist() == [1] * 10
    assert (found.labels.values[25:] == -1).sum() >= 6
    assert found.p_value < 0.1
    assert density_clusters(labelled(blobs[:2], "share")).n_clusters == 0


def labelled(table, unit):
    import xarray as xr

    coords = {"item": [f"i{n}" for n in range(len(table))], "feature": [f"f{n}" for n in range(table.shape[1])]}
    return xr.DataArray(table, dims=("item", "feature"), coords=coords, attrs={"unit": unit})


def test_signatures_of_a_trace_are_clustered():
    table = signatures(planted_trace(seed=2, n_tasks=6))
    assert co_clusters(table, n_permutations=3, n_halves=3).items.sizes["item"] == table.sizes["item"]
    assert density_clusters(table, n_permutations=3).labels.sizes["item"] == table.sizes["item"]


# Reliability


def test_halves_agree_where_tasks_have_experts_and_not_where_they_have_none():
    planted = split_half(planted_trace(seed=3, n_prompts_a_task=12), n_splits=5, n_permutations=39)
    assert planted.loc["L03", "p_value"] == pytest.approx(1 / 40)
    assert planted.loc["L03", "whole"] > planted.loc["L03", "rho"] > 0.5
    empty = split_half(null_trace(seed=3, n_prompts_a_task=12), n_splits=5, n_permutations=39)
    assert (empty["p_value"] > 0.05).sum() >= 3
    assert empty["rho"].abs().max() < 0.4


def test_an_untrained_control_takes_its_share():
    trained, control = planted_trace(seed=4, n_prompts_a_task=8), null_trace(seed=4, n_prompts_a_task=8)
    table = against_control(trained, control)
    assert table.loc["L03", "gain"] > 0.1
    assert table.loc["L03", "n_cells"] > table.loc["L03", "n_cells_control"]
    assert abs(table.loc["L00", "gain"]) < 0.05
    assert against_control(trained, trained)["gain"].abs().max() == 0
    with pytest.raises(TraceError):
        against_control(trained, random_trace(seed=0))
