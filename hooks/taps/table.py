"""Which tap reads which class; whatever is not named here is read by the rule."""

from __future__ import annotations

from torch import nn

from hooks.taps.aria import AriaTap
from hooks.taps.capacity import NllbTap, SwitchTap
from hooks.taps.doge import DogeTap
from hooks.taps.experts import ExpertsTap, is_experts_module
from hooks.taps.hash_router import DeepseekV4Tap
from hooks.taps.hyper_moe import HyperMoeTap, HyperSwitchTap, generates
from hooks.taps.inner_logits import Gemma4Tap
from hooks.taps.jetmoe import JetMoeTap
from hooks.taps.llama4 import Llama4Tap
from hooks.taps.mxfp4 import Mxfp4Tap
from hooks.taps.retriever import RetrieverTap
from hooks.taps.tap import Tap
from hooks.taps.task_routes import RoutedLayerTap
from hooks.taps.token_pools import ErniePoolTap
from hooks.taps.zero_experts import LongcatTap, ZayaTap

__all__ = ["EXCEPTIONS", "tap_for"]

EXCEPTIONS: dict[str, type[Tap]] = {
    "AriaExperts": AriaTap,
    "DeepseekV4Experts": DeepseekV4Tap,
    "DiffusionGemmaTextExperts": Gemma4Tap,
    "DogeCDMoE": DogeTap,
    "Ernie4_5_VLMoeMoeExperts": ErniePoolTap,
    "Gemma4TextExperts": Gemma4Tap,
    "JetMoeMoA": JetMoeTap,
    "JetMoeMoE": JetMoeTap,
    "Llama4TextMoe": Llama4Tap,
    "LongcatFlashExperts": LongcatTap,
    "Mxfp4GptOssExperts": Mxfp4Tap,
    "NllbMoeExperts": NllbTap,
    "Retriever": RetrieverTap,
    "RoutedLayer": RoutedLayerTap,
    "SwitchTransformersExperts": SwitchTap,
    "ZayaExperts": ZayaTap,
}

# Blocks that change the experts' sum after the weights: recorded are the weights that the experts were handed.
AFTERWARDS = {
    "BeamMoE": "The block multiplies the experts' sum by routed_scaling_factor afterwards.",
    "Cohere2MoeSparseMoeBlock": "With shared experts the block may halve the sum of both afterwards.",
    "InklingMoE": "The weights share a softmax with the shared experts, so they sum to less than their scale.",
    "LagunaSparseMoeBlock": "The block multiplies the experts' sum by moe_routed_scaling_factor afterwards.",
    "MiniMaxM3VLSparseMoeBlock": "The block multiplies the experts' sum by routed_scaling_factor afterwards.",
    "OpenAIPrivacyFilterMLP": "The block multiplies the experts' sum by top-k afterwards.",
    "Step3p7SparseMoeBlock": "The block multiplies the experts' sum by moe_router_scaling_factor afterwards.",
}


def tap_for(module: nn.Module, ancestors: list[nn.Module]) -> Tap | None:
    """The tap that reads a module, or None where the module is not where routing is read."""
    kind = EXCEPTIONS.get(type(module).__name__)
    if kind is None and is_experts_module(module):
        kind = ExpertsTap
    tap = None if kind is None else kind.around(module, ancestors)
    if tap is not None and generates(tap.block):
        tap = (HyperSwitchTap if kind is SwitchTap else HyperMoeTap).around(module, ancestors)
    if tap is not None and tap.note is None:
        tap.note = AFTERWARDS.get(type(tap.block).__name__) or _control(tap.block)
    return tap


def _control(block: nn.Module) -> str | None:
    """What a reader must know of HyperMoE's controls that generate nothing."""
    if not hasattr(block, "hyper_expert") or generates(block):
        return None
    if block.hyper_expert is None:
        return "A control of HyperMoE that adds nothing to its experts' sum: no adapter is generated."
    return "A control of HyperMoE: an ordinary adapter is added to the experts' sum, and none is generated."
