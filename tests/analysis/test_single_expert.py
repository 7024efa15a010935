from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.signatures import signatures
from analysis.single_expert import expert_lifts, load_over_run, similar_experts
from routing import RoutingTrace, SelectionError
from tests.adapter_traces import hyper_moe_trace
from tests.counted import counted
from tests.traces import facts_of, null_trace, planted_trace, routed, trace_of

SHAPE = {"n_tasks": 6, "n_prompts_a_task": 8, "n_tokens_a_prompt": 12, "n_layers": 3}


def routed_trace(logits: np.ndarray, prompts_of_task: list[int], *, n_tokens: int) -> RoutingTrace:
    """A trace of these logits, (token, layer, expert), whose tasks have so many prompts of so many tokens each."""
    arrays = routed(logits.astype(np.float16).astype(np.float32), top_k=2, n_runners_up=0)
    n_prompts = sum(prompts_of_task)
    return RoutingTrace.from_arrays(
        arrays["experts"],
        scores=arrays["scores"],
        weights=arrays["weights"],
        layer_facts=facts_of(logits.shape[1], n_experts=logits.shape[2]),
        tokens=pd.DataFrame({"prompt": np.repeat(np.arange(n_prompts), n_tokens)}),
        prompts=pd.DataFrame(
            {
                "prompt": [f"p{number}" for number in range(n_prompts)],
                "task": np.repeat([f"t{number}" for number in range(len(prompts_of_task))], prompts_of_task),
                "task_type": "other",
                "text": "text",
            }
        ),
    )


def test_two_experts_that_the_same_tasks_use_are_found():
    rng = np.random.default_rng(0)
    n_tasks, n_prompts, n_tokens = 32, 6, 12
    task = np.repeat(np.arange(n_tasks), n_prompts * n_tokens)
    logits = rng.gumbel(0, 1, (len(task), 3, 8))
    gain = rng.normal(0, 1.5, n_tasks)[task]
    for layer, expert in ((0, 2), (2, 1)):
        logits[:, layer, expert] += gain
    found = similar_experts(routed_trace(logits, [n_prompts] * n_tasks, n_tokens=n_tokens), layer="L00", expert=2)
    assert len(found) == 3 * 8 - 1
    assert found["similarity"].is_monotonic_decreasing
    assert ("L00", 2) not in set(zip(found["layer"], found["expert"], strict=True))
    assert found.iloc[0][["layer", "expert"]].tolist() == ["L02", 1]
    assert found["beats_chance"].tolist() == [True] + [False] * 22


def test_similarity_is_the_correlation_of_lifts():
    trace = planted_trace(seed=4, **SHAPE)
    table = signatures(trace, of="expert", values="lift")
    found = similar_experts(trace, layer="L01", expert=3, n_permutations=10)
    row = found.iloc[0]
    by_name = {
        (str(layer), int(e)): values
        for layer, e, values in zip(table["layer"].values, table["expert"].values, table.to_numpy(), strict=True)
    }
    one, other = by_name["L01", 3], by_name[row["layer"], row["expert"]]
    if np.isfinite(one).all() and np.isfinite(other).all():
        assert row["similarity"] == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-6)


def test_without_an_effect_hardly_any_similarity_beats_chance():
    n_found = sum(
        bool(
            similar_experts(null_trace(seed=seed, **SHAPE), layer="L01", expert=1, n_permutations=200)[
                "beats_chance"
            ].any()
        )
        for seed in range(8)
    )
    assert n_found <= 2


def test_sharing_prompts_is_not_taken_for_sharing_tasks():
    # Each prompt has topics that all layers read, and tasks do not matter: on the same prompts a tenth of the experts
    # had a likeness beyond 99 % of the shuffles.
    found = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sizes = [20, 2, 10, 4, 6, 3, 8, 5]
        topics = rng.normal(0, 1, (sum(sizes), 6))
        logits = np.einsum("pi,ile->ple", topics, rng.normal(0, 1, (6, 3, 8))).repeat(8, axis=0)
        trace = routed_trace(logits + rng.gumbel(0, 1, logits.shape), sizes, n_tokens=8)
        found += [
            bool(similar_experts(trace, layer="L01", expert=e, n_permutations=200)["beats_chance"].any())
            for e in (1, 5)
        ]
    assert np.mean(found) <= 0.05


def test_without_prompts_nothing_beats_chance():
    trace = planted_trace(seed=0, **SHAPE)
    counts = counted(trace)
    found = similar_experts(counts, layer="L02", expert=1)
    assert np.isfinite(found["similarity"]).all()
    assert found["apart"].isna().all()
    assert not found["beats_chance"].any()
    # Each task has a single prompt: there are no two halves.
    single = similar_experts(planted_trace(seed=0, **SHAPE | {"n_prompts_a_task": 1}), layer="L02", expert=1)
    assert single["apart"].isna().all()
    assert not single["beats_chance"].any()


def test_weights_tell_where_the_trace_holds_them():
    trace = hyper_moe_trace(seed=0)
    found = similar_experts(trace, layer=trace.layers[0], expert=0, n_permutations=10)
    here = found[found["layer"] == trace.layers[0]]
    table = trace.vectors["expert_weight_similarity"].sel(layer=trace.layers[0]).isel(expert=0).to_numpy()
    assert here.set_index("expert")["weight_similarity"].to_dict() == pytest.approx(
        {e: table[e] for e in range(1, len(table))}
    )


def test_what_was_read_off_the_trace_once_serves_every_expert():
    trace = planted_trace(seed=4, **SHAPE)
    lifts = expert_lifts(trace)
    for expert in (0, 3):
        asked = {"layer": "L01", "expert": expert, "n_permutations": 50}
        pd.testing.assert_frame_equal(similar_experts(trace, **asked, lifts=lifts), similar_experts(trace, **asked))


def test_a_few_tasks_or_an_idle_expert_are_like_nobody():
    assert similar_experts(trace_of([[0, 1]]), layer="L00", expert=0).empty
    with pytest.raises(SelectionError):
        similar_experts(trace_of([[0, 1]]), layer="L00", expert=99)


def test_a_rate_is_told_window_by_window():
    # two prompts of two tokens a window; expert 0 is chosen by 3 of 4, then by 0 of 4
    experts = [[0, 1], [0, 1], [0, 1], [2, 1], [2, 1], [2, 1], [2, 1], [2, 1]]
    found = load_over_run(trace_of(experts, prompts=[0, 0, 1, 1, 2, 2, 3, 3]), layer="L00", expert=0, n_windows=2)
    assert found["rate"].tolist() == [0.75, 0.0]
    assert found["n_tokens"].tolist() == [4, 4]
    assert found["first_prompt"].tolist() == [0, 2]
    # residuals 2 − 1.5 and 1 − 1.5: √(0.5 · 2) / 4 = 0.25
    assert found["rate_low"].tolist() == pytest.approx([0.75 - 1.96 * 0.25, 0.0])
    assert found["rate_high"].tolist() == pytest.approx([1.0, 0.0])


def test_one_prompt_has_no_interval():
    found = load_over_run(trace_of([[0, 1], [2, 1]]), layer="L00", expert=0)
    assert found["rate"].tolist() == [0.5]
    assert found["rate_low"].isna().all()
