from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.coactivation import coactivation
from analysis.common_paths import common_paths
from analysis.jackknife import blocks_of_prompts, jackknife_spread
from analysis.layer_information import information, layer_information
from analysis.next_layer import next_layer_predictability
from analysis.other_texts import partners
from analysis.paths import path_entropy, repetition
from analysis.placement_study import prompt_halves
from analysis.structure_kernels import pair_chances
from analysis.transitions import layer_steps, transitions
from analysis.vocabulary import context_independence
from routing.errors import SelectionError
from tests.traces import encoder_decoder_trace, null_trace, planted_trace, random_trace, trace_of


def share_called(p):
    values = np.asarray(p)[np.isfinite(p)]
    return (values < 0.05).mean()


# Exclusion


def test_pairs_of_even_experts_exclude_each_other_by_the_formula():
    # k (k − 1) / (E (E − 1)) of 3 of 6: 6/30.
    chances = pair_chances(np.full(6, 0.5), 3)
    off = ~np.eye(6, dtype=bool)
    assert chances[off].tolist() == pytest.approx([0.2] * 30)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.2, 5.0), min_size=4, max_size=7), st.integers(1, 3))
def test_pair_chances_are_those_of_all_sets_weighed(weights, k):
    weight = np.array(weights)
    rate, pair, whole = np.zeros(len(weight)), np.zeros((len(weight),) * 2), 0.0
    for chosen in itertools.combinations(range(len(weight)), k):
        mass = weight[list(chosen)].prod()
        whole += mass
        for one in chosen:
            for other in chosen:
                pair[one, other] += mass
    rate = np.diag(pair) / whole
    found = pair_chances(rate, k)
    assert found == pytest.approx(pair / whole, abs=1e-7)


def test_pairs_by_hand():
    # {0,1} {0,1} {2,3} {0,2} of 4 experts.
    trace = trace_of([[0, 1], [1, 0], [2, 3], [0, 2]], n_experts=4, prompts=[0, 1, 2, 3], tasks=("a",) * 4)
    table = coactivation(trace).sel(layer="L00")
    assert table["n_together"].sel(expert=0, other=1).item() == 2
    assert table["rate"].sel(expert=0, other=1).item() == pytest.approx(2 / 3)
    assert table["rate"].sel(expert=1, other=0).item() == 1
    assert table["jaccard"].sel(expert=0, other=2).item() == pytest.approx(1 / 4)
    assert np.isnan(table["rate"].sel(expert=0, other=0).item())
    rates = table["expected"].sum("other").values
    # Of k = 2, the chances with all others add up to the expert's own rate.
    assert rates.tolist() == pytest.approx([3 / 4, 2 / 4, 2 / 4, 1 / 4])


def test_pairs_do_not_know_the_names_of_experts_or_the_order_of_chunks():
    trace = random_trace(seed=3, n_tokens=200)
    table = coactivation(trace, n_blocks=4)
    swap = np.array([3, 0, 7, 1, 2, 6, 5, 4])
    other = trace_of(
        swap[trace.experts.values[:, :, :2].astype(int)],
        n_experts=8,
        prompts=trace.tokens["prompt"],
        tasks=tuple(trace.prompts["task"]),
    )
    renamed = coactivation(other, n_blocks=4)
    assert renamed["lift"].values[:, swap][:, :, swap] == pytest.approx(table["lift"].values, nan_ok=True)


def test_pairs_planted_are_found_and_none_where_none_are():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 8, 3000)
    second = (first + 1 + rng.integers(0, 7, 3000)) % 8
    second = np.where((first == 2) & (rng.random(3000) < 0.5), 5, second)
    trace = trace_of(np.stack([first, second], 1), n_experts=8, prompts=np.repeat(np.arange(60), 50), tasks=("a",))
    table = coactivation(trace).sel(layer="L00")
    called = np.argwhere(np.triu(table["significant"].values & (table["lift"].values > 0)))
    assert called.tolist() == [[2, 5]]
    assert table["lift_low"].sel(expert=2, other=5).item() > 0.5
    empty = coactivation(null_trace(seed=1, n_prompts_a_task=20, popular={(0, 0): 2.0}))
    assert not empty["significant"].any()
    assert share_called(empty["p_value"]) < 0.13


