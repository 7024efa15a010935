"""Weights of single experts, and how alike they are.

E expert, P parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hooks.sites import Site
from hooks.taps.task_routes import RoutedLayerTap

__all__ = ["expert_matrices", "weight_similarity"]

N_MULTIPLICATIONS = 1 << 38
"""Above this the comparison would keep a recording waiting for many seconds, and is left out."""

N_COLUMNS_AT_ONCE = 1 << 20


@torch.no_grad()
def weight_similarity(sites: Sequence[Site]) -> np.ndarray | None:
    """Cosine of the flattened weights of each two experts of a layer, zero-computation experts left out.

    Returns:
        (layer, expert, expert) · cosine · -1 to 1, NaN where a layer's experts cannot be told apart in its weights or
        do not exist; None if that is so in every layer, or if comparing them takes too long.
    """
    n_experts = max(site.facts.n_experts for site in sites)
    found = np.full((len(sites), n_experts, n_experts), np.nan, np.float32)
    work = 0
    for layer, site in enumerate(sites):
        n_real = site.facts.n_experts - site.facts.n_zero_experts
        matrices = list(expert_matrices(site, n_real))
        work += sum(n_real * matrix.numel() for matrix in matrices)
        if not matrices or work > N_MULTIPLICATIONS:
            continue
        products = sum(_products(matrix) for matrix in matrices)
        length = products.diagonal().sqrt()
        found[layer, :n_real, :n_real] = (products / length[:, None] / length[None]).clamp(-1, 1).cpu().numpy()
    return None if np.isnan(found).all() or work > N_MULTIPLICATIONS else found


def expert_matrices(site: Site, n_real: int) -> Iterator[Tensor]:
    """The parameters of a router's experts, as (E, P), part by part; nothing where they cannot be told apart."""
    tap = site.tap
    if n_real < 1:
        return
    if isinstance(tap, RoutedLayerTap):
        yield from _parallel(list(tap.block.blocks))
        return
    if tap.unit != "token":
        return
    children = list(tap.experts.children())
    if isinstance(tap.experts, (nn.ModuleDict, nn.ModuleList)) and len(children) == n_real:
        yield from _parallel(children)
        return
    # Some experts modules hold their router.
    parameters = [each for name, each in tap.experts.named_parameters() if not name.startswith("router")]
    if not parameters or any(not _readable(each) or each.shape[:1] != (n_real,) for each in parameters):
        return
    for each in parameters:
        yield each.detach().reshape(n_real, -1)


def _parallel(experts: Sequence[nn.Module]) -> Iterator[Tensor]:
    """The same parameter of each expert, one above the other."""
    for parts in zip(*(each.parameters() for each in experts), strict=False):
        if any(not _readable(part) or part.shape != parts[0].shape for part in parts):
            return
        yield torch.stack([part.detach().reshape(-1) for part in parts])


def _readable(parameter: Tensor) -> bool:
    # Offloaded, sharded and quantized weights are not what they stand for.
    return not parameter.is_meta and parameter.is_floating_point() and type(parameter) in (nn.Parameter, Tensor)


def _products(matrix: Tensor) -> Tensor:
    total = torch.zeros(len(matrix), len(matrix), device=matrix.device)
    for part in matrix.split(N_COLUMNS_AT_ONCE, dim=1):
        part = part.float()
        total += part @ part.T
    return total
