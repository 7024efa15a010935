"""What is special about some routers, each shown on its own."""

from __future__ import annotations

import pytest
import torch

from hooks.proof import prove_sites
from hooks.sites import find_sites
from tests.hooks.families import Family, text_batch
from tests.hooks.family_table import FAMILIES
from tests.hooks.forwards import Readings, inputs_of, recorded

BY_NAME = {family.name: family for family in FAMILIES}


def family_named(name: str) -> Family:
    return BY_NAME[name]


def run(name: str, *, n_columns: int = 40) -> tuple[list, Readings, torch.Tensor]:
    model = family_named(name).build()
    ids = text_batch(seed=3, n_columns=n_columns)
    sites = prove_sites(model, find_sites(model), lambda: model(input_ids=ids))
    return sites, recorded(model, sites, lambda: model(input_ids=ids)), ids


def test_hash_layers_choose_by_the_table_of_token_ids() -> None:
    sites, readings, ids = run("deepseek_v4")
    table = sites[0].tap.router.tid2eid
    assert torch.equal(readings[0][0].ids, table[ids.flatten()])
    assert sites[0].facts.note is not None
    assert sites[0].selection_scores(readings[0][0].logits) is None, "a table has no runner-up"
    assert sites[1].selection_scores(readings[1][0].logits) is not None


def test_identity_experts_are_numbered_after_the_real_ones() -> None:
    sites, readings, _ = run("longcat_flash")
    assert (sites[0].facts.n_experts, sites[0].facts.n_zero_experts) == (10, 2)
    ids = torch.cat([each[0].ids for each in readings])
    assert ids.max() >= 8, "some token chose to compute nothing"


def test_skips_keep_a_number_of_their_own() -> None:
    """Zaya hands its experts number 0 with weight 0 for a skip; recorded is what the router chose."""
    sites, readings, _ = run("zaya")
    skipped = 0
    for site, (reading,) in zip(sites, readings, strict=True):
        chosen = (reading.logits.softmax(-1) + site.tap.router.balancing_biases).argmax(-1, keepdim=True)
        assert torch.equal(reading.ids, chosen)
        assert torch.equal(reading.weights == 0, reading.ids == 8)
        skipped += int((reading.ids == 8).sum())
    assert skipped, "some token was skipped"


def test_attention_that_routes_comes_before_the_rest_of_its_layer() -> None:
    model = family_named("jetmoe").build()
    assert [site.facts.label for site in find_sites(model)][:2] == ["L00attn", "L00"]


def test_gemma_logits_are_logits_and_not_the_probabilities_that_the_router_returns() -> None:
    model, ids = family_named("gemma4").build(), text_batch(seed=3)
    sites = find_sites(model)
    returned: list[torch.Tensor] = []
    handle = sites[0].tap.router.register_forward_hook(lambda module, args, output: returned.append(output[0]))
    (reading,), *_ = recorded(model, sites, lambda: model(input_ids=ids))
    handle.remove()
    assert reading.logits.min() < 0
    torch.testing.assert_close(reading.logits.softmax(-1), returned[0])


@pytest.mark.parametrize("name", ["beam", "laguna", "step3p7", "openai_privacy_filter"])
def test_a_factor_that_the_block_applies_afterwards_is_noted(name: str) -> None:
    family = family_named(name)
    if not family.runs:
        pytest.skip(f"{name} is absent from this transformers")
    model = family.build()
    inputs = inputs_of(family, model)
    sites = prove_sites(model, find_sites(model), lambda: model(**inputs))
    assert "afterwards" in (sites[0].facts.note or "")
