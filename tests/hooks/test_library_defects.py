"""Defects of transformers that a reader of a trace should know: each shown, so that we hear of it when it is mended."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers

from tests.hooks.families import Family, text_batch
from tests.hooks.family_table import FAMILIES

IDS = text_batch(seed=0)
NEWEST = not transformers.__version__.startswith("5.17")


def family_named(name: str, **settings: object) -> Family:
    family = next(family for family in FAMILIES if family.name == name)
    return dataclasses.replace(family, settings={**family.settings, **settings})


def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.mark.skipif(not NEWEST, reason="transformers 5.17 cannot run doge at all")
def test_doge_is_not_causal() -> None:
    """The last token changes what came before it, since routing scores are reshaped across tokens."""
    model = family_named("doge").build()
    changed = IDS.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 50 + 3
    assert not torch.allclose(logits(model, IDS)[:, :-1], logits(model, changed)[:, :-1])


def test_longcat_cannot_run_with_one_rank() -> None:
    model = family_named("longcat_flash", moe_topk=1).build()
    with pytest.raises(ValueError, match="not enough values to unpack"):
        logits(model, IDS)


def test_dbrx_cannot_run_without_clipping() -> None:
    """`clip_qkv=None` means no clipping, and the library clamps between None and None."""
    settings = family_named("dbrx").settings
    model = family_named("dbrx", attn_config={**settings["attn_config"], "clip_qkv": None}).build()
    with pytest.raises((RuntimeError, ValueError), match="At least one of"):
        logits(model, IDS)


@pytest.mark.skipif(not NEWEST, reason="inkling2 is absent from transformers 5.17")
def test_inkling2_cannot_be_cast_to_bfloat16() -> None:
    model = family_named("inkling2").build().to(torch.bfloat16)
    with pytest.raises(RuntimeError, match="dtype"):
        logits(model, IDS)


def test_output_router_logits_leaves_out_the_hash_layers_of_deepseek_v4() -> None:
    model = family_named("deepseek_v4").build()
    with torch.no_grad():
        assert len(model(input_ids=IDS, output_router_logits=True).router_logits) == 2


def test_output_router_logits_of_jetmoe_names_the_attention_routers_twice() -> None:
    model = family_named("jetmoe").build()
    with torch.no_grad():
        assert len(model(input_ids=IDS, output_router_logits=True).router_logits) == 9
