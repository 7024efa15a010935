"""A HyperMoE to train from scratch, and its controls: alike in everything that two of them share."""

import zlib
from collections.abc import Callable, Mapping

import torch

from moe_models.adapters import SELF_INITIALIZED
from moe_models.hypermoe import HyperMoeConfig, HyperMoeForCausalLM

from .architecture import Architecture, break_router_ties, configuration_options
from .optimizer import Treatment, moe_treatment

HYPERMOE_SIZES = Architecture(n_layers=6, n_experts=8, top_k=2, expert_width=128)
"""With HyperMoeConfig's widths 8.4 M parameters, 17 MB in bfloat16."""

# A generated weight moves by the sum of what its whole bottleneck moves it by, about ten times as far a step as a
# weight that is learned directly; at the rest's own rate HyperMoE ends worse than the plain model (decision 0403).
GENERATED_RATE, ORDINARY_RATE = 0.1, 1.0


def untrained_hypermoe(
    architecture: Architecture,
    *,
    conditioning: str,
    widths: Mapping[str, int],
    end_token: int,
    padding_token: int,
    seed: int,
) -> HyperMoeForCausalLM:
    """Return a freshly initialized model in float32 on the CPU; for one seed, what two models share starts equal.

    The backbone is drawn first and alone. Each further part is drawn from a seed of its own, made from its name, so
    that leaving one part out shifts no other.

    Args:
        architecture: sizes of the backbone.
        conditioning: what the HyperExpert is made from.
        widths: sizes of the HyperExpert that differ from `HyperMoeConfig`'s defaults.
        end_token: id of the end token.
        padding_token: id of the padding token.
        seed: the run's seed.
    """
    options = configuration_options(architecture, end_token=end_token, padding_token=padding_token) | dict(widths)
    torch.manual_seed(seed)
    plain = HyperMoeForCausalLM(HyperMoeConfig(**options, conditioning="none"))
    break_router_ties(plain)
    model = HyperMoeForCausalLM(HyperMoeConfig(**options, conditioning=conditioning))
    model.load_state_dict(plain.state_dict(), strict=False)
    for name, part in model.named_modules():
        if isinstance(part, SELF_INITIALIZED):
            torch.manual_seed(zlib.crc32(f"{seed} {name}".encode()))
            part.reset_parameters()
    return model


def adapter_rate(conditioning: str) -> float:
    """Return the learning rate of the added parts over the rest's, as far as nothing else is asked for."""
    return ORDINARY_RATE if conditioning == "adapter" else GENERATED_RATE


def hypermoe_treatment(rate: float) -> Callable[[str, torch.nn.Parameter], Treatment]:
    """Return how parameters are stepped: OLMoE's as in an OLMoE, the added parts at ``rate`` × theirs."""

    def treatment(name: str, parameter: torch.nn.Parameter) -> Treatment:
        if "hypernetwork." in name or ".hyper_expert." in name:
            return Treatment(learning_rate_factor=rate, part="added")
        return moe_treatment(name, parameter)

    return treatment
