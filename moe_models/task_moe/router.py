"""The router of Task-level MoE: from a task's embedding to a weight for every expert of every layer.

Letters in shapes: B example, T task, L routed layer (encoder layers first), m experts a layer, D task embedding.

References:
    Ye, Zha and Ren, Findings of EMNLP 2022, "Eliciting and Understanding Cross-task Skills with Task-level
    Mixture-of-Experts".
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from moe_models.adapters import ConditioningLinear

SELECTIONS = ("softmax", "gumbel", "gumbel_hard", "average")

KNOCKED_OUT_LOGIT = -1e10
"""What a knocked-out expert's logit is lowered by before selection, so that the rest share its weight."""


class RouterUnit(nn.Module):
    """The router of one layer: Linear, GELU, Linear."""

    def __init__(self, task_embedding: int, hidden: int, n_experts: int) -> None:
        super().__init__()
        self.linear1 = ConditioningLinear(task_embedding, hidden)
        self.linear2 = ConditioningLinear(hidden, n_experts)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Logits (B, m) from task embeddings (B, D)."""
        return self.linear2(functional.gelu(self.linear1(embedding)))


class TaskRouter(nn.Module):
    """One independent router a layer, and the selection that turns their logits into weights.

    The temperature τ is saved with the weights (in the authors' code a loaded model forgets it).
    """

    def __init__(
        self, *, n_layers: int, n_experts: int, task_embedding: int, hidden: int, selection: str, temperature: float
    ) -> None:
        super().__init__()
        if selection not in SELECTIONS:
            msg = f"There is no selection {selection!r}. Choose one of {', '.join(SELECTIONS)}."
            raise ValueError(msg)
        self.selection = selection
        self.units = nn.ModuleList([RouterUnit(task_embedding, hidden, n_experts) for _ in range(n_layers)])
        self.initial_temperature = temperature
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """Router logits (L, B, m) of task embeddings (B, D)."""
        return torch.stack([unit(embedding) for unit in self.units])

    def forward(self, embedding: torch.Tensor, *, knocked_out: torch.Tensor | None = None) -> torch.Tensor:
        """The weight of every expert: (L, B, m), each row summing to 1.

        Noise is drawn in training only: an evaluation of the Gumbel modes uses softmax(R/τ), or the one expert of the
        largest logit in the hard mode.

        Args:
            embedding: task embeddings (B, D).
            knocked_out: experts that must not be selected, (L, m) of bool; their layer's other experts take over.
        """
        logits = self.logits(embedding)
        if knocked_out is not None:
            logits = logits + KNOCKED_OUT_LOGIT * knocked_out[:, None].to(logits)
        if self.selection == "average":
            open_to_choice = (logits > KNOCKED_OUT_LOGIT / 2).to(logits)
            return open_to_choice / open_to_choice.sum(dim=-1, keepdim=True)
        if self.selection == "softmax" or not self.training:
            weights = functional.softmax(logits / self.temperature, dim=-1)
            if self.selection == "gumbel_hard":
                return functional.one_hot(weights.argmax(dim=-1), weights.shape[-1]).to(weights)
            return weights
        return gumbel_weights(logits, self.temperature, hard=self.selection == "gumbel_hard")


def gumbel_weights(logits: torch.Tensor, temperature: torch.Tensor, *, hard: bool) -> torch.Tensor:
    """Gumbel-softmax weights; ``hard`` gives one-hot weights whose gradient is the soft ones' (straight-through)."""
    noise = -torch.empty_like(logits).exponential_().log()
    soft = functional.softmax((logits + noise) / temperature, dim=-1)
    if not hard:
        return soft
    one_hot = functional.one_hot(soft.argmax(dim=-1), soft.shape[-1]).to(soft)
    return one_hot - soft.detach() + soft
