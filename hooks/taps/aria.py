"""Aria in transformers 5.17: the experts are handed logits and choose inside."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hooks.taps.experts import ExpertsTap
from hooks.taps.reading import Emit, Reading
from hooks.taps.tap import Handle, call_arguments

__all__ = ["AriaTap"]

ARGUMENTS = ["hidden_states", "router_logits"]


@dataclass(eq=False)
class AriaTap(ExpertsTap):
    """The experts' own function of choice, called once more on the logits that they are handed."""

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> ExpertsTap | None:
        """The tap of an AriaExperts; in later versions it is handed ids, and the rule reads it."""
        chooses_inside = ARGUMENTS[1] in inspect.signature(type(module).forward).parameters
        return super().around(module, ancestors) if chooses_inside else ExpertsTap.around(module, ancestors)

    def attach(self, emit: Emit) -> list[Handle]:
        """One hook, on the experts."""

        def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.must_look_away():
                return
            logits = call_arguments(ARGUMENTS, args, kwargs)[1].detach()
            ids, weights = module.route_tokens_to_experts(logits)
            self.deliver(emit, Reading(ids, weights, logits))

        return [self.experts.register_forward_pre_hook(read, with_kwargs=True)]

    def one_expert(self, hidden: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Output of one expert a row: with all other logits at -inf their weights are exactly 0."""
        n_experts = self.router.out_features
        logits = torch.full((ids.shape[0], n_experts), float("-inf"), dtype=dtype, device=ids.device)
        return self.experts(hidden, logits.scatter(-1, ids.unsqueeze(-1), 0))
