"""Tiny models of our three systems with random weights large enough for decided routing and audible adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from moe_models.hypermoe import (
    HyperMoeConfig,
    HyperMoeForCausalLM,
    HyperMoeSwitchConfig,
    HyperMoeSwitchForConditionalGeneration,
)
from moe_models.pha import PhaConfig, PhaForConditionalGeneration
from moe_models.task_moe import TaskMoeConfig, TaskMoeForConditionalGeneration
from tests.tiny import EOS, N_VOCABULARY, PAD, byte_tokenizer

SYSTEMS = ("hypermoe", "hypermoe_switch", "pha", "task_moe")
TASKS = ("choice", "span", "text")

_SPECIAL: dict[str, Any] = {
    "vocab_size": N_VOCABULARY,
    "pad_token_id": PAD,
    "eos_token_id": EOS,
}
_HYPER: dict[str, Any] = {
    "expert_embedding_dim": 6,
    "process_dim": 6,
    "hypernetwork_input_dim": 5,
    "layer_embedding_dim": 3,
    "hypernetwork_bottleneck": 7,
    "adapter_dim": 4,
}
_T5: dict[str, Any] = {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_heads": 2, "decoder_start_token_id": PAD}


def tiny_system(system: str, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A model of one of our systems with a hidden width of 32, in evaluation mode."""
    torch.manual_seed(seed)
    model: PreTrainedModel
    if system == "hypermoe":
        shape = {
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
            "num_key_value_heads": 2, "max_position_embeddings": 96, "initializer_range": 0.2,
            "num_experts": 6, "num_experts_per_tok": 2, "bos_token_id": None,
        }  # fmt: skip
        model = HyperMoeForCausalLM(HyperMoeConfig(**(_SPECIAL | shape | _HYPER | changes)))
    elif system == "hypermoe_switch":
        shape = {
            "num_layers": 4, "num_decoder_layers": 4, "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2,
            "num_experts": 4, "expert_capacity": 64,
        }  # fmt: skip
        config = HyperMoeSwitchConfig(**(_SPECIAL | _T5 | shape | _HYPER | changes))
        model = HyperMoeSwitchForConditionalGeneration(config)
    elif system == "pha":
        shape = {
            "num_layers": 2, "num_decoder_layers": 2, "tasks": list(TASKS), "adapter_dim": 4, "prototype_dim": 5,
            "retriever_dim": 7,
        }  # fmt: skip
        model = PhaForConditionalGeneration(PhaConfig(**(_SPECIAL | _T5 | shape | changes)))
    elif system == "task_moe":
        shape = {
            "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
            "max_position_embeddings": 96, "init_std": 0.2, "tasks": list(TASKS), "task_embedding_dim": 6,
            "router_hidden_dim": 5, "temperature": 0.7, "bos_token_id": None, "decoder_start_token_id": EOS,
            "forced_eos_token_id": None,
        }  # fmt: skip
        model = TaskMoeForConditionalGeneration(TaskMoeConfig(**(_SPECIAL | shape | changes)))
    else:
        raise KeyError(system)
    decided(model, seed=seed)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = PAD, EOS
    return model.eval()


@torch.no_grad()
def decided(model: PreTrainedModel, *, seed: int) -> None:
    """Routers that choose differently from row to row, and generators far from their start at zero."""
    generator = torch.Generator().manual_seed(seed + 1)
    for name, weight in model.named_parameters():
        if "router." in name or name.endswith("gate.weight"):
            weight.copy_(0.7 * torch.randn(weight.shape, generator=generator))
        elif ".heads." in name or "adapter." in name:
            weight.copy_(0.15 * torch.randn(weight.shape, generator=generator))


def save_tiny_system(folder: Path, system: str, **changes: Any) -> Path:
    """A folder that holds a tiny model of one of our systems, and its tokenizer."""
    tiny_system(system, **changes).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
