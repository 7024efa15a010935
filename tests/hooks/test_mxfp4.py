"""GPT-OSS with MXFP4 weights: neither its router nor its experts is called, and yet it is read, or refused."""

from __future__ import annotations

from types import MethodType

import pytest
import torch
from transformers.integrations import mxfp4

from hooks.proof import prove_sites
from hooks.sites import find_sites
from routing.errors import RecordingError
from tests.hooks import cpu_kernels
from tests.hooks.families import text_batch
from tests.hooks.family_table import FAMILIES
from tests.hooks.forwards import recorded

IDS = text_batch(seed=0)


@pytest.fixture
def gpt_oss() -> torch.nn.Module:
    return next(family for family in FAMILIES if family.name == "gpt_oss").build()


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mxfp4, "triton_kernels_hub", cpu_kernels.KERNELS, raising=False)


def test_the_block_is_read_and_proven_by_a_replay_through_the_kernel(gpt_oss: torch.nn.Module, kernels: None) -> None:
    plain_sites = find_sites(gpt_oss)
    plain = recorded(gpt_oss, plain_sites, lambda: gpt_oss(input_ids=IDS))
    model = cpu_kernels.with_mxfp4_blocks(gpt_oss)
    sites = prove_sites(model, find_sites(model), lambda: model(input_ids=IDS))
    assert [site.facts.proof for site in sites] == ["replay"] * 3
    assert [site.facts.label for site in sites] == [site.facts.label for site in plain_sites]
    fused = recorded(model, sites, lambda: model(input_ids=IDS))
    for (one,), (other,) in zip(plain, fused, strict=True):
        assert torch.equal(one.ids, other.ids)
        torch.testing.assert_close(one.weights, other.weights)
        torch.testing.assert_close(one.logits, other.logits)


def test_a_kernel_that_routes_otherwise_is_refused_by_name(
    gpt_oss: torch.nn.Module, kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def routes_by_the_smallest(logits: torch.Tensor, top_k: int) -> tuple:
        return cpu_kernels.routing(-logits, top_k)

    monkeypatch.setattr(cpu_kernels.KERNELS.routing, "routing", routes_by_the_smallest)
    model = cpu_kernels.with_mxfp4_blocks(gpt_oss)
    with pytest.raises(RecordingError, match=r"GptOssTopKRouter at model\.layers\.0\.mlp"):
        prove_sites(model, find_sites(model), lambda: model(input_ids=IDS))


def test_a_block_whose_inner_modules_stay_silent_is_refused_by_name(gpt_oss: torch.nn.Module) -> None:
    """As with the MegaBlocks kernel, which replaces the block's forward and calls neither router nor experts."""

    def fused(self: torch.nn.Module, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        flat = hidden.flatten(0, -2)
        logits = torch.nn.functional.linear(flat, self.router.weight, self.router.bias)
        chosen, ids = logits.topk(2, dim=-1)
        return self.experts.forward(flat, ids, chosen.softmax(-1)).view_as(hidden), logits

    sites = find_sites(gpt_oss)
    for site in sites:
        site.tap.block.forward = MethodType(fused, site.tap.block)
    with pytest.raises(RecordingError, match=r"GptOssMLP at model\.layers\.0\.mlp ran without handing its routing"):
        prove_sites(gpt_oss, sites, lambda: gpt_oss(input_ids=IDS))
