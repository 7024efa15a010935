"""Tiny true models with random weights, and a tokenizer of bytes: what a recording can be tested on in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
)

PAD, EOS = 0, 1
N_VOCABULARY = 258


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are bytes: no merges, no text that it does not know."""
    pieces = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def tiny_model(family: str = "olmoe", *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A model of the family with a hidden width of 32 and weights large enough for decided routing."""
    torch.manual_seed(seed)
    special: dict[str, Any] = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None}
    plain: dict[str, Any] = special | {
        "vocab_size": N_VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 96,
        "initializer_range": 0.2,
    }
    model: PreTrainedModel
    if family == "olmoe":
        model = OlmoeForCausalLM(OlmoeConfig(**(plain | {"num_experts": 8, "num_experts_per_tok": 2} | changes)))
    elif family == "deepseek_v3":
        shape = {
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 16,
            "q_lora_rank": 8,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
        }
        model = DeepseekV3ForCausalLM(DeepseekV3Config(**(plain | shape | changes)))
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(torch.randn_like(buffer) * 0.1)
    elif family == "gpt_oss":
        shape = {"num_local_experts": 8, "num_experts_per_tok": 3, "head_dim": 16, "sliding_window": 16}
        model = GptOssForCausalLM(GptOssConfig(**(plain | shape | changes)))
    elif family == "switch":
        shape = {
            "vocab_size": N_VOCABULARY,
            "d_model": 32,
            "d_kv": 16,
            "d_ff": 32,
            "num_layers": 4,
            "num_decoder_layers": 4,
            "num_sparse_encoder_layers": 2,
            "num_sparse_decoder_layers": 2,
            "num_heads": 2,
            "num_experts": 4,
            "expert_capacity": 64,
            "decoder_start_token_id": PAD,
        }
        config = SwitchTransformersConfig(**(special | shape | changes))
        model = SwitchTransformersForConditionalGeneration(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "router" in name:
                    weight.normal_(0, 0.5)
    else:
        raise KeyError(family)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = PAD, EOS
    return model.eval()


def save_tiny(folder: Path, family: str = "olmoe", *, tokenizer: bool = True, **changes: Any) -> Path:
    """A folder that holds a tiny model, and its tokenizer unless told otherwise."""
    tiny_model(family, **changes).save_pretrained(folder)
    if tokenizer:
        byte_tokenizer().save_pretrained(folder)
    return folder