def test_uneven_loads_alone_bring_nobody_together():
    table = coactivation(null_trace(seed=4, n_prompts_a_task=30, popular={(0, 0): 3.0, (0, 1): 3.0}))
    pair = table.sel(layer="L00", expert=0, other=1)
    # By a product of rates the pair would seem to avoid each other.
    rate = float(pair["n_together"]) / 2520
    single = null_rates(table, "L00")
    assert abs(float(pair["lift"])) < 0.15
    assert rate < single[0] * single[1]


def null_rates(table, layer):
    return table["expected"].sel(layer=layer).sum("other").values


# Blocks and other texts


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(0, 1, 50)
    left_out = np.array([np.delete(values, number).mean() for number in range(50)])
    assert jackknife_spread(left_out) == pytest.approx(values.std(ddof=1) / 50**0.5)
    assert np.isnan(jackknife_spread(left_out[:1]))


def test_blocks_are_equally_large():
    block, n_blocks = blocks_of_prompts(random_trace(seed=0), n_blocks=3, seed=1)
    assert n_blocks == 3
    assert sorted(np.bincount(block)) == [2, 3, 3]


def test_partners_are_tokens_of_one_other_text_each():
    prompt = np.array([4, 4, 4, 1, 1, 9, 9, 9, 9])
    found = partners(prompt, rng=np.random.default_rng(2))
    for text in (1, 4, 9):
        assert len(set(prompt[found[prompt == text]])) == 1
    # Of two texts as long as each other, each token is somebody's partner.
    even = partners(np.repeat([0, 1], 4), rng=np.random.default_rng(0))
    assert sorted(even) == list(range(8))


# Transitions


def test_transitions_by_hand():
    # 0→1 twice, 0→2, 1→1: after 0 comes 1 in two of three.
    trace = trace_of([[[0], [1]], [[0], [1]], [[0], [2]], [[1], [1]]], n_experts=4)
    table = transitions(trace).sel(step="L00→L01")
    assert table["rate"].sel(expert=0).values[:3].tolist() == pytest.approx([np.nan, 2 / 3, 1 / 3], nan_ok=True)
    assert table["expected"].sel(expert=0, next_expert=1).item() == 0.75
    # Both ranks: {0,1}→{2,3} makes four pairs of a quarter each.
    both = transitions(trace_of([[[0, 1], [2, 3]]], n_experts=4), ranks="all").sel(step="L00→L01")
    assert both["n_tokens"].sel(expert=1, next_expert=3).item() == 0.25
    with pytest.raises(SelectionError, match="luck"):
        transitions(trace, ranks="luck")


def test_steps_keep_to_their_stack():
    assert layer_steps(encoder_decoder_trace()) == [(0, 1)]


def follow_trace(seed, *, share):
    """Layer 1 chooses what layer 0 chose, plus one, in this share of the tokens."""
    rng = np.random.default_rng(seed)
    first, drawn = rng.integers(0, 8, (2, 2400))
    second = np.where(rng.random(2400) < share, (first + 1) % 8, drawn)
    third = rng.integers(0, 8, 2400)
    experts = np.stack([first, second, third], 1)[:, :, None]
    return trace_of(experts, n_experts=8, prompts=np.repeat(np.arange(60), 40), tasks=("a",))


def test_planted_transitions_are_found_in_every_table():
    trace = follow_trace(0, share=0.5)
    table = transitions(trace)
    called = {tuple(cell) for cell in np.argwhere((table["significant"] & (table["lift"] > 0)).values).tolist()}
    assert called >= {(0, e, (e + 1) % 8) for e in range(8)}
    # One of twenty called may be false.
    assert len(called) <= 9
    told = layer_information(trace)
    assert told["p_value"].sel(layer="L00", other="L01").item() == pytest.approx(1 / 21)
    assert told["share"].sel(layer="L00", other="L01").item() > 0.15
    assert told["p_value"].sel(layer="L01", other="L02").item() > 0.05
    assert told["information_nats"].sel(layer="L01", other="L00") == told["information_nats"].sel(
        layer="L00", other="L01"
    )
    guessed = next_layer_predictability(trace)
    assert guessed.loc[("L00→L01", 1), "accuracy_low"] > 0.45
    assert guessed.loc[("L01→L02", 1), "accuracy_low"] < 0.15
    path = path_entropy(trace, window=3)
    assert path.loc["L00–L02", "p_value"] == pytest.approx(1 / 21)
    assert path.loc["L00–L02", "entropy_nats"] < path.loc["L00–L02", "dealt_nats"] - 0.2


