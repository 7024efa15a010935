"""Switch and NLLB: routers with a capacity, which hand masks and dense weights to their experts.

A token whose expert is full keeps that expert's number, with weight 0 and `dropped` set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hooks.taps.experts import ExpertsTap
from hooks.taps.reading import Reading
from hooks.taps.tap import Replay, relative_error

__all__ = ["NllbTap", "SwitchTap"]

# Above this a replay of NLLB's router is no replay of what its experts did.
NLLB_TOLERANCE = 3e-2
NLLB_NOTE = (
    "This transformers runs experts 0 and 1 whatever the router says, since the experts module takes the router's "
    "0/1 mask for expert numbers. Recorded is the router's wish; the weights are those applied."
)


@dataclass(eq=False)
class SwitchTap(ExpertsTap):
    """Top-1: the expert is the largest logit; where it is full, the mask is empty."""

    def logits_source(self) -> nn.Module:
        """The classifier: some versions return the winning probability under the name of logits.

        Our own Switch multiplies by the classifier's weight without calling it, and returns the logits.
        """
        return self.router if type(self.router).__name__ == "PerSequenceTop1Router" else self.router.classifier

    def decode(self, ids: Tensor, weights: Tensor, logits: Tensor | None) -> Reading:
        """Expert of the one-hot mask (row, 1, expert); where it is empty, the expert that was full."""
        mask = ids.detach().flatten(1)
        logits = _flat(logits, mask)
        applied = mask.any(dim=-1, keepdim=True)
        expert = torch.where(applied, mask.argmax(dim=-1, keepdim=True), logits.argmax(dim=-1, keepdim=True))
        return Reading(expert, weights.detach().reshape(-1, 1) * applied, logits, dropped=~applied)

    def one_expert(self, hidden: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Output of one expert a row, asked for by a one-hot mask."""
        mask = functional.one_hot(ids.unsqueeze(-1), num_classes=self.router.num_experts)
        return self.experts(hidden, mask, torch.ones(ids.shape[0], 1, dtype=dtype, device=ids.device))


@dataclass(eq=False)
class NllbTap(ExpertsTap):
    """Top-2: the experts are those with a weight in the dense row; where one has none, the router's next wish."""

    def logits_source(self) -> nn.Module:
        """The classifier; the router's own logits may have noise added in place."""
        return self.router.classifier

    def kept(self, outputs: Any) -> Any:  # noqa: ANN401
        """A copy of the logits, since sampling of the second expert adds noise to them in place."""
        return outputs.detach().clone()

    def decode(self, ids: Tensor, weights: Tensor, logits: Tensor | None) -> Reading:
        """Experts of a mask (row, expert) of the first choice and of dense weights (row, expert) of both."""
        mask, gates = ids.detach(), weights.detach()
        logits = _flat(logits, mask)
        first_applied = mask.any(dim=-1, keepdim=True)
        first = torch.where(first_applied, mask.argmax(-1, keepdim=True), logits.argmax(-1, keepdim=True))
        rest = gates.scatter(-1, first, 0)
        second_applied = rest.any(dim=-1, keepdim=True)
        wish = logits.scatter(-1, first, float("-inf")).argmax(-1, keepdim=True)
        second = torch.where(second_applied, rest.argmax(-1, keepdim=True), wish)
        chosen = torch.cat([first, second], dim=-1)
        applied = torch.cat([first_applied, second_applied], dim=-1)
        return Reading(chosen, gates.gather(-1, chosen) * applied, logits, dropped=~applied)

    def compared(self, hidden: Tensor, ids: Tensor, weights: Tensor, output: Tensor) -> Replay:
        """Against the experts that the router named; failing that, against what the library runs instead."""
        right = relative_error(self.replayed(hidden, ids, weights), output)
        if float(right) <= NLLB_TOLERANCE:
            return Replay(right, output.dtype)
        instead = torch.tensor([1, 0], device=ids.device).expand_as(ids)
        by_mask = self._summed(hidden, instead, weights)
        return Replay(relative_error(by_mask, output), output.dtype, kind="weights", note=NLLB_NOTE)

    def replayed(self, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """Sum over both ranks of weight × output of that expert."""
        return self._summed(hidden, ids, weights)

    def _summed(self, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        total = torch.zeros_like(hidden, dtype=torch.float32)
        for expert in ids.unique().tolist():
            row, rank = (ids == expert).nonzero(as_tuple=True)
            output = self.experts[f"expert_{expert}"](hidden[row]).float() * weights[row, rank, None].float()
            total.index_add_(0, row, output)
        # Outside training, token dropout is a factor.
        return total * (1 - self.experts.moe_token_dropout)


def _flat(logits: Tensor | None, mask: Tensor) -> Tensor:
    assert logits is not None, "the classifier is a module that the router calls"
    return logits.detach().reshape(mask.shape)
