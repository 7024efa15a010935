"""Which tap reads which class; whatever is not named here is read by the rule."""

from __future__ import annotations

from torch import nn

from hooks.taps.experts import ExpertsTap, is_experts_module
from hooks.taps.tap import Tap

__all__ = ["EXCEPTIONS", "tap_for"]

EXCEPTIONS: dict[str, type[Tap]] = {}


def tap_for(module: nn.Module, ancestors: list[nn.Module]) -> Tap | None:
    """The tap that reads a module, or None where the module is not where routing is read."""
    kind = EXCEPTIONS.get(type(module).__name__)
    if kind is None and is_experts_module(module):
        kind = ExpertsTap
    return None if kind is None else kind.around(module, ancestors)
