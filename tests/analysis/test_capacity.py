from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings

from analysis.capacity import capacity_drops
from analysis.passes import passes_of
from routing.errors import SelectionError
from tests.traces import encoder_decoder_trace, null_trace, planted_trace, random_trace, trace_of, traces


def literal_drops(trace, factor, *, batch_size, priority):
    """Dropped assignments (token, layer, rank), queue by queue."""
    passes = passes_of(trace, batch_size=batch_size)
    (chunk,) = trace.chunks(n_tokens=trace.n_tokens)
    key = passes.key(chunk)
    dropped = set()
    for number, facts in enumerate(trace.layer_facts):
        for group in set(key):
            rows = [t for t in np.flatnonzero(key == group) if chunk.experts[t, number, 0] != trace.absent]
            capacity = max(1, math.ceil(factor * len(rows) * facts.top_k / facts.n_experts - 1e-9))
            places = [(t, r) for t in rows for r in range(facts.top_k)]
            if priority == "rank":
                places.sort(key=lambda place: (place[1], place[0]))
            queue = {}
            for token, rank in places:
                expert = chunk.experts[token, number, rank]
                queue[expert] = queue.get(expert, 0) + 1
                if queue[expert] > capacity:
                    dropped.add((int(token), number, rank))
    return dropped


def test_drops_by_hand():
    # Four tokens, one expert each: 0 0 0 1 of 2 experts. Factor 1: C = ⌈4/2⌉ = 2, the third 0 is dropped.
    trace = trace_of([[0], [0], [0], [1]], n_experts=2)
    table = capacity_drops(trace, factors=(1.0, 1.5), phase=None)
    assert table["drop_rate"].sel(layer="L00").values.tolist() == [0.25, 0]
    assert table["lost_tokens"].sel(layer="L00").values.tolist() == [0.25, 0]
    by_position = table["drop_rate_by_position"].sel(factor=1.0, layer="L00")
    assert by_position.to_series().to_dict() == {"0": 0, "1": 0, "2–3": 0.5}


def test_who_queues_first_decides_who_is_dropped():
    # Tokens {0,1} {1,0} {0,1}, C = ⌈3·2/2⌉ = 3 at factor 1, 2 at factor ½·(4/3): ⌈2⌉ = 2.
    trace = trace_of([[0, 1], [1, 0], [0, 1]], n_experts=2)
    by_token, by_rank = (capacity_drops(trace, factors=(2 / 3,), phase=None, priority=p) for p in ("token", "rank"))
    # By token: the third token finds both queues full. By rank: first choices 0 1 0 fit, of the second 1 0 1 the 0 and
    # the last 1 do not.
    assert by_token["drop_rate_by_rank"].values.ravel().tolist() == pytest.approx([1 / 3, 1 / 3])
    assert by_token["lost_tokens"].item() == pytest.approx(1 / 3)
    assert by_rank["drop_rate_by_rank"].values.ravel().tolist() == pytest.approx([0, 2 / 3])
    assert by_rank["lost_tokens"].item() == 0
    assert by_token["drop_rate"].item() == by_rank["drop_rate"].item()


@settings(max_examples=15, deadline=None)
@given(traces())
def test_drops_are_those_of_a_slow_queue(trace):
    for priority in ("token", "rank"):
        table = capacity_drops(trace, factors=(1.0,), phase=None, batch_size=2, priority=priority, n_bootstrap=0).sel(
            factor=1.0
        )
        dropped = literal_drops(trace, 1.0, batch_size=2, priority=priority)
        for number, layer in enumerate(trace.layers):
            mine = [(token, rank) for token, at, rank in dropped if at == number]
            made = trace.n_tokens * trace.top_k
            assert table["drop_rate"].sel(layer=layer).item() == pytest.approx(len(mine) / made)
            for rank in range(trace.top_k):
                share = sum(r == rank for _, r in mine) / trace.n_tokens
                assert table["drop_rate_by_rank"].sel(layer=layer, rank=rank).item() == pytest.approx(share)
            lost = sum(sum(t == token for t, _ in mine) == trace.top_k for token in range(trace.n_tokens))
            assert table["lost_tokens"].sel(layer=layer).item() == pytest.approx(lost / trace.n_tokens)


def test_more_capacity_drops_less_and_enough_drops_nothing():
    table = capacity_drops(random_trace(seed=1), factors=(0.5, 1.0, 2.0, 4.0), phase=None, batch_size=2)
    rate = table["drop_rate"].values
    assert (np.diff(rate, axis=0) <= 0).all()
    assert (rate[-1] == 0).all()
    assert (table["drop_rate_low"] <= table["drop_rate_high"]).all()


def test_an_even_router_loses_what_is_said_and_a_popular_expert_more():
    even = capacity_drops(null_trace(seed=2, prompt_effect=0.0, n_prompts_a_task=60, n_layers=2), batch_size=4)
    gap = even["drop_rate"] - even["even_router"]
    assert float(abs(gap).max()) < 0.02
    busy = capacity_drops(planted_trace(seed=2, popular={(1, 5): 3.0}), batch_size=8).sel(factor=1.25)
    assert float(busy["drop_rate_low"].sel(layer="L01")) > 3 * float(busy["even_router"].sel(layer="L01")) + 0.05


