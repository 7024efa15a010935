from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from analysis.confidence import margins, routing_entropy
from analysis.confidence_kernels import N_BINS, bin_middles, sketch
from analysis.router_scores import score_distribution
from routing import RoutingTrace
from routing.errors import SelectionError, TraceError
from tests.traces import encoder_decoder_trace, facts_of, planted_trace, random_trace, trace_of, traces

WIDTH = 1 / 32  # a bin reaches this far, relative to its lower end


def test_a_histogram_bin_holds_its_middle():
    middles = bin_middles()
    counts, sums = sketch(middles.astype(np.float32)[:, None], np.zeros(N_BINS, dtype=np.int32), 1)
    assert (counts[0, 0] == 1).all()
    assert sums[0, 0] == pytest.approx(0, abs=1e-3)


def test_margins_by_hand():
    # least selected 0.3 and 0.25, first runner-up 0.2 and 0.25 → margins 0.1 and 0; three ranks, top-2
    scores, weights = [[0.5, 0.3, 0.2], [0.25, 0.5, 0.25]], [[0.6, 0.4], [0.6, 0.4]]
    trace = trace_of([[0, 1, 2], [0, 1, 2]], top_k=2, scores=scores, weights=weights)
    row = margins(trace, by=None).loc["L00"]
    assert row["n_tokens"] == 2
    assert row["mean"] == pytest.approx(0.05, abs=1e-3)
    assert row["q05"] == 0
    assert row["q95"] == pytest.approx(0.1, rel=WIDTH)


@settings(max_examples=10, deadline=None)
@given(trace=traces(with_logits=True))
def test_spreads_agree_with_the_obvious_version(trace):
    assert trace.scores is not None
    assert trace.logits is not None
    entropy = routing_entropy(trace, by="phase")
    scores, logits = trace.scores.values.astype(float), trace.logits.values
    phase = trace.tokens["phase"].to_numpy()
    for number, facts in enumerate(trace.layer_facts):
        for name in ("prompt", "generated"):
            shares = score_distribution(logits[phase == name, number], facts=facts).astype(float)
            row = entropy.loc[(name, facts.label)]
            if facts.n_experts == 1 or not len(shares):
                assert np.isnan(row["mean"])
                continue
            slow = -np.where(shares > 0, shares * np.log(np.maximum(shares, 1e-300)), 0).sum(axis=1)
            slow /= np.log(facts.n_experts)
            assert row["mean"] == pytest.approx(slow.mean(), abs=2e-3)
            assert row["q50"] == pytest.approx(np.quantile(slow, 0.5, method="inverted_cdf"), rel=2 * WIDTH, abs=1e-3)
    if trace.n_ranks == trace.top_k:
        with pytest.raises(TraceError, match="n_runners_up"):
            margins(trace)
        return
    table = margins(trace, by=None)
    for number, facts in enumerate(trace.layer_facts):
        slow = scores[:, number, : facts.top_k].min(axis=1) - scores[:, number, facts.top_k]
        slow = slow[np.isfinite(slow)]
        assert table.loc[facts.label, "n_tokens"] == len(slow)
        if len(slow):
            assert table.loc[facts.label, "mean"] == pytest.approx(slow.mean(), abs=1e-3)
            middle = np.quantile(slow, 0.5, method="inverted_cdf")
            assert table.loc[facts.label, "q50"] == pytest.approx(middle, rel=WIDTH, abs=1e-6)


def test_entropy_by_hand():
    # even logits: 1; one expert far ahead: 0; sigmoid scores ½ ½ ½ ½ as even as softmax's
    even = trace_of([[0, 1]], logits=[[0.0, 0.0, 0.0, 0.0]])
    sure = trace_of([[0, 1]], logits=[[60.0, 0.0, 0.0, 0.0]])
    assert routing_entropy(even, by=None).loc["L00", "mean"] == pytest.approx(1)
    assert routing_entropy(sure, by=None).loc["L00", "mean"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("score_function", ["softmax", "sigmoid", "sqrt_softplus", "softmax_of_top_k"])
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
def test_every_score_function_and_every_width_of_logit(score_function, kind):
    logits = np.random.default_rng(0).normal(0, 2, (30, 1, 4)).astype(np.float32)
    if kind == "bfloat16":
        logits = (logits.view(np.uint32) & 0xFFFF0000).view(np.float32)
    if kind == "float16":
        logits = logits.astype(np.float16)
    facts = facts_of(1, n_experts=4, score_function=score_function)
    trace = RoutingTrace.from_arrays(np.tile([0, 1], (30, 1, 1)), layer_facts=facts, logits=logits, checked=False)
    shares = score_distribution(np.asarray(logits[:, 0]), facts=facts[0]).astype(float)
    assert shares.sum(axis=1) == pytest.approx(np.ones(30), rel=1e-4)
    slow = -(shares * np.log(shares)).sum(axis=1) / np.log(4)
    assert routing_entropy(trace, by=None).loc["L00", "mean"] == pytest.approx(slow.mean(), abs=1e-3)


def test_an_unknown_score_function_has_no_entropy():
    facts = facts_of(1, n_experts=4, score_function="unknown")
    trace = RoutingTrace.from_arrays(
        np.array([[[0, 1]]]), layer_facts=facts, logits=np.zeros((1, 1, 4), dtype=np.float32), checked=False
    )
    assert np.isnan(routing_entropy(trace, by=None).loc["L00", "mean"])


def test_entropy_of_weights_by_hand():
    # weights ½ ½ → 1; ¾ ¼ → (¾ ln 4/3 + ¼ ln 4) / ln 2 = 0.811
    trace = trace_of([[0, 1], [0, 1]], weights=[[0.5, 0.5], [0.75, 0.25]])
    row = routing_entropy(trace, by=None, of="weights").loc["L00"]
    assert row["mean"] == pytest.approx((1 + 0.8113) / 2, abs=1e-3)
    assert np.isnan(routing_entropy(trace_of([[0], [1]]), by=None, of="weights").loc["L00", "mean"])


def test_stacks_do_not_mix():
    trace = encoder_decoder_trace(n_prompts=6, n_read=7, n_written=4)
    for table in (margins(trace, by=None), routing_entropy(trace, by=None)):
        assert table["n_tokens"].to_dict() == {"enc01": 42, "enc03": 42, "dec01": 24}
        assert table["mean"].between(0, 1).all()


def test_halves_add_up_to_the_whole():
    trace = planted_trace(seed=1, n_tasks=2, n_prompts_a_task=3)
    by_task, whole = margins(trace, by="task"), margins(trace, by=None)
    for layer in trace.layers:
        part = by_task.xs(layer, level="layer")
        assert part["n_tokens"].sum() == whole.loc[layer, "n_tokens"]
        assert (part["mean"] * part["n_tokens"]).sum() / part["n_tokens"].sum() == pytest.approx(
            whole.loc[layer, "mean"]
        )


def test_what_is_missing_is_named():
    trace = random_trace(seed=2, with_logits=False)
    with pytest.raises(TraceError, match="logits"):
        routing_entropy(trace)
    assert routing_entropy(trace, of="weights")["mean"].notna().all()
    with pytest.raises(SelectionError, match="prompt"):
        margins(trace, by="prompt")
    with pytest.raises(SelectionError, match="logits"):
        routing_entropy(trace, of="logits")
