"""Routers with a capacity: what was dropped is told, and what NLLB's library makes of its router is told too."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers

from hooks.proof import prove_sites
from hooks.sites import Site, find_sites
from hooks.taps import Reading
from tests.hooks.family_table import FAMILIES
from tests.hooks.forwards import inputs_of, recorded

OLD = transformers.__version__.startswith("5.17")


def run(name: str, **settings: object) -> tuple[list[Site], list[Reading]]:
    family = next(each for each in FAMILIES if each.name == name)
    family = dataclasses.replace(family, settings={**family.settings, **settings})
    model = family.build()
    inputs = inputs_of(family, model)
    sites = prove_sites(model, find_sites(model), lambda: model(**inputs))
    return sites, [readings[0] for readings in recorded(model, sites, lambda: model(**inputs))]


@pytest.mark.skipif(OLD, reason="transformers 5.17 counts capacity along an axis of size one and never drops")
def test_switch_drops_the_tokens_that_come_after_the_capacity_of_their_expert() -> None:
    sites, readings = run("switch_transformers", expert_capacity=2)
    assert sites[0].facts.capacity == 2
    encoder = readings[0]
    wish = encoder.logits.argmax(-1)
    # The first two tokens of a text that want an expert have it; 2 texts of 9 tokens.
    order = torch.nn.functional.one_hot(wish.view(2, 9), 8).cumsum(1)
    late = order.gather(-1, wish.view(2, 9, 1)).flatten() > 2
    assert late.any()
    assert torch.equal(encoder.dropped[:, 0], late)
    assert torch.equal(encoder.ids[:, 0], wish), "a dropped token keeps the number of its expert"
    assert torch.equal(encoder.weights[:, 0] == 0, late)


@pytest.mark.skipif(not OLD, reason="the defect of 5.17: capacity is counted along an axis of size one")
def test_switch_of_5_17_never_drops() -> None:
    _, readings = run("switch_transformers", expert_capacity=2)
    assert not readings[0].dropped.any()


def test_nllb_is_recorded_as_the_routers_wish_with_the_weights_that_are_applied() -> None:
    sites, readings = run("nllb_moe")
    for site, reading in zip(sites, readings, strict=True):
        assert site.facts.proof == "weights"
        assert "router's wish" in site.facts.note
        best = reading.logits.softmax(-1).topk(2, dim=-1)
        real = ~reading.dropped.any(-1)
        assert real.any()
        assert torch.equal(reading.ids[real], best.indices[real])
        expected = best.values / best.values.sum(-1, keepdim=True)
        torch.testing.assert_close(reading.weights[real], expected[real])


def test_nllb_drops_padding_and_what_exceeds_the_capacity() -> None:
    # A tenth of 18 tokens: two tokens an expert.
    _, (encoder, _) = run("nllb_moe", moe_eval_capacity_token_fraction=0.1)
    assert encoder.dropped.any(dim=0).all()
    assert torch.equal(encoder.weights == 0, encoder.dropped)
    taken = torch.zeros(8, 2, dtype=torch.long)
    for expert in range(8):
        taken[expert] = ((encoder.ids == expert) & ~encoder.dropped).sum(0)
    assert taken[:, 0].max() <= 2


def test_nllb_noise_in_the_second_choice_does_not_reach_the_recorded_logits() -> None:
    """The library adds the noise to its logits in place; recorded are those that it was added to."""
    torch.manual_seed(0)
    _, (one, _) = run("nllb_moe", second_expert_policy="sampling")
    torch.manual_seed(1)
    _, (other, _) = run("nllb_moe", second_expert_policy="sampling")
    torch.testing.assert_close(one.logits, other.logits)
    assert torch.equal(one.ids[:, 0], other.ids[:, 0])


def test_experts_that_draw_dropout_are_proven_by_counts_and_their_random_numbers_left_alone() -> None:
    family = next(each for each in FAMILIES if each.name == "switch_transformers")
    model = family.build().train()
    inputs = inputs_of(family, model)

    def random_state() -> torch.Tensor:
        torch.manual_seed(0)
        model(**inputs)
        return torch.get_rng_state()

    plain, proven = random_state(), []
    sites = prove_sites(model, find_sites(model), lambda: proven.append(random_state()))
    assert {site.facts.proof for site in sites} == {"counts"}
    assert torch.equal(plain, proven[0])