def test_layers_of_another_stack_are_left_out_of_its_passes():
    table = capacity_drops(encoder_decoder_trace(), phase="generated", batch_size=6)
    assert np.isnan(table["drop_rate"].sel(layer="enc01")).all()
    assert np.isfinite(table["drop_rate"].sel(layer="dec01")).all()


def test_impossible_questions_are_refused():
    trace = random_trace(seed=0)
    for options in ({"factors": ()}, {"factors": (0.0,)}, {"priority": "luck"}, {"phase": "dreaming"}):
        with pytest.raises(SelectionError):
            capacity_drops(trace, **options)


def test_intervals_of_parts_by_hand():
    """Two prompts of task a, one of which loses all, the other nothing: draws give 0, ½ or 1 of its assignments."""
    # One pass of six tokens, C = ⌈6/2⌉ = 3: expert 0 takes the three of p0, p2 loses its two; p1 has expert 1 alone.
    trace = trace_of([[0], [0], [0], [1], [0], [0]], n_experts=2, prompts=[0, 0, 0, 1, 2, 2], tasks=("b", "a", "a"))
    table = capacity_drops(trace, factors=(1.0,), phase=None).sel(factor=1.0, layer="L00")
    of_a = table.sel(task="a")
    assert of_a["drop_rate_by_task"].item() == pytest.approx(2 / 3)
    assert (of_a["drop_rate_by_task_low"].item(), of_a["drop_rate_by_task_high"].item()) == (0, 1)
    # A task of one prompt has nothing to draw from.
    assert table.sel(task="b")["drop_rate_by_task"].item() == 0
    assert np.isnan(table.sel(task="b")["drop_rate_by_task_low"].item())


def test_intervals_of_parts_are_those_of_a_slow_bootstrap():
    trace = planted_trace(seed=5, n_tasks=2, n_prompts_a_task=8, popular={(1, 5): 2.0}, n_layers=2)
    dropped = literal_drops(trace, 1.0, batch_size=4, priority="token")
    table = capacity_drops(trace, factors=(1.0,), phase=None, batch_size=4, n_bootstrap=2000).sel(factor=1.0)
    prompt, rng = trace.tokens["prompt"].to_numpy(), np.random.default_rng(0)
    for number, layer in enumerate(trace.layers):
        lost_P = np.bincount([prompt[t] for t, at, _ in dropped if at == number], minlength=16)
        made_P = np.bincount(prompt, minlength=16) * trace.top_k
        for task, first in zip(trace.tasks, (0, 8), strict=True):
            drawn = rng.integers(first, first + 8, (2000, 8))
            rates = lost_P[drawn].sum(axis=1) / made_P[drawn].sum(axis=1)
            here = table.sel(layer=layer, task=task)
            ends = here["drop_rate_by_task_low"].item(), here["drop_rate_by_task_high"].item()
            assert ends == pytest.approx(np.quantile(rates, [0.025, 0.975]), abs=0.02)
            assert ends[0] <= here["drop_rate_by_task"].item() <= ends[1]
    parts = table[["drop_rate_by_position", "drop_rate_by_position_low", "drop_rate_by_position_high"]]
    assert (parts["drop_rate_by_position_low"] <= parts["drop_rate_by_position"] + 1e-12).all()
    assert (parts["drop_rate_by_position_high"] >= parts["drop_rate_by_position"] - 1e-12).all()


def test_many_prompts_are_drawn_in_blocks(monkeypatch):
    trace = planted_trace(seed=6, n_tasks=2, n_prompts_a_task=9, popular={(0, 1): 3.0}, n_layers=1)
    plain = capacity_drops(trace, phase=None)
    monkeypatch.setattr("analysis.capacity._MOST_UNITS", 7)
    blocks = capacity_drops(trace, phase=None)
    for name in ("drop_rate_by_task", "drop_rate_by_position"):
        np.testing.assert_array_equal(blocks[name], plain[name])
        width = [float((each[f"{name}_high"] - each[f"{name}_low"]).mean()) for each in (blocks, plain)]
        assert 0.4 < width[0] / width[1] < 2.5


def test_tasks_that_do_not_differ_are_covered_by_their_intervals():
    """Where every task is routed alike, its interval holds the rate of all about as often as it says."""
    inside = []
    for seed in range(10):
        # Tasks by turns: who is recorded first queues first, and loses less.
        trace = random_trace(seed=seed, n_prompts=96, n_tokens=1500, n_tasks=3, n_layers=2, with_logits=False)
        table = capacity_drops(trace, factors=(1.0,), phase=None, batch_size=32, seed=seed)
        low, high = (table[f"drop_rate_by_task_{end}"] for end in ("low", "high"))
        inside.append(((low <= table["drop_rate"]) & (table["drop_rate"] <= high)).values.ravel())
    assert 0.85 <= np.mean(inside) <= 1.0
