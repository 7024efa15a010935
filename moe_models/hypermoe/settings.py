"""What a HyperMoE configuration adds to its backbone's, and the initialization both backbones share."""

from __future__ import annotations

import torch
from torch import nn

from moe_models.hypermoe.hyper_expert import (
    SELF_INITIALIZED,
    HyperExpert,
    HyperExpertSizes,
    HyperNetwork,
    OrdinaryAdapter,
)

CONDITIONINGS = ("unselected", "selected", "constant", "random", "adapter", "none")


def hyper_expert_sizes(config) -> HyperExpertSizes:  # noqa: ANN001
    """The HyperExpert's widths, in features, from either backbone's configuration.

    Raises:
        ValueError: the configuration names a conditioning that does not exist.
    """
    if config.conditioning not in CONDITIONINGS:
        msg = f"There is no conditioning {config.conditioning!r}. Choose one of {', '.join(CONDITIONINGS)}."
        raise ValueError(msg)
    return HyperExpertSizes(
        n_experts=config.num_experts,
        top_k=getattr(config, "num_experts_per_tok", 1),
        hidden=config.hidden_size,
        expert_embedding=config.expert_embedding_dim,
        process=config.process_dim,
        hypernetwork_input=config.hypernetwork_input_dim,
        layer_embedding=config.layer_embedding_dim,
        bottleneck=config.hypernetwork_bottleneck,
        adapter=config.adapter_dim,
    )


def stack_hypernetwork(config, *, n_layers: int) -> HyperNetwork | None:  # noqa: ANN001
    """The hypernetwork that all layers of a stack share; None for the controls that generate nothing."""
    sizes = hyper_expert_sizes(config)
    return None if config.conditioning in ("none", "adapter") else HyperNetwork(sizes, n_layers)


def layer_adapter(config, layer: int, hypernetwork: HyperNetwork | None) -> nn.Module | None:  # noqa: ANN001
    """What one layer adds to its expert branch: a HyperExpert, the ordinary adapter of control c2, or nothing (c0)."""
    sizes = hyper_expert_sizes(config)
    if config.conditioning == "adapter":
        return OrdinaryAdapter(sizes)
    return None if hypernetwork is None else HyperExpert(sizes, layer, config.conditioning, hypernetwork)


class HyperMoeInitialization:
    """Leaves the parts that initialize themselves alone; the rest is the backbone's affair."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, SELF_INITIALIZED):
            module.reset_parameters()
        else:
            super()._init_weights(module)