def test_nothing_follows_where_layers_are_independent():
    trace = null_trace(seed=2, n_prompts_a_task=20, prompt_effect=1.0)
    assert not transitions(trace)["significant"].any()
    assert share_called(transitions(trace)["p_value"]) < 0.13
    told = layer_information(trace)["p_value"].values
    assert (told[np.triu_indices(4, 1)] > 0.05).sum() >= 4
    assert path_entropy(trace)["p_value"].iloc[0] > 0.05
    guessed = next_layer_predictability(trace)
    assert (guessed["accuracy"] - guessed["always_same"]).abs().max() < 0.05


def test_information_by_hand():
    # Each of two settles the other: ln 2.
    assert information(np.array([[5, 0], [0, 5]]))[0] == pytest.approx(np.log(2))
    assert information(np.array([[1, 1], [1, 1]]))[0] == pytest.approx(0)
    assert np.isnan(information(np.zeros((2, 2)))[0])


def test_guesses_are_those_of_a_slow_reading():
    trace = random_trace(seed=5, n_tokens=150, n_prompts=10)
    fitted, judged = prompt_halves(trace, seed=0)
    first = trace.experts.values[:, :, 0].astype(int)
    prompt = trace.tokens["prompt"].to_numpy()
    learn, judge = np.isin(prompt, fitted), np.isin(prompt, judged)
    table = next_layer_predictability(trace, n_bootstrap=0)
    for m in (1, 2, 4):
        hits = []
        for now, then in first[judge][:, :2]:
            after = np.bincount(first[learn & (first[:, 0] == now), 1], minlength=8)
            overall = np.bincount(first[learn, 1], minlength=8)
            ranked = sorted(range(8), key=lambda e: (-after[e], -overall[e], e))
            hits.append(then in ranked[:m])
        assert table.loc[("L00→L01", m), "accuracy"] == pytest.approx(np.mean(hits))
    with pytest.raises(SelectionError):
        next_layer_predictability(trace, guesses=(0,))


def test_paths_by_hand():
    # 0→0 twice, 1→1 twice: ln 2 of paths, 2 ln 2 if layers were independent.
    trace = trace_of([[[0], [0]], [[0], [0]], [[1], [1]], [[1], [1]]], n_experts=2)
    row = path_entropy(trace, window=2, n_deals=0).loc["L00–L01"]
    assert (row["entropy_nats"], row["independent_nats"]) == pytest.approx((np.log(2), 2 * np.log(2)))
    assert (row["n_paths"], row["top_share"], row["n_tokens"]) == (2, 0.5, 4)
    for window in (1, 40):
        with pytest.raises(SelectionError, match="window"):
            path_entropy(trace, window=window)


def test_common_paths_by_hand():
    experts = [[[0], [2]], [[0], [2]], [[1], [0]], [[0], [2]], [[1], [1]], [[-1], [1]]]
    trace = trace_of(
        experts,
        n_experts=3,
        prompts=[0, 0, 0, 1, 1, 1],
        tokens=pd.DataFrame({"prompt": [0, 0, 0, 1, 1, 1], "token_id": [5, 5, 6, 7, 6, 6]}),
        vocabulary={5: " the", 6: " of"},
    )
    found = common_paths(trace, layers=("L00", "L01"), n_shown=2)
    assert found["experts"].tolist() == ["0 2", "1 0"]
    assert found["n_tokens"].tolist() == [3, 1]
    assert found["share"].tolist() == pytest.approx([3 / 5, 1 / 5])
    assert found["pieces"].tolist() == ["the", "of"]  # 7 has no piece
    for layers in ((), ("L00", "L07")):
        with pytest.raises(SelectionError, match="Paths"):
            common_paths(trace, layers=layers)


def test_a_planted_path_is_found_and_none_where_layers_are_independent():
    found = common_paths(follow_trace(0, share=0.5), layers=("L00", "L01"), n_shown=8)
    assert sorted(found["experts"]) == [f"{e} {(e + 1) % 8}" for e in range(8)]
    assert found["p_value"].tolist() == pytest.approx([1 / 21] * 8)
    assert (found["share_low"] > 2 * found["dealt_share"]).all()
    called = [
        (common_paths(null_trace(seed=seed, n_prompts_a_task=6), layers=("L00", "L01", "L02"))["p_value"] < 0.05).any()
        for seed in range(12)
    ]
    assert np.mean(called) <= 0.2


# Repetition


