"""LongCat and Zaya: routers that may choose to compute nothing.

Such a choice is an expert without weights. It is numbered after the real ones, whatever the library does with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from hooks.taps.experts import ExpertsTap
from hooks.taps.reading import Emit, Reading
from hooks.taps.tap import Handle

__all__ = ["LongcatTap", "ZayaTap"]


@dataclass(eq=False)
class LongcatTap(ExpertsTap):
    """Identity experts come last in the router's own numbering; some versions do not return the logits."""

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> Self | None:
        """The tap of a LongcatFlashExperts."""
        tap = super().around(module, ancestors)
        if tap is not None:
            tap.n_zero_experts = module.zero_expert_num or 0
        return tap

    def attach(self, emit: Emit) -> list[Handle]:
        """The two hooks of the rule, and one for the logits where the router keeps them to itself."""

        def add_logits(module: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:  # noqa: ANN401
            if self.must_look_away() or len(outputs) > 2:
                return
            # transformers 5.17 uses the classifier's weight without calling it, so the product is made again.
            hidden = args[0].detach().flatten(0, -2).float()
            self._outputs = (*outputs, functional.linear(hidden, module.classifier.weight.detach().float()))

        router, experts = super().attach(emit)
        return [router, self.router.register_forward_hook(add_logits), experts]

    def one_expert(self, hidden: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Output of one expert a row, with a second of weight 0: the library cannot run with one rank."""
        pair = torch.stack([ids, (ids + 1) % self.experts.total_experts], dim=-1)
        weights = torch.zeros(pair.shape, dtype=dtype, device=ids.device)
        weights[:, 0] = 1
        return self.experts(hidden, pair, weights)


@dataclass(eq=False)
class ZayaTap(ExpertsTap):
    """The last class means skip; the experts are handed expert 0 with weight 0 in its place."""

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> Self | None:
        """The tap of a ZayaExperts."""
        tap = super().around(module, ancestors)
        if tap is not None:
            tap.n_zero_experts = 1
        return tap

    def decode(self, ids: Tensor, weights: Tensor, logits: Tensor | None) -> Reading:
        """Skips given back their own number; the router sets exactly their weights to 0."""
        reading = super().decode(ids, weights, logits)
        skip = self.experts.num_experts
        return Reading(torch.where(reading.weights == 0, skip, reading.ids), reading.weights, reading.logits)

    def one_expert(self, hidden: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Output of one expert a row, and zeros for a skip."""
        skip = (ids == self.experts.num_experts).unsqueeze(-1)
        return super().one_expert(hidden, ids * ~skip[:, 0], dtype).masked_fill(skip, 0)
