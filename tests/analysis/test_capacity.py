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
