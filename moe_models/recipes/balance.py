"""Balance of expert load: two losses that ask for it, and the load itself.

The two losses differ in one thing, where the mean is taken. Per layer, each layer has to use its experts evenly.
Pooled over layers, as the stock classes do, expert 3 of one layer may make up for expert 3 of another, and the loss
stays at its optimum while single layers lean on few experts.
"""

from collections.abc import Sequence

import torch
from transformers.models.olmoe.modeling_olmoe import load_balancing_loss_func

BALANCES = ("per-layer", "pooled")


def balance_loss(
    router_logits: Sequence[torch.Tensor], valid: torch.Tensor, *, balance: str, top_k: int
) -> torch.Tensor:
    """Return the balance loss of one batch.

    Args:
        router_logits: one (token, expert) tensor a layer.
        valid: (token,) 1 where a token counts, 0 on padding.
        balance: ``per-layer`` or ``pooled``.
        top_k: experts a token.

    Returns:
        Scalar; top_k when every expert gets the same share (of its layer, or of all layers together).
    """
    if balance == "pooled":
        # The stock function, mask and all; it wants the mask as (batch, sequence).
        return load_balancing_loss_func(
            tuple(router_logits), router_logits[0].shape[-1], top_k, attention_mask=valid[None, :]
        )
    losses = []
    n_valid = valid.sum()
    for logits in router_logits:
        probabilities = torch.softmax(logits.float(), dim=-1)
        chosen = torch.topk(probabilities, top_k, dim=-1).indices
        assigned = torch.zeros_like(probabilities).scatter_(1, chosen, 1.0)
        share_assigned = (assigned * valid[:, None]).sum(0) / n_valid
        mean_probability = (probabilities * valid[:, None]).sum(0) / n_valid
        losses.append((share_assigned * mean_probability).sum() * logits.shape[-1])
    return torch.stack(losses).mean()


def assignment_counts(router_logits: Sequence[torch.Tensor], valid: torch.Tensor, *, top_k: int) -> torch.Tensor:
    """Return how often each expert was assigned a valid token, (layer, expert), counts."""
    counts = []
    for logits in router_logits:
        chosen = torch.topk(logits, top_k, dim=-1).indices[valid.bool()]
        counts.append(torch.bincount(chosen.reshape(-1), minlength=logits.shape[-1]))
    return torch.stack(counts)


def max_over_mean(counts: torch.Tensor) -> torch.Tensor:
    """Return each layer's largest expert load over its mean load, (layer,), ratio, at least 1."""
    counts = counts.double()
    return counts.amax(-1) / counts.mean(-1)
