"""Each broken trace is found out, by layer and token."""

import numpy as np
import pandas as pd
import pytest

from routing import TraceError, check_invariants, violations
from tests.traces import encoder_decoder_trace, null_trace, planted_trace, random_trace, trace_of


@pytest.mark.parametrize(
    "trace",
    [random_trace(seed=0), planted_trace(seed=0), null_trace(seed=0), encoder_decoder_trace()],
    ids=["random", "planted", "null", "encoder-decoder"],
)
def test_made_traces_are_sound(trace):
    assert violations(trace) == []
    check_invariants(trace)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"experts": [[0, 1], [2, 2]]}, "L00, token 1: an expert stands at two ranks"),
        ({"experts": [[0, 1], [-1, 2]]}, "a rank is absent before one that is there"),
        ({"experts": [[0, 1], [2, -1]], "top_k": 2}, "not 2 selected experts"),
        ({"experts": [[0, 1], [2, 3]], "weights": [[0.5, 0.5], [0.4, 0.6]]}, "weights increase along rank"),
        ({"experts": [[0, 1], [2, 3]], "weights": [[0.5, np.nan], [1, 0]]}, "token 0: a weight is not finite"),
        (
            {"experts": [[0, 1, 2], [0, 1, 2]], "top_k": 1, "scores": [[0.5, 0.2, 0.1], [0.5, 0.1, 0.2]]},
            "token 1: scores of runners-up increase",
        ),
        ({"experts": [[0, 1]], "logits": [[1, 2, np.nan, 0]]}, "a logit is NaN"),
        ({"experts": [[0, 1]], "tokens": pd.DataFrame({"prompt": [3]})}, "name prompts outside the table of 1"),
        ({"experts": [[0, 1]], "tokens": pd.DataFrame({"nll": [-1.0]})}, "negative nll"),
        (
            {"experts": [[0, 1], [0, 1]], "tokens": pd.DataFrame({"position": [4, 4]})},
            "Token 1 repeats position 4",
        ),
    ],
)
def test_each_broken_invariant_is_named(parts, message):
    trace = trace_of(parts.pop("experts"), n_experts=4, checked=False, **parts)
    assert any(message in sentence for sentence in violations(trace)), violations(trace)
    with pytest.raises(TraceError, match="breaks"):
        check_invariants(trace)


def test_a_dropped_assignment_may_weigh_nothing():
    # Capacity dropped the first choice, so its weight is 0 and the second choice's is larger.
    trace = trace_of([[0, 1]], weights=[[0.0, 0.4]], dropped=[[True, False]])
    assert violations(trace) == []


def test_the_list_of_violations_is_bounded():
    trace = trace_of([[1, 1]] * 5, checked=False, prompts=[0, 1, 2, 3, 4])
    assert len(violations(trace, limit=1)) == 1
