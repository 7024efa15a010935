from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.dynamics import over_training, saturation
from routing import RoutingTrace, Selection
from routing.errors import TraceError
from routing.memory import trace_from_counts
from tests.traces import encoder_decoder_trace, facts_of, planted_trace, random_trace, trace_of


def test_saturation_by_hand():
    # shared experts of the tokens: {0,1}∩{1,0} = 2, {0,2}∩{0,3} = 1, {1,2}∩{3,0} = 0 → 3 of 6
    #   rates of the early one: 2/3 2/3 2/3 0, of the late one 1 1/3 0 2/3 → chance (2/3 + 2/9) / 2 = 4/9
    early, late = trace_of([[0, 1], [0, 2], [1, 2]]), trace_of([[1, 0], [0, 3], [3, 0]])
    row = saturation(early, late).loc["L00"]
    assert row["saturation"] == 0.5
    assert row["chance"] == pytest.approx(4 / 9)
    assert row["n_tokens"] == 3


def test_a_trace_agrees_with_itself_and_strangers_agree_by_chance():
    trace = random_trace(seed=0, n_tokens=400, with_logits=False)
    assert (saturation(trace, trace)["saturation"] == 1).all()
    strangers = [random_trace(seed=seed, n_tokens=3000, n_prompts=1, with_logits=False) for seed in (1, 2)]
    tokens = strangers[0].tokens.assign(phase="prompt")
    first, second = (
        RoutingTrace.from_arrays(
            each.experts.values, layer_facts=each.layer_facts, tokens=tokens, prompts=each.prompts, checked=False
        )
        for each in strangers
    )
    table = saturation(first, second)
    assert np.allclose(table["saturation"], table["chance"], atol=0.02)
    assert np.allclose(table["chance"], 2 / 8, atol=0.02)


def test_what_was_generated_is_not_compared_and_order_does_not_matter():
    prompts = pd.DataFrame({"prompt": ["b", "a"], "task": "t"})
    tokens = pd.DataFrame({"prompt": [0, 1, 1], "position": [0, 0, 1], "token_id": [5, 6, 7]})
    tokens["phase"] = ["prompt", "prompt", "generated"]
    facts = facts_of(1, n_experts=4, top_k=1)
    early = RoutingTrace.from_arrays(np.array([[[0]], [[1]], [[2]]]), layer_facts=facts, tokens=tokens, prompts=prompts)
    late = RoutingTrace.from_arrays(
        np.array([[[1]], [[0]]]),
        layer_facts=facts,
        tokens=pd.DataFrame({"prompt": [0, 1], "position": [0, 0], "token_id": [6, 5]}),
        prompts=prompts.iloc[::-1].reset_index(drop=True),
    )
    table = saturation(early, late)
    assert table.loc["L00", ["saturation", "n_tokens"]].tolist() == [1, 2]


def test_stacks_are_compared_with_themselves():
    trace = encoder_decoder_trace()
    table = saturation(trace, trace)
    assert table["n_tokens"].to_dict() == {"enc01": 42, "enc03": 42, "dec01": 0}
    assert np.isnan(table.loc["dec01", "saturation"])  # the decoder's tokens were all generated


def test_over_training_sees_a_specialist_being_born():
    traces = {
        str(step): planted_trace(seed=3, n_tasks=4, strength=strength, popular={(0, 1): gain}, with_logits=False)
        for step, strength, gain in ((100, 0.0, 0.0), (1000, 2.0, 1.0), (20, 0.0, 0.0), (5000, 4.0, 3.0))
    }
    table = over_training(traces, n_permutations=99)
    assert table.index.get_level_values("step").unique().tolist() == [20, 100, 1000, 5000]
    last_layer, first_layer = table.xs("L03", level="layer"), table.xs("L00", level="layer")
    assert last_layer["excess_nats"].is_monotonic_increasing or last_layer["excess_nats"].iloc[-1] > 0.1
    assert last_layer["p_value"].tolist()[-1] == 0.01
    assert last_layer["saturation"].iloc[-1] == 1
    assert first_layer["max_over_mean"].iloc[-1] > 2 > first_layer["max_over_mean"].iloc[0]
    assert table.attrs["unit"]["saturation"] == "share of experts"


def test_what_differs_is_named():
    trace = random_trace(seed=4, n_prompts=8)
    with pytest.raises(TraceError, match="3 prompts"):
        saturation(trace, trace.select(Selection(prompts=tuple(trace.prompts["prompt"][:5]))))
    with pytest.raises(TraceError, match="top-k"):
        saturation(trace, random_trace(seed=4, top_k=1))
    with pytest.raises(TraceError, match="not the same tokens"):
        saturation(trace, random_trace(seed=5, n_prompts=8))
    counts = trace_from_counts(np.ones((1, 1, 2)), layer_facts=facts_of(1, n_experts=2), tasks=("a",), n_tokens=1)
    with pytest.raises(TraceError, match="level 'counts'"):
        saturation(counts, counts)
    with pytest.raises(TraceError, match="no traces"):
        over_training({})
