from __future__ import annotations

import numpy as np
import pytest

from analysis.health import load_health
from analysis.router_losses import router_losses
from routing import Selection
from routing.errors import TraceError
from tests.traces import encoder_decoder_trace, null_trace, planted_trace, random_trace, trace_of


def levels(trace, **options):
    return {verdict.check: verdict.level for verdict in load_health(trace, **options)}


def test_an_even_router_is_healthy():
    found = levels(null_trace(seed=1, prompt_effect=0.1, n_prompts_a_task=30, n_tokens_a_prompt=40))
    assert set(found) == {"busiest", "length", "idle", "passes", "capacity", "drift"}
    assert set(found.values()) == {"good"}


def test_a_popular_expert_is_to_be_acted_on_and_comes_first():
    verdicts = load_health(planted_trace(seed=1, popular={(1, 5): 4.0}))
    assert verdicts[0].level == "act"
    by_check = {verdict.check: verdict for verdict in verdicts}
    assert by_check["busiest"].level == "act"
    assert by_check["busiest"].selection_query == {"layers": "L01", "experts": "L01.E5"}
    assert by_check["capacity"].level == "act"
    assert "L01·E5" in by_check["busiest"].sentence
    assert all(verdict.threshold and verdict.reason for verdict in verdicts)


def test_one_layer_is_not_the_most_of_all_layers():
    trace = planted_trace(seed=1, popular={(1, 5): 4.0})
    (told,) = (each for each in load_health(trace.select(Selection(layers=("L01",)))) if each.check == "busiest")
    assert told.sentence.endswith("times the mean work of its layer.")


def test_what_is_beyond_a_threshold_but_not_surely_is_not_called_well():
    trace = planted_trace(
        seed=1, n_tasks=3, specialists={"facts": (1, 2)}, strength=20, top_k=1, n_layers=2, n_prompts_a_task=16
    )
    by_check = {verdict.check: verdict for verdict in load_health(trace)}
    assert by_check["capacity"].level == "watch"
    assert "%]" in by_check["capacity"].sentence
    # All prompts in one batch: as much is dropped, and nothing says how sure that is.
    (told,) = (verdict for verdict in load_health(trace, batch_size=48) if verdict.check == "capacity")
    assert told.level == "unknown"
    assert "[" not in told.sentence


def test_a_dead_expert_is_told_from_one_that_had_no_chance():
    dead = planted_trace(seed=2, popular={(0, 7): -30.0}, n_tasks=8, n_prompts_a_task=10)
    assert levels(dead)["idle"] == "act"
    assert levels(trace_of([[0, 1], [1, 2]], n_experts=8, prompts=[0, 1], tasks=("a", "a")))["idle"] == "unknown"


def test_tasks_in_blocks_make_uneven_batches_and_a_drift():
    found = levels(planted_trace(seed=3, n_prompts_a_task=20, n_tokens_a_prompt=30), batch_size=16)
    assert found["passes"] == "watch"
    assert found["drift"] == "watch"


def test_nothing_is_said_of_nothing():
    assert load_health(trace_of([[0, 1]], tasks=("a", "b")).select(Selection(prompts=("p1",)))) == []


def test_losses_by_hand():
    # Two tokens of one prompt, logits (ln 3, 0) and (0, 0): scores (¾, ¼) and (½, ½); top-1 chooses 0 and 0.
    # f = (1, 0), P = (5/8, 3/8): E Σ f P = 2 · 5/8 = 1.25.  z: ln 4 and ln 2.  mass: (¾ + ½)/2.
    trace = trace_of([[0], [0]], n_experts=2, logits=[[np.log(3), 0], [0, 0]])
    row = router_losses(trace).loc["L00"]
    assert row["balance_loss"] == pytest.approx(1.25, abs=1e-6)
    assert row["z_loss"] == pytest.approx((np.log(4) ** 2 + np.log(2) ** 2) / 2, abs=1e-6)
    assert row["top_k_mass"] == pytest.approx(0.625, abs=1e-6)


def test_losses_are_those_of_a_slow_reading():
    trace = random_trace(seed=2)
    table = router_losses(trace, batch_size=3, n_bootstrap=0)
    logits = trace.logits.values.astype(float)
    prompt = trace.tokens["prompt"].to_numpy()
    order = list(dict.fromkeys(prompt))
    batch = np.array([order.index(each) // 3 for each in prompt])
    for number, layer in enumerate(trace.layers):
        scores = np.exp(logits[:, number])
        scores /= scores.sum(axis=1, keepdims=True)
        chosen = np.zeros(scores.shape)
        np.put_along_axis(chosen, trace.experts.values[:, number, :2].astype(int), 1.0, axis=1)

        def loss(rows, scores=scores, chosen=chosen):
            return 8 * (chosen[rows].sum(axis=0) / chosen[rows].sum() * scores[rows].mean(axis=0)).sum()

        assert table.loc[layer, "balance_loss"] == pytest.approx(loss(prompt >= 0), abs=1e-5)
        by_prompt = np.mean([loss(prompt == p) for p in set(prompt)])
        assert table.loc[layer, "balance_loss_sequence"] == pytest.approx(by_prompt, abs=1e-5)
        by_batch = np.mean([loss(batch == b) for b in set(batch)])
        assert table.loc[layer, "balance_loss_batch"] == pytest.approx(by_batch, abs=1e-5)


def test_losses_know_the_layers_of_each_stack_and_need_logits():
    table = router_losses(encoder_decoder_trace())
    assert table["n_tokens"].tolist() == [42, 42, 24]
    assert np.isfinite(table["balance_loss"]).all()
    with pytest.raises(TraceError, match="logits"):
        router_losses(random_trace(seed=0, with_logits=False))


def test_a_popular_expert_costs_and_an_even_router_does_not():
    busy = router_losses(planted_trace(seed=1, specialists={}, popular={(1, 5): 4.0}))
    assert busy.loc["L01", "balance_loss_low"] > 1.5
    assert busy.loc["L00", "balance_loss"] < 1.05
