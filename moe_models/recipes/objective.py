"""What a decoder-only Mixture-of-Experts is trained on: the next token, and an even load."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import OlmoeForCausalLM

from .architecture import hidden_states
from .balance import assignment_counts, balance_loss, max_over_mean
from .batches import Batch


@dataclass(frozen=True, kw_only=True)
class MoeObjective:
    """The loss of packed rows.

    Attributes:
        balance: where load is balanced, ``per-layer`` or ``pooled``.
        balance_weight: weight of the balance loss.
        dropout: share of what each block adds that is set to zero.
    """

    balance: str
    balance_weight: float
    dropout: float = 0.1

    def __call__(self, model: OlmoeForCausalLM, batch: Batch) -> tuple[dict[str, torch.Tensor], Sequence[torch.Tensor]]:
        """Return the losses of a batch and each layer's router logits.

        ``total`` is the weighted mean over targets of the negative log-likelihood, plus the weighted balance loss;
        ``written`` and ``read`` are its plain means, in nats a token, over completions and prompts.
        """
        states, router_logits = hidden_states(
            model, batch["tokens"], batch["positions"], batch["documents"], dropout=self.dropout
        )
        targets = batch["tokens"].roll(-1, dims=1).reshape(-1).long()
        weights = batch["weights"].reshape(-1)
        logits = model.lm_head(states).reshape(-1, model.config.vocab_size)
        nll = functional.cross_entropy(logits.float(), targets, reduction="none")
        valid = (batch["documents"] > 0).reshape(-1).float()
        balanced = balance_loss(router_logits, valid, balance=self.balance, top_k=model.config.num_experts_per_tok)
        total = (nll * weights).sum() / weights.sum() + self.balance_weight * balanced
        written, read = weights >= 0.5, (weights > 0) & (weights < 0.5)
        losses = {
            "total": total,
            "written": _masked_mean(nll.detach(), written),
            "read": _masked_mean(nll.detach(), read),
            "balance": balanced.detach(),
        }
        return losses, [logits.detach() for logits in router_logits]

    def entry(self, model: OlmoeForCausalLM, readings: Sequence[torch.Tensor], batch: Batch) -> dict[str, list[float]]:
        """Return each layer's load on the batch, maximum over mean."""
        valid = (batch["documents"] > 0).reshape(-1)
        counts = assignment_counts(readings, valid, top_k=model.config.num_experts_per_tok)
        return {"load": [round(float(ratio), 2) for ratio in max_over_mean(counts)]}

    def identity(self) -> dict[str, Any]:
        """Return the options that a resumed run must share with the run it goes on with."""
        return asdict(self)


def _masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)
