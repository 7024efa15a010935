"""HyperMoE on a decoder-only backbone: OLMoE's layers, each with a HyperExpert added to the expert branch.

References:
    Zhao et al., ACL 2024, "HyperMoE". The layer's output is y = Σ_{i∈top-k} G_i·E_i(x) + Ê(x): the HyperExpert is added
    without a weight of its own.
"""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict
from transformers import OlmoeConfig, OlmoeForCausalLM
from transformers.models.olmoe.modeling_olmoe import OlmoeModel, OlmoeSparseMoeBlock

from moe_models.adapters import KeepsOwnInitialization
from moe_models.hypermoe.hyper_expert import HyperNetwork
from moe_models.hypermoe.settings import layer_adapter, stack_hypernetwork


@strict
class HyperMoeConfig(OlmoeConfig):
    """An OLMoE configuration plus the widths of the HyperExpert and what it is made from (``conditioning``)."""

    model_type = "hypermoe"

    conditioning: str = "unselected"
    expert_embedding_dim: int = 32
    process_dim: int = 32
    hypernetwork_input_dim: int = 32
    layer_embedding_dim: int = 10
    hypernetwork_bottleneck: int = 64
    adapter_dim: int = 16
    norm_topk_prob: bool = True


class HyperMoeSparseBlock(OlmoeSparseMoeBlock):
    """A sparse block whose experts are joined by a HyperExpert, or by the ordinary adapter of control c2."""

    def __init__(self, config: HyperMoeConfig, layer: int, hypernetwork: HyperNetwork | None) -> None:
        super().__init__(config)
        self.hyper_expert = layer_adapter(config, layer, hypernetwork)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The experts' weighted sum plus the HyperExpert: (batch, position, d) in and out."""
        flat = hidden_states.reshape(-1, hidden_states.shape[-1])
        _, weights, index = self.gate(flat)
        return self.mixed(flat, index, weights).view_as(hidden_states)

    def mixed(self, flat: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """What the block makes of tokens already routed: (T, d) for experts ``index`` (T, k) and their weights."""
        out = self.experts(flat, index, weights)
        return out if self.hyper_expert is None else out + self.hyper_expert(flat, index)


class BatchesItsExperts:
    """For models whose experts are a stock class: they may run as one grouped product, as in the stock model."""

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        # transformers looks for the decorator in the source file of the model's class; here the experts are imported,
        # and the answer would be no: a loop over experts that is slow and does not compile.
        return True


class HyperMoeModel(KeepsOwnInitialization, BatchesItsExperts, OlmoeModel):
    """OLMoE's decoder with a HyperExpert in every layer and one hypernetwork for all of them."""

    config_class = HyperMoeConfig

    def __init__(self, config: HyperMoeConfig) -> None:
        super().__init__(config)
        self.hypernetwork = stack_hypernetwork(config, n_layers=config.num_hidden_layers)
        for number, layer in enumerate(self.layers):
            layer.mlp = HyperMoeSparseBlock(config, number, self.hypernetwork)
        self.post_init()


class HyperMoeForCausalLM(KeepsOwnInitialization, BatchesItsExperts, OlmoeForCausalLM):
    """HyperMoE with a language-model head; ``generate`` and the loss are OLMoE's."""

    config_class = HyperMoeConfig

    def __init__(self, config: HyperMoeConfig) -> None:
        super().__init__(config)
        self.model = HyperMoeModel(config)
        self.post_init()
