"""The two contrastive terms that tie PHA's instance vectors to each other and to the prototypes.

Letters in shapes: B example, T task, z width of an instance vector.

References:
    Zhao et al., EMNLP 2023, "Prototype-based HyperAdapter for Sample-Efficient Multi-task Tuning".
"""

from __future__ import annotations

import torch
from torch.nn import functional


def instance_contrast(vectors: torch.Tensor, tasks: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Pulls instances of one task together: the mean over examples that share their task with another one.

    For example i with partners P(i): −(1/|P(i)|) Σ_{j∈P(i)} [ẑ_i·ẑ_j/τ − log Σ_{l≠i} exp(ẑ_i·ẑ_l/τ)].

    Args:
        vectors: instance vectors (B, z), of any length.
        tasks: the task of each example (B).
        temperature: τ, above zero.

    Returns:
        A scalar in nats; zero when no two examples share a task.
    """
    unit = functional.normalize(vectors, dim=-1)
    itself = torch.eye(len(tasks), dtype=torch.bool, device=vectors.device)
    similarity = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    log_share = (similarity - similarity.logsumexp(dim=-1, keepdim=True)).masked_fill(itself, 0.0)
    partners = (tasks[:, None] == tasks[None, :]) & ~itself
    n_partners = partners.sum(dim=-1)
    loss = -(log_share * partners).sum(dim=-1) / n_partners.clamp(min=1)
    return loss.sum() / (n_partners > 0).sum().clamp(min=1)


def prototype_contrast(
    vectors: torch.Tensor, tasks: torch.Tensor, prototypes: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """Pulls each instance to its task's prototype and away from the others: the mean over examples.

    For example i of task t: −[ẑ_i·k̂_t/τ − log Σ_{s≠t} exp(ẑ_i·k̂_s/τ)]. The positive is left out of the denominator, as
    in the authors' code, so the value may be below zero.

    Args:
        vectors: instance vectors (B, z).
        tasks: the task of each example (B).
        prototypes: one row a task (T, z), at least two.
        temperature: τ, above zero.

    Returns:
        A scalar in nats.
    """
    similarity = functional.normalize(vectors, dim=-1) @ functional.normalize(prototypes, dim=-1).T / temperature
    own = functional.one_hot(tasks, len(prototypes)).bool()
    positive = similarity[own]
    return (similarity.masked_fill(own, -torch.inf).logsumexp(dim=-1) - positive).mean()
