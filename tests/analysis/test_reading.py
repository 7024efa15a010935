from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.reading import prompt_tokens, token_experts, token_route
from routing.errors import SelectionError, TraceError
from routing.memory import trace_from_counts
from tests.traces import encoder_decoder_trace, facts_of, planted_trace, trace_of


def test_tokens_of_a_prompt_carry_their_pieces():
    trace = planted_trace(seed=0, n_tasks=2, n_prompts_a_task=2)
    found = prompt_tokens(trace, "sentiment-001")
    mine = trace.tokens[trace.tokens["prompt"] == 3]
    assert found["position"].tolist() == mine["position"].tolist()
    assert found["piece"].tolist() == trace.vocabulary.loc[mine["token_id"]].tolist()
    assert set(found["phase"]) == {"prompt", "generated"}
    assert np.isnan(found["nll"][0])


def test_a_token_without_a_piece_shows_its_number():
    trace = trace_of([[0, 1]], tokens=pd.DataFrame({"prompt": [0], "token_id": [17]}))
    assert prompt_tokens(trace, "p0")["piece"].tolist() == ["[17]"]


def test_experts_of_a_token_by_hand():
    # top-2 of 4, one runner-up. Rank goes by weight, so the least selected score is that of rank 0 here.
    trace = trace_of(
        [[2, 1, 3]],
        top_k=2,
        scores=[[0.3, 0.4, 0.25]],
        weights=[[0.6, 0.4]],
        logits=[[0.0, 0.0, 0.0, 0.0]],
    )
    row = token_experts(trace, "p0", layer="L00").iloc[0]
    assert row["expert"] == 2
    assert row["weight"] == pytest.approx(0.6, abs=1e-3)
    assert row["margin"] == pytest.approx(0.05, abs=1e-3)
    assert row["entropy"] == pytest.approx(1)


def test_route_of_a_token_by_hand():
    trace = trace_of([[[2, 1, 3], [0, 3, -1]]], top_k=2, scores=[[[0.5, 0.3, 0.2], [0.6, 0.4, np.nan]]])
    route = token_route(trace, "p0", position=0)
    assert route[["layer", "rank", "expert", "selected"]].values.tolist() == [
        ["L00", 0, 2, True],
        ["L00", 1, 1, True],
        ["L00", 2, 3, False],
        ["L01", 0, 0, True],
        ["L01", 1, 3, True],
    ]
    assert route["margin"].tolist()[:3] == pytest.approx([0.1] * 3, abs=1e-3)
    assert np.isnan(route["margin"].tolist()[3])
    assert np.isnan(route["weight"].tolist()[2])
    assert route["dropped"].isna().all()


def test_two_stacks_number_their_positions_alike():
    trace = encoder_decoder_trace()
    both = token_route(trace, "p1", position=2)
    assert set(both["layer"]) == {"enc01", "enc03", "dec01"}
    assert set(token_route(trace, "p1", position=2, stack="decoder")["layer"]) == {"dec01"}
    assert token_route(trace, "p1", position=6, stack="encoder")["dropped"].sum() == 1
    experts = token_experts(trace, "p1", layer="dec01")
    read = prompt_tokens(trace, "p1")["stack"] == "encoder"
    assert (experts["expert"].isna() == read).all()
    assert (experts["entropy"].isna() == read).all()


def test_a_prompt_without_tokens_is_an_empty_table():
    trace = trace_of([[0, 1]], tasks=("a", "b"))
    assert prompt_tokens(trace, "p1").empty
    assert token_experts(trace, "p1", layer="L00").empty


def test_what_is_not_there_is_named():
    trace = trace_of([[0, 1]])
    with pytest.raises(SelectionError, match="p9"):
        prompt_tokens(trace, "p9")
    with pytest.raises(SelectionError, match="L09"):
        token_experts(trace, "p0", layer="L09")
    with pytest.raises(SelectionError, match="position 4"):
        token_route(trace, "p0", position=4)
    counts = trace_from_counts(np.ones((1, 1, 2)), layer_facts=facts_of(1, n_experts=2), tasks=("a",), n_tokens=1)
    with pytest.raises(TraceError, match="level 'counts'"):
        prompt_tokens(counts, "a-0")
