"""Routers that return something else than the logits, while a layer inside them gives the logits themselves."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from hooks.taps.experts import ExpertsTap

__all__ = ["Gemma4Tap"]


@dataclass(eq=False)
class Gemma4Tap(ExpertsTap):
    """Gemma 4 and DiffusionGemma return probabilities under the name of logits."""

    def logits_source(self) -> nn.Module:
        """The projection inside the router."""
        return self.router.proj
