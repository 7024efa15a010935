"""The sample model: a stock OLMoE, and a forward pass for training it, or a HyperMoE, on packed rows.

The forward pass here runs the stock modules in the stock order. It adds what training needs and the stock one lacks:
dropout on what each block adds, a mask that keeps packed documents apart, and router logits as plain outputs, without
hooks, so that it compiles into one graph.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import OlmoeConfig, OlmoeForCausalLM

from moe_models.hypermoe.decoder import HyperMoeSparseBlock


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of the sample model; the defaults give 13.0 M parameters, 26 MB in bfloat16."""

    vocab_size: int = 7616
    hidden_size: int = 256
    n_layers: int = 8
    n_heads: int = 8
    n_key_value_heads: int = 4
    n_experts: int = 16
    top_k: int = 2
    expert_width: int = 96
    context_length: int = 512


def untrained_model(architecture: Architecture, *, end_token: int, padding_token: int, seed: int) -> OlmoeForCausalLM:
    """Return a freshly initialized model in float32 on the CPU; the same for the same seed."""
    torch.manual_seed(seed)
    options = configuration_options(architecture, end_token=end_token, padding_token=padding_token)
    model = OlmoeForCausalLM(OlmoeConfig(**options, norm_topk_prob=False))
    break_router_ties(model)
    return model


def configuration_options(architecture: Architecture, *, end_token: int, padding_token: int) -> dict[str, object]:
    """Return the architecture in the words of an OLMoE configuration."""
    return {
        "vocab_size": architecture.vocab_size,
        "hidden_size": architecture.hidden_size,
        "intermediate_size": architecture.expert_width,
        "num_hidden_layers": architecture.n_layers,
        "num_attention_heads": architecture.n_heads,
        "num_key_value_heads": architecture.n_key_value_heads,
        "num_experts": architecture.n_experts,
        "num_experts_per_tok": architecture.top_k,
        "max_position_embeddings": architecture.context_length,
        "tie_word_embeddings": True,
        "bos_token_id": end_token,
        "eos_token_id": end_token,
        "pad_token_id": padding_token,
        "router_aux_loss_coef": 0.01,
    }


@torch.no_grad()
def break_router_ties(model: OlmoeForCausalLM) -> None:
    """Draw the routers of a new model anew.

    A router of equal logits picks the same experts for every token; the stock class starts at zero or near it,
    depending on its version.
    """
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.mlp.gate.weight, std=0.02)


def hidden_states(
    model: OlmoeForCausalLM,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    documents: torch.Tensor,
    *,
    dropout: float = 0.0,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the last hidden states of packed rows and each layer's router logits.

    Args:
        model: the model.
        tokens: (row, column) token ids.
        positions: (row, column) places within the document.
        documents: (row, column) document numbers; a token sees only earlier tokens of its own document.
        dropout: share of the embedding, and of what each attention and MoE block adds, set to zero.

    Returns:
        (row, column, hidden) states after the last norm, and one (row · column, expert) tensor a layer.
    """
    body = model.model
    n_columns = tokens.shape[1]
    earlier = torch.ones(n_columns, n_columns, dtype=torch.bool, device=tokens.device).tril()
    visible = (documents[:, None, :, None] == documents[:, None, None, :]) & earlier
    states = functional.dropout(body.embed_tokens(tokens), dropout, training=dropout > 0)
    mask = torch.zeros((), dtype=states.dtype, device=states.device).masked_fill(~visible, float("-inf"))
    rotary = body.rotary_emb(states, position_ids=positions)
    router_logits = []
    for layer in body.layers:
        attended, _ = layer.self_attn(
            hidden_states=layer.input_layernorm(states), position_embeddings=rotary, attention_mask=mask
        )
        states = states + functional.dropout(attended, dropout, training=dropout > 0)
        normed = layer.post_attention_layernorm(states).reshape(-1, states.shape[-1])
        logits, weights, experts = layer.mlp.gate(normed)
        mix = layer.mlp.mixed if isinstance(layer.mlp, HyperMoeSparseBlock) else layer.mlp.experts
        mixed = mix(normed, experts, weights).reshape(states.shape)
        states = states + functional.dropout(mixed, dropout, training=dropout > 0)
        router_logits.append(logits)
    return body.norm(states), router_logits


def n_parameters(model: OlmoeForCausalLM) -> int:
    """Return how many parameters a model has, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
