"""Questions about one expert, beside the literal form of their answers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest

from analysis.contexts import expert_contexts
from analysis.experts import expert_profile
from analysis.occurrences import expert_occurrences
from analysis.one_expert import NOT_ROUTED, rank_of_expert
from analysis.runners_up import runner_up_matrix
from routing import RoutingTrace, open_trace, save_trace
from tests.traces import encoder_decoder_trace, planted_trace, random_trace

SMALL = {"n_tasks": 3, "n_prompts_a_task": 4, "n_layers": 2, "n_experts": 5}
MAKERS = [partial(planted_trace, **SMALL), encoder_decoder_trace, random_trace]


@pytest.fixture(params=MAKERS, ids=["planted", "two stacks", "random"])
def trace(request) -> RoutingTrace:
    return request.param(seed=3)


def ids_of(trace: RoutingTrace, layer: int) -> list[list[int]]:
    return trace.experts.values[:, layer].tolist()


def experts_of(trace: RoutingTrace) -> list[tuple[int, int]]:
    return [(layer, expert) for layer, facts in enumerate(trace.layer_facts) for expert in range(facts.n_experts)]


def test_ranks_are_those_of_a_search_token_by_token(trace):
    for layer, expert in experts_of(trace):
        top_k = trace.layer_facts[layer].top_k
        for ranks in (slice(0, top_k), slice(top_k, top_k + 1)):
            found = np.concatenate(
                [rank_of_expert(chunk, number=layer, expert=expert, ranks=ranks) for chunk in trace.chunks(n_tokens=7)]
            )
            expected = []
            for ids in ids_of(trace, layer):
                at = [rank for rank in range(ranks.start, min(ranks.stop, len(ids))) if ids[rank] == expert]
                expected.append(at[0] if at else NOT_ROUTED if ids[0] == trace.absent else -1)
            assert found.tolist() == expected


def test_occurrences_are_counted_as_by_hand(trace):
    for layer, expert in experts_of(trace):
        found = expert_occurrences(trace, layer=trace.layers[layer], expert=expert)
        chosen, routed = [0] * trace.n_prompts, [0] * trace.n_prompts
        top_k = trace.layer_facts[layer].top_k
        for prompt, ids in zip(trace.tokens["prompt"], ids_of(trace, layer), strict=True):
            chosen[prompt] += expert in ids[:top_k]
            routed[prompt] += ids[0] != trace.absent
        assert found["n_chosen"].tolist() == chosen
        assert found["n_routed"].tolist() == routed


def test_a_profile_counts_tokens_as_by_hand(trace):
    layer, expert = 1, 2
    profile = expert_profile(trace, layer=trace.layers[layer], expert=expert, n_tokens=10_000)
    chosen: dict[int, int] = {}
    seen: dict[int, int] = {}
    top_k = trace.layer_facts[layer].top_k
    for token, ids in zip(trace.tokens["token_id"].tolist(), ids_of(trace, layer), strict=True):
        if token >= 0 and ids[0] != trace.absent:
            seen[token] = seen.get(token, 0) + 1
            chosen[token] = chosen.get(token, 0) + (expert in ids[:top_k])
    table = profile.tokens.set_index("token_id")
    assert table["n_chosen"].to_dict() == {token: n for token, n in chosen.items() if n}
    assert table["n_seen"].to_dict() == {token: seen[token] for token, n in chosen.items() if n}


def test_the_bounds_of_a_profile_are_those_of_each_task_for_itself():
    trace = planted_trace(seed=3, **SMALL)
    profile = expert_profile(trace, layer=trace.layers[1], expert=2, n_bootstrap=200, seed=7)
    counts = expert_occurrences(trace, layer=trace.layers[1], expert=2)
    rates = (counts["n_chosen"] / counts["n_routed"]).to_numpy()
    rng = np.random.default_rng(7)
    for number, task in enumerate(trace.tasks):
        of_task = rates[trace.task_of_prompt == number]
        means = rng.choice(of_task, size=(200, len(of_task))).mean(axis=1)
        bounds = profile.by_task.loc[task, ["rate_low", "rate_high"]].tolist()
        assert bounds == np.quantile(means, [0.025, 0.975]).tolist()


@pytest.mark.parametrize("order", ["highest", "nearest", "random"])
@pytest.mark.parametrize("role", ["selected", "runner_up"])
def test_contexts_are_those_of_a_search_token_by_token(trace, tmp_path, order, role):
    layer, expert, around = 1, 2, (3, 2)
    asked = {"order": order, "role": role, "near": 0.3 if order == "nearest" else None}
    size = {"n_contexts": 10_000, "n_before": around[0], "n_after": around[1]}
    found = expert_contexts(trace, layer=trace.layers[layer], expert=expert, **asked, **size)
    top_k = trace.layer_facts[layer].top_k
    ranks = range(top_k) if role == "selected" else range(top_k, min(top_k + 1, trace.n_ranks))
    held = trace.weights if role == "selected" else trace.scores
    tokens = trace.tokens
    fires: dict[int, tuple[int, float]] = {}
    for row, ids in enumerate(ids_of(trace, layer)):
        for rank in ranks:
            if ids[rank] == expert:
                fires[row] = (rank, float(held.values[row, layer, rank]))
    rows_of: dict[int, list[int]] = {}
    for row in fires:
        rows_of.setdefault(int(tokens["prompt"][row]), []).append(row)
    assert sorted(found["prompt"]) == sorted(trace.prompts["prompt"][prompt] for prompt in rows_of)
    by_name = {name: number for number, name in enumerate(trace.prompts["prompt"])}
    for each in found.itertuples():
        candidates = rows_of[by_name[each.prompt]]
        assert each.n_tokens == len(candidates)
        row = next(
            row for row in candidates if tokens["position"][row] == each.position and each.stack == tokens["stack"][row]
        )
        if order == "highest":
            assert row == max(candidates, key=lambda one: (fires[one][1], -one))
        elif order == "nearest":
            assert row == min(candidates, key=lambda one: (abs(fires[one][1] - 0.3), one))
        assert (each.rank, each.value) == (fires[row][0], pytest.approx(fires[row][1]))
        window = [
            other
            for other in range(max(0, row - around[0]), min(trace.n_tokens, row + around[1] + 1))
            if tokens["prompt"][other] == tokens["prompt"][row] and tokens["stack"][other] == tokens["stack"][row]
        ]
        assert each.at == window.index(row)
        pieces = [trace.vocabulary.get(token, f"[{token}]") for token in tokens["token_id"][window]]
        assert list(each.pieces) == pieces
        assert list(each.values) == pytest.approx([fires.get(other, (0, np.nan))[1] for other in window], nan_ok=True)
    # From the disk, where windows are read run by run, it is the same.
    stored = open_trace(save_trace(trace, tmp_path / "run", chunk_tokens=16))
    again = expert_contexts(stored, layer=trace.layers[layer], expert=expert, **asked, **size)
    pd.testing.assert_frame_equal(found, again)


def test_runners_up_are_counted_as_by_hand(trace):
    for layer, facts in enumerate(trace.layer_facts):
        if trace.n_ranks <= facts.top_k:
            continue
        found = runner_up_matrix(trace, layer=trace.layers[layer])
        counts = np.zeros((facts.n_experts, facts.n_experts), int)
        prompts = set()
        for prompt, ids in zip(trace.tokens["prompt"].tolist(), ids_of(trace, layer), strict=True):
            if all(each < facts.n_experts for each in ids[: facts.top_k + 1]):
                prompts.add(prompt)
                for selected in ids[: facts.top_k]:
                    counts[selected, ids[facts.top_k]] += 1
        assert found["n_tokens"].to_numpy().tolist() == counts.tolist()
        assert found.attrs["n_prompts"] == len(prompts)
