"""Multimodal inputs: image tokens are rows of the text routers, or have a pool of experts of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hooks.proof import Witness, prove_sites
from hooks.sites import attach_taps, find_sites
from tests.hooks.families import Family, Rule
from tests.hooks.family_table import FAMILIES
from tests.hooks.forwards import recorded

BY_NAME = {family.name: family for family in FAMILIES}
IMAGE = 60
# Two texts; the first has four tokens of an image between its words.
IDS = torch.tensor([[5, 9, 62, IMAGE, IMAGE, IMAGE, IMAGE, 63, 7, 11], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]])
IS_IMAGE = IDS == IMAGE

LLAMA4 = Family(
    "llama4_image",
    "Llama4ForConditionalGeneration",
    "Llama4Config",
    Rule("sigmoid", normalized=False),
    module="llama4",
    text_config="Llama4TextConfig",
    whole={
        "vision_config": {
            "hidden_size": 16,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
            "pixel_shuffle_ratio": 0.5,
        },
        "image_token_index": IMAGE,
    },
)
ARIA = Family(
    "aria_image",
    "AriaForConditionalGeneration",
    "AriaConfig",
    Rule("softmax"),
    module="aria",
    text_config="AriaTextConfig",
    whole={
        "vision_config": {
            "model_type": "idefics3_vision",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        "projector_patch_to_query_dict": {16: 4},
        "image_token_index": IMAGE,
    },
)


def patches(size: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(16, size, generator=torch.Generator().manual_seed(seed))


def picture() -> torch.Tensor:
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


CASES: dict[str, tuple[Family, dict[str, Any]]] = {
    "qwen3_vl_moe": (
        BY_NAME["qwen3_vl_moe"],
        {"pixel_values": patches(3 * 2 * 8 * 8), "image_grid_thw": torch.tensor([[1, 4, 4]])},
    ),
    "glm4v_moe": (
        BY_NAME["glm4v_moe"],
        {"pixel_values": patches(3 * 2 * 14 * 14), "image_grid_thw": torch.tensor([[1, 4, 4]])},
    ),
    "llama4": (LLAMA4, {"pixel_values": picture()}),
    "aria": (ARIA, {"pixel_values": picture()}),
}


@pytest.mark.parametrize("name", CASES)
def test_image_tokens_are_rows_of_the_text_routers(name: str) -> None:
    family, image = CASES[name]
    model = family.build()
    inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), **image}
    if name in ("qwen3_vl_moe", "glm4v_moe"):
        inputs["mm_token_type_ids"] = IS_IMAGE.int()
    sites = prove_sites(model, find_sites(model), lambda: model(**inputs))
    assert {site.facts.proof for site in sites} == {"replay"}
    other = {**inputs, "pixel_values": image["pixel_values"].flip(-1)}
    one = recorded(model, sites, lambda: model(**inputs))
    two = recorded(model, sites, lambda: model(**other))
    rows = IS_IMAGE.flatten()
    for (reading,), (flipped,) in zip(one, two, strict=True):
        assert reading.ids.shape[0] == IDS.numel()
        assert reading.rows is None
        assert not torch.allclose(reading.logits[rows], flipped.logits[rows]), "these rows are the image's"
        torch.testing.assert_close(reading.logits[IDS.shape[1] :], flipped.logits[IDS.shape[1] :])


def ernie() -> tuple[torch.nn.Module, dict[str, Any]]:
    family = BY_NAME["ernie4_5_vl_moe"]
    model = family.build()
    inputs = {
        "input_ids": IDS,
        "attention_mask": torch.ones_like(IDS),
        "pixel_values": patches(3 * 14 * 14),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "mm_token_type_ids": IS_IMAGE.int(),
        "moe_mm_token_type_ids": IS_IMAGE.int(),
    }
    return model, inputs


def test_each_pool_of_ernie_is_proven_and_says_which_rows_it_saw() -> None:
    model, inputs = ernie()
    sites = prove_sites(model, find_sites(model), lambda: model(**inputs))
    assert [(site.facts.label, site.facts.proof) for site in sites] == [
        (label, "replay") for label in ("L01", "L01vis", "L02", "L02vis")
    ]
    readings = recorded(model, sites, lambda: model(**inputs))
    for site, (reading,) in zip(sites, readings, strict=True):
        rows = IS_IMAGE.flatten() if site.facts.label.endswith("vis") else ~IS_IMAGE.flatten()
        assert torch.equal(reading.rows, rows.nonzero()[:, 0])
        assert len(reading.ids) == len(reading.rows)


def test_a_pool_that_has_not_run_stays_pending_until_it_does() -> None:
    model, inputs = ernie()
    words = {name: inputs[name] for name in ("input_ids", "attention_mask")} | {"input_ids": IDS.clamp(max=50)}
    sites = find_sites(model)
    witness = Witness(sites)
    handles = attach_taps(model, sites, witness.receive)
    with witness, torch.no_grad():
        model(**words)
    assert [site.facts.proof for site in witness.proven()] == ["replay", "none", "replay", "none"]
    assert witness.pending == {1, 3}
    with witness, torch.no_grad():
        model(**inputs)
    assert [site.facts.proof for site in witness.proven()] == ["replay"] * 4
    for handle in handles:
        handle.remove()
