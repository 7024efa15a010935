"""What a HyperMoE configuration adds to its backbone's, and the parts made from it."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedConfig

from moe_models.hypermoe.hyper_expert import HyperExpert, HyperExpertSizes, HyperNetwork, OrdinaryAdapter

CONDITIONINGS = ("unselected", "selected", "constant", "random", "adapter", "none")


def hyper_expert_sizes(config: PreTrainedConfig) -> HyperExpertSizes:
    """The HyperExpert's widths, in features, from either backbone's configuration.

    Raises:
        ValueError: the configuration names a conditioning that does not exist.
    """
    if config.conditioning not in CONDITIONINGS:
        msg = f"There is no conditioning {config.conditioning!r}. Choose one of {', '.join(CONDITIONINGS)}."
        raise ValueError(msg)
    return HyperExpertSizes(
        n_experts=config.num_experts,
        hidden=config.hidden_size,
        expert_embedding=config.expert_embedding_dim,
        process=config.process_dim,
        hypernetwork_input=config.hypernetwork_input_dim,
        layer_embedding=config.layer_embedding_dim,
        bottleneck=config.hypernetwork_bottleneck,
        adapter=config.adapter_dim,
    )


def stack_hypernetwork(config: PreTrainedConfig, *, n_layers: int) -> HyperNetwork | None:
    """The hypernetwork that all layers of a stack share; None for the controls that generate nothing."""
    sizes = hyper_expert_sizes(config)
    return None if config.conditioning in ("none", "adapter") else HyperNetwork(sizes, n_layers)


def layer_adapter(config: PreTrainedConfig, layer: int, hypernetwork: HyperNetwork | None) -> nn.Module | None:
    """What one layer adds to its expert branch: a HyperExpert, control c2's ordinary adapter, or nothing (c0)."""
    sizes = hyper_expert_sizes(config)
    if config.conditioning == "adapter":
        return OrdinaryAdapter(sizes.hidden, sizes.adapter)
    return None if hypernetwork is None else HyperExpert(sizes, layer, config.conditioning, hypernetwork)
