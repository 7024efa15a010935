"""Generated adapters in the form in which a trace stores them, and applied from that form.

S adapter, P parameter, d hidden, a width, N row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from routing import flattened_adapter

__all__ = ["Generated", "applied", "generated_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Generated:
    """Adapters on their way into a trace, on the host.

    Attributes:
        hidden, width: d and a.
        parameters: (S, P) float32 in the stored order: down, up, bias of down, bias of up.
        conditioning: for each name (S, feature) float32, what they were made from.
    """

    hidden: int
    width: int
    parameters: np.ndarray
    conditioning: Mapping[str, np.ndarray]


def generated_of(weights: Any, conditioning: Mapping[str, Tensor]) -> Generated:
    """The stored form of a model's `AdapterWeights` and of the vectors that they were made from."""
    down, bias_down, up, bias_up = (_host(part) for part in weights.parts())
    return Generated(
        hidden=down.shape[1],
        width=down.shape[2],
        parameters=flattened_adapter(down, up, bias_down, bias_up),
        conditioning={name: _host(vectors) for name, vectors in conditioning.items()},
    )


def applied(made: Generated, which: Tensor, hidden: Tensor) -> Tensor:
    """What the stored adapters add: ReLU(x·D + β_D)·U + β_U, adapter `which` (N) on rows (N, d), or (N, position, d).

    Written from the stored numbers alone, so that it proves them.

    Returns:
        (N, d) or (N, position, d) · what is added · any.
    """
    d, a = made.hidden, made.width
    parameters = torch.from_numpy(np.ascontiguousarray(made.parameters))
    down, up, bias_down, bias_up = parameters.split([d * a, a * d, a, d], dim=1)
    x = hidden if hidden.dim() == 3 else hidden[:, None]
    inner = torch.einsum("npd,nda->npa", x, down.reshape(-1, d, a)[which]) + bias_down[which][:, None]
    added = torch.einsum("npa,nad->npd", inner.clamp(min=0), up.reshape(-1, a, d)[which]) + bias_up[which][:, None]
    return added.reshape(hidden.shape)


def _host(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()
