"""HyperMoE on a Switch-like encoder–decoder: top-1 routing with the probability left as it is.

Only the expert branch is scaled by the router's probability P; the HyperExpert is not: y = P_{i*}·E_{i*}(x) + Ê(x). The
set of unselected experts is taken before capacity, so a token that its expert had no room for still gets its
HyperExpert. Its expert branch is zero, as in the library's Switch, or P·x, as in the authors' code
(``HyperMoeSwitchConfig.dropped_tokens``).

References:
    Zhao et al., ACL 2024, "HyperMoE"; Fedus et al., 2021, "Switch Transformers".
"""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict
from torch.nn import functional
from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration
from transformers.models.switch_transformers.modeling_switch_transformers import (
    SwitchTransformersSparseMLP,
    SwitchTransformersStack,
    SwitchTransformersTop1Router,
)

from moe_models.adapters import KeepsOwnInitialization
from moe_models.hypermoe.hyper_expert import HyperNetwork
from moe_models.hypermoe.settings import layer_adapter, stack_hypernetwork

DROPPED_TOKENS = ("zero", "scaled_input")


@strict
class HyperMoeSwitchConfig(SwitchTransformersConfig):
    """A Switch configuration plus the widths of the HyperExpert and what it is made from (``conditioning``).

    ``dropped_tokens`` is what the expert branch gives a token over its expert's capacity: ``zero``, or ``scaled_input``
    for P·x.
    """

    model_type = "hypermoe_switch"

    conditioning: str = "unselected"
    expert_embedding_dim: int = 32
    process_dim: int = 32
    hypernetwork_input_dim: int = 32
    layer_embedding_dim: int = 10
    hypernetwork_bottleneck: int = 64
    adapter_dim: int = 16
    dropped_tokens: str = "zero"


class PerSequenceTop1Router(SwitchTransformersTop1Router):
    """Switch's router with the capacity counted in each sequence, whichever transformers release runs it."""

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Dispatch mask after capacity (batch, position, N), probability (batch, position, 1), logits (…, N)."""
        x = hidden_states.to(self.dtype)
        if self.training and self.jitter_noise > 0:
            x = x * torch.empty_like(x).uniform_(1 - self.jitter_noise, 1 + self.jitter_noise)
        bias = None if self.classifier.bias is None else self.classifier.bias.to(self.dtype)
        logits = functional.linear(x, self.classifier.weight.to(self.dtype), bias)
        probability, index = functional.softmax(logits, dim=-1).max(dim=-1, keepdim=True)
        wanted = functional.one_hot(index.squeeze(-1), self.num_experts)
        mask = wanted * (wanted.cumsum(dim=-2) <= self.expert_capacity)
        return mask, probability.to(hidden_states.dtype), logits


class HyperMoeSwitchSparseMLP(SwitchTransformersSparseMLP):
    """Switch's sparse feed-forward joined by a HyperExpert, or by the ordinary adapter of control c2."""

    def __init__(self, config: HyperMoeSwitchConfig, layer: int, hypernetwork: HyperNetwork | None) -> None:
        super().__init__(config)
        if config.dropped_tokens not in DROPPED_TOKENS:
            choices = ", ".join(DROPPED_TOKENS)
            msg = f"Dropped tokens cannot be treated as {config.dropped_tokens!r}. Choose one of {choices}."
            raise ValueError(msg)
        self.dropped_tokens = config.dropped_tokens
        self.router = PerSequenceTop1Router(config)
        self.hyper_expert = layer_adapter(config, layer, hypernetwork)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The selected expert's scaled output plus the HyperExpert: (batch, position, d) in and out."""
        mask, probability, logits = self.router(hidden_states)
        n_experts, flat = mask.shape[-1], hidden_states.reshape(-1, hidden_states.shape[-1])
        out = self.experts(flat, mask.view(-1, 1, n_experts), probability.view(-1, 1))
        if self.dropped_tokens == "scaled_input":
            dropped = 1 - mask.sum(dim=-1, keepdim=True)
            out = out + (probability * dropped * hidden_states).view_as(out)
        if self.hyper_expert is not None:
            out = out + self.hyper_expert(flat, logits.argmax(dim=-1).view(-1, 1))
        return out.view_as(hidden_states)


class HyperMoeSwitchStack(KeepsOwnInitialization, SwitchTransformersStack):
    """Switch's encoder or decoder; its sparse layers share one hypernetwork of the stack's own."""

    config_class = HyperMoeSwitchConfig

    def __init__(self, config: HyperMoeSwitchConfig) -> None:
        super().__init__(config)
        self.hypernetwork = stack_hypernetwork(config, n_layers=len(self.block))
        for number, block in enumerate(self.block):
            if block.is_sparse:
                block.layer[-1].mlp = HyperMoeSwitchSparseMLP(config, number, self.hypernetwork)
        self.post_init()


class HyperMoeSwitchForConditionalGeneration(KeepsOwnInitialization, SwitchTransformersForConditionalGeneration):
    """HyperMoE for text-to-text tasks; two hypernetworks, one a stack, as in the authors' code."""

    config_class = HyperMoeSwitchConfig

    def __init__(self, config: HyperMoeSwitchConfig) -> None:
        super().__init__(config)
        self.encoder = HyperMoeSwitchStack(self.encoder.config)
        self.decoder = HyperMoeSwitchStack(self.decoder.config)
        self.post_init()
