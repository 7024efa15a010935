"""Sums over drawn prompts, and the intervals made of them, beside the literal form."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info

from analysis.balance import BALANCE_UNITS, balance_metrics
from analysis.balance_scales import load_by_position
from analysis.counts import assignment_counts
from analysis.load import load_balance
from analysis.redrawing import EXACT_IN_SINGLE, redrawn_sums
from tests.traces import encoder_decoder_trace, planted_trace, random_trace

SMALL = {"seed": 2, "n_tasks": 3, "n_prompts_a_task": 4, "n_layers": 3}


def literal(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.array([sum(times * each for times, each in zip(row, counts, strict=True)) for row in weights.tolist()])


@pytest.mark.parametrize("largest", [9, 2**20, 2**24 + 1, 2**40 + 1])
def test_whole_counts_are_added_up_exactly_whatever_their_size(largest):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, largest, (7, 3, 4), endpoint=True)
    counts[0, 0, 0] = largest
    counts[:, 1] = 0
    weights = rng.multinomial(7, np.full(7, 1 / 7), 5).astype(float)
    found = redrawn_sums(counts, weights)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, literal(counts, weights))


def test_a_sum_just_beyond_what_float32_keeps_is_exact():
    counts = np.array([EXACT_IN_SINGLE - 1, 2]).astype(int).reshape(2, 1, 1)
    assert redrawn_sums(counts, np.array([[1.0, 1.0]])).item() == EXACT_IN_SINGLE + 1


def test_amounts_are_added_up_as_such():
    rng = np.random.default_rng(0)
    amounts, weights = rng.random((6, 2, 3)), rng.multinomial(6, np.full(6, 1 / 6), 4).astype(float)
    np.testing.assert_allclose(redrawn_sums(amounts, weights), literal(amounts, weights), rtol=1e-14)


def test_products_have_their_threads_again_after_sums_in_several_sessions():
    def n_threads() -> list[int]:
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    def session() -> None:
        for _ in range(20):
            redrawn_sums(np.ones((50, 4, 8), dtype=int), np.ones((20, 50)))

    before = n_threads()
    sessions = [threading.Thread(target=session) for _ in range(3)]
    for each in sessions:
        each.start()
    for each in sessions:
        each.join()
    assert n_threads() == before


@pytest.mark.parametrize("by", [None, "task"])
@pytest.mark.parametrize("make", [planted_trace, encoder_decoder_trace, random_trace])
def test_intervals_of_balance_are_those_of_draws_added_up_one_by_one(make, by):
    trace = make(**SMALL) if make is planted_trace else make(seed=2)
    table = load_balance(trace, by=by, n_bootstrap=30, seed=5)
    counts, exists = assignment_counts(trace, by="prompt").to_numpy(), trace.expert_exists.to_numpy()
    groups = {None: np.arange(trace.n_prompts)}
    if by:
        groups = {task: np.flatnonzero(trace.task_of_prompt == number) for number, task in enumerate(trace.tasks)}
    for number, (group, prompts) in enumerate(groups.items()):
        rows = table.loc[group] if by else table
        n = len(prompts)
        if n < 2:
            continue
        rng = np.random.default_rng([5, number])
        drawn = literal(counts[prompts], rng.multinomial(n, np.full(n, 1 / n), 30))
        metrics = balance_metrics(drawn.astype(float), exists=exists)
        for name in BALANCE_UNITS:
            routed = rows["n_tokens"].to_numpy() > 0
            low_high = np.nanquantile(metrics[name][:, routed], [0.025, 0.975], axis=0)
            found = rows.loc[routed, [f"{name}_low", f"{name}_high"]].to_numpy().T
            np.testing.assert_array_equal(found, low_high)


def test_counts_by_prompt_are_the_same_in_one_table_and_in_many_small_ones(monkeypatch):
    trace = planted_trace(**SMALL)
    whole, balance = assignment_counts(trace, by="prompt"), load_balance(trace, seed=1)
    monkeypatch.setattr("analysis.scan.SMALL_PARTIAL", 1)
    for largest in (1 << 24, 4 * 256, 1):
        monkeypatch.setattr("analysis.scan.LARGEST_PARTIAL", largest)
        assert assignment_counts(trace, by="prompt").identical(whole)
    monkeypatch.setattr("analysis.scan.LARGEST_BLOCK", 1)
    pd.testing.assert_frame_equal(load_balance(trace, seed=1), balance)


def test_intervals_over_positions_are_those_of_draws_added_up_one_by_one():
    trace = planted_trace(**SMALL)
    found = load_by_position(trace, n_bootstrap=30, seed=5)
    n = trace.n_prompts
    weights = np.random.default_rng(5).multinomial(n, np.full(n, 1 / n), 30)
    prompt, position = trace.tokens["prompt"].to_numpy(), trace.tokens["position"].to_numpy()
    exists, top_k = trace.expert_exists.to_numpy(), trace.top_k
    counts = np.zeros((n, trace.n_layers, trace.n_experts), int)
    for row in np.flatnonzero(position == 0):
        for layer in range(trace.n_layers):
            for expert in trace.experts.values[row, layer, :top_k]:
                counts[prompt[row], layer, expert] += 1
    drawn = balance_metrics(literal(counts, weights).astype(float), exists=exists)["max_over_mean"]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(found["max_over_mean_low"].values[0], low)
    np.testing.assert_allclose(found["max_over_mean_high"].values[0], high)
