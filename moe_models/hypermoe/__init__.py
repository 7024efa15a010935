"""HyperMoE: experts that were not selected still speak, through an adapter made from their embeddings."""

from moe_models.hypermoe.decoder import HyperMoeConfig, HyperMoeForCausalLM
from moe_models.hypermoe.hyper_expert import (
    HyperExpert,
    HyperNetwork,
    SelectionEmbedding,
    overridden_selection,
)
from moe_models.hypermoe.switch import HyperMoeSwitchConfig, HyperMoeSwitchForConditionalGeneration

__all__ = [
    "HyperExpert",
    "HyperMoeConfig",
    "HyperMoeForCausalLM",
    "HyperMoeSwitchConfig",
    "HyperMoeSwitchForConditionalGeneration",
    "HyperNetwork",
    "SelectionEmbedding",
    "overridden_selection",
]
