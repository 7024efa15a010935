"""DeepSeek-V4: the first layers choose experts by a table of token ids; logits only weigh them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import nn

from hooks.taps.experts import ExpertsTap

__all__ = ["DeepseekV4Tap"]


@dataclass(eq=False)
class DeepseekV4Tap(ExpertsTap):
    """The rule; where the router holds a table, no score function leads from logits to experts."""

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> Self | None:
        """The tap of a DeepseekV4Experts."""
        tap = super().around(module, ancestors)
        if tap is not None and hasattr(tap.router, "tid2eid"):
            tap.score_function = "hash"
            tap.note = "A table of token ids chooses the experts; the logits only weigh them, so no runner-up exists."
        return tap
