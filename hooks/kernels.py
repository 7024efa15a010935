"""Two GPU kernels, so that recording shares the device with the model and is hardly noticed.

One ranks a router's choices and packs everything that is kept of them in a single pass over the logits; the other
finds the likelihood of tokens in a single pass over the vocabulary. In PyTorch's own operations the first takes about
thirty kernels a layer, the second several copies of the logits.

Triton comes with PyTorch's CUDA builds. Each kernel is compared with the PyTorch code the first time it is used; where
Triton or a compiler is missing, or the results differ, that code is used instead.

T token, E expert, K selected rank, R rank.
"""

# The annotations of a kernel are evaluated by Triton, so they cannot be postponed here.
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["fused_nll", "fused_ranking", "trusted"]

_N_ELEMENTS_A_PROGRAM = 4096
_N_VOCABULARY_A_STEP = 4096
_verdicts: dict[Any, bool] = {}


def trusted(key: Any, agrees: Callable[[], bool]) -> bool:
    """Whether a kernel may be used: it agreed with the PyTorch code when it was first asked for.

    Args:
        key: the kernel and the types that it was compiled for.
        agrees: runs both on the data at hand and compares; may raise.
    """
    if key not in _verdicts:
        try:
            _verdicts[key] = agrees()
        except Exception:  # noqa: BLE001 - no Triton, no compiler, an unsupported device: the other code serves
            _verdicts[key] = False
    return _verdicts[key]


def fused_ranking(
    ids_TK: Tensor, weights_TK: Tensor, logits_TE: Tensor, *, scores_TE: Tensor | None, into: dict[str, Tensor]
) -> None:
    """Rank one router's decisions and write what is kept of them.

    Args:
        ids_TK: selected experts, in the router's own order.
        weights_TK: their weights.
        logits_TE: the router's output.
        scores_TE: selection scores in float32, or None where unknown.
        into: arrays of one layer: experts (T, R), finite (T), and scores, weights, logits where they are kept.
    """
    n_tokens, top_k = ids_TK.shape
    n_experts = logits_TE.shape[1]
    experts, finite = into["experts"], into["finite"].view(torch.uint8)
    scores, weights, logits = into.get("scores"), into.get("weights"), into.get("logits")
    k_pad, e_pad = _power_of_two(top_k), _power_of_two(n_experts)
    block = max(1, _N_ELEMENTS_A_PROGRAM // max(e_pad, k_pad * k_pad))
    known = scores_TE is not None
    scores_TE = scores_TE if scores_TE is not None else logits_TE
    _kernels()["rank"][((n_tokens + block - 1) // block,)](
        ids_TK,
        weights_TK,
        logits_TE,
        scores_TE,
        experts,
        scores if scores is not None else experts,
        weights if weights is not None else experts,
        logits if logits is not None else experts,
        finite,
        n_tokens,
        n_experts,
        ids_TK.stride(0),
        weights_TK.stride(0),
        logits_TE.stride(0),
        scores_TE.stride(0),
        experts.stride(0),
        scores.stride(0) if scores is not None else 0,
        weights.stride(0) if weights is not None else 0,
        logits.stride(0) if logits is not None else 0,
        finite.stride(0),
        K=top_k,
        K_PAD=k_pad,
        N_RUNNERS=experts.shape[1] - top_k,
        E_PAD=e_pad,
        BLOCK=block,
        KNOWN=known,
        KEEPS_SCORES=scores is not None,
        KEEPS_LOGITS=logits is not None,
    )


def fused_nll(logits: Tensor, ids: Tensor, *, into: Tensor) -> None:
    """Negative log-likelihood of ids (batch, column) under logits (batch, column, vocabulary), in float32."""
    n_batch, n_columns = ids.shape
    if n_batch * n_columns == 0:
        return
    _kernels()["nll"][(n_batch * n_columns,)](
        logits,
        ids,
        into,
        n_columns,
        logits.stride(0),
        logits.stride(1),
        ids.stride(0),
        ids.stride(1),
        into.stride(0),
        into.stride(1),
        N_VOCABULARY=logits.shape[2],
        BLOCK=min(_N_VOCABULARY_A_STEP, _power_of_two(logits.shape[2])),
    )


def _power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


@functools.cache
def _kernels() -> dict[str, Any]:
    # Triton takes a second to import and is not there without a GPU.
    from hooks.triton_kernels import nll_kernel, rank_kernel

    return {"rank": rank_kernel, "nll": nll_kernel}
