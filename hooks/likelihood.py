"""How surprised the model was by each token it read, from the logits it returns anyway."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hooks.kernels import fused_nll, trusted

__all__ = ["output_logits", "token_nll"]

_N_VALUES_AT_ONCE = 1 << 26  # float32 copies of the logits stay below 256 MB


def output_logits(output: Any) -> Tensor | None:
    """The (batch, column, vocabulary) logits of a model's output; None where it has none."""
    logits = getattr(output, "logits", None)
    if logits is None and isinstance(output, tuple) and output:
        # Without return_dict the loss may come first; logits are the first tensor with three axes.
        logits = next((each for each in output[:2] if isinstance(each, Tensor) and each.dim() == 3), None)
    return logits if isinstance(logits, Tensor) and logits.dim() == 3 else None


@torch.no_grad()
def token_nll(logits: Tensor, ids: Tensor, *, before: Tensor | None) -> Tensor:
    """Negative log-likelihood of each input token under the logits one column before it.

    Args:
        logits: (batch, column, vocabulary); of the last columns only, where a model keeps no more.
        ids: (batch, column) tokens of this forward.
        before: (batch, vocabulary) logits of the last column of the forward before, or None where a text begins.

    Returns:
        (batch, column) · nats · 0 and up, NaN where nothing predicted the token.
    """
    n_batch, n_columns = ids.shape
    ids = ids.to(logits.device)
    if n_columns == 1 and before is not None and before.shape[0] == n_batch:
        return _nll(before[:, None], ids)
    nll = torch.full((n_batch, n_columns), torch.nan, device=logits.device, dtype=torch.float32)
    if before is not None and before.shape[0] == n_batch:
        nll[:, :1] = _nll(before[:, None], ids[:, :1])
    first = n_columns - logits.shape[1]
    if first >= 0 and logits.shape[1] > 1:
        nll[:, first + 1 :] = _nll(logits[:, :-1], ids[:, first + 1 :])
    return nll


def _nll(logits: Tensor, ids: Tensor) -> Tensor:
    logits = logits.detach()
    if logits.is_cuda and trusted(
        ("nll", logits.device, logits.dtype, logits.shape[2]), lambda: _fused_is_right(logits, ids)
    ):
        nll = torch.empty(ids.shape, device=logits.device, dtype=torch.float32)
        fused_nll(logits, ids, into=nll)
        return nll
    # A few rows at a time, since this makes copies of the logits in float32.
    rows = max(1, _N_VALUES_AT_ONCE // (logits.shape[1] * logits.shape[2]))
    parts = [_plain_nll(logits[start : start + rows], ids[start : start + rows]) for start in range(0, len(ids), rows)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _plain_nll(logits: Tensor, ids: Tensor) -> Tensor:
    logits = logits.float()
    # Ids outside the vocabulary stand for embeddings that came from elsewhere; they are masked or unknown.
    chosen = logits.gather(-1, ids.long().clamp(0, logits.shape[-1] - 1)[..., None]).squeeze(-1)
    return (logits.logsumexp(dim=-1) - chosen).clamp_min(0)


def _fused_is_right(logits: Tensor, ids: Tensor) -> bool:
    logits, ids = logits[:2], ids[:2]
    nll = torch.empty(ids.shape, device=logits.device, dtype=torch.float32)
    fused_nll(logits, ids, into=nll)
    return torch.allclose(nll, _plain_nll(logits, ids), rtol=1e-4, atol=1e-4)