def test_repetition_by_hand():
    # p0: {0,1} {0,2} {3,1}; p1: {1,0} alone. Pairs of p0: first 0→0 the same, 0→3 not; both share? {0}, nothing.
    trace = trace_of([[0, 1], [0, 2], [3, 1], [1, 0]], prompts=[0, 0, 0, 1], tasks=("a", "a"))
    row = repetition(trace).loc["L00"]
    assert (row["n_pairs"], row["same_first"], row["any_shared"]) == (2, 0.5, 0.5)
    # Firsts of the run 0 0 3 1: ¼ + 1/16 + 1/16. Of p0 0 0 3: two ordered pairs of six are the same.
    assert row["chance_load"] == pytest.approx(6 / 16)
    assert row["chance_text"] == pytest.approx(1 / 3)
    assert row["any_even"] == pytest.approx(1 - 1 / 6)


def test_repetition_of_mixtral_s_size():
    trace = random_trace(seed=0, n_experts=8, top_k=2)
    assert repetition(trace)["any_even"].tolist() == pytest.approx([0.4643] * 3, abs=1e-4)


def test_repetition_goes_on_over_chunks_and_between_generated_tokens():
    tokens = pd.DataFrame({"prompt": [0, 0, 1, 1, 0, 1], "position": [0, 1, 0, 1, 2, 2]})
    trace = trace_of([[0], [0], [1], [2], [0], [2]], prompts=tokens["prompt"], tasks=("a", "a"), tokens=tokens)
    row = repetition(trace).loc["L00"]
    assert (row["n_pairs"], row["same_first"]) == (4, 0.75)


def test_a_topic_is_no_neighborhood():
    topical = repetition(null_trace(seed=1, prompt_effect=2.0, n_prompts_a_task=25))
    assert (topical["chance_text"] > topical["chance_load"] + 0.1).all()
    assert (topical["excess_low"] < 0.01).all()
    rng = np.random.default_rng(0)
    experts = np.repeat(rng.integers(0, 8, 600), 2)[:, None]
    sticky = repetition(trace_of(experts, n_experts=8, prompts=np.repeat(np.arange(40), 30), tasks=("a",)))
    assert sticky.loc["L00", "excess_low"] > 0.3


# Vocabulary


def words_trace(seed, *, share, n_words=20):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, n_words, 3000)
    own = rng.integers(0, 8, n_words)
    experts = np.where(rng.random(3000) < share, own[ids], rng.integers(0, 8, 3000))[:, None]
    tokens = pd.DataFrame({"prompt": np.repeat(np.arange(60), 50), "token_id": ids})
    return trace_of(experts, n_experts=8, prompts=tokens["prompt"], tasks=("a",), tokens=tokens)


def test_agreement_by_hand():
    # Id 5 in p0, p1, p2 goes to 0 0 1: of three pairs one agrees. Id 6 only in p0.
    tokens = pd.DataFrame({"prompt": [0, 0, 1, 2], "token_id": [5, 6, 5, 5]})
    trace = trace_of([[0], [2], [0], [1]], prompts=tokens["prompt"], tasks=("a",) * 3, tokens=tokens)
    table = context_independence(trace, n_blocks=3)
    assert table["agreement"].item() == pytest.approx(1 / 3)
    assert table["chance"].item() == pytest.approx((4 + 1) / 9)
    assert table["covered"].item() == 0.75
    # Two occurrences choose 0; of the four tokens that stand across from them, two do.
    assert table["specialization"].sel(layer="L00", expert=0).item() == pytest.approx(0.5)


def test_the_token_decides_as_far_as_it_was_made_to():
    for share in (0.0, 0.7, 1.0):
        table = context_independence(words_trace(1, share=share))
        assert table["share"].item() == pytest.approx(share**2, abs=0.05)
        low, high = table["share_low"].item(), table["share_high"].item()
        assert low - 0.02 <= share**2 <= high + 0.02
    assert (context_independence(words_trace(1, share=1.0))["specialization"].fillna(1) == 1).all()


def test_rare_ids_do_not_look_like_specialists():
    table = context_independence(words_trace(2, share=0.0, n_words=1500))
    assert abs(table["share"].item()) < 0.05


def test_unknown_ids_say_nothing():
    trace = planted_trace(seed=0, n_tasks=2, n_prompts_a_task=3)
    bare = trace_of(trace.experts.values[:, :, :2], n_experts=8, prompts=trace.tokens["prompt"], tasks=("a",))
    assert np.isnan(context_independence(bare)["share"]).all()
