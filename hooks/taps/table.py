"""Which tap reads which class; whatever is not named here is read by the rule."""

from __future__ import annotations

from torch import nn

from hooks.taps.aria import AriaTap
from hooks.taps.capacity import NllbTap, SwitchTap
from hooks.taps.doge import DogeTap
from hooks.taps.experts import ExpertsTap, is_experts_module
from hooks.taps.hash_router import DeepseekV4Tap
from hooks.taps.inner_logits import Gemma4Tap
from hooks.taps.jetmoe import JetMoeTap
from hooks.taps.llama4 import Llama4Tap
from hooks.taps.mxfp4 import Mxfp4Tap
from hooks.taps.tap import Tap
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
    "SwitchTransformersExperts": SwitchTap,
    "ZayaExperts": ZayaTap,
}


def tap_for(module: nn.Module, ancestors: list[nn.Module]) -> Tap | None:
    """The tap that reads a module, or None where the module is not where routing is read."""
    kind = EXCEPTIONS.get(type(module).__name__)
    if kind is None and is_experts_module(module):
        kind = ExpertsTap
    return None if kind is None else kind.around(module, ancestors)
