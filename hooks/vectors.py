"""Small tables that stand beside the routing: read off the model, or collected from its texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from hooks.expert_weights import weight_similarity
from hooks.sites import Site
from hooks.taps.hyper_moe import HyperMoeTap
from hooks.taps.retriever import RetrieverTap
from hooks.taps.task_routes import RoutedLayerTap

__all__ = ["InstanceVectors", "model_vectors"]


@torch.no_grad()
def model_vectors(sites: Sequence[Site], *, tasks: Sequence[str] = ()) -> dict[str, xr.DataArray]:
    """What the weights alone say of a model's experts, prototypes and tasks; read when the recording begins.

    Args:
        sites: the model's routers.
        tasks: names of the model's rows, where it has a row a task.

    Returns:
        by name · expert_weight_similarity (layer, expert, other) for any model whose experts can be read;
        expert_embedding (layer, expert, feature) of HyperMoE; prototype (prototype, feature) of PHA; task_embedding
        (task_row, feature), route and route_softmax_t1 (task_row, layer, expert) of Task-level MoE.
    """
    found: dict[str, xr.DataArray] = {}
    labels = [site.facts.label for site in sites]
    similarity = weight_similarity(sites)
    if similarity is not None:
        found["expert_weight_similarity"] = _table(similarity, layer=labels, expert=None, other=None)
    hyper = [site for site in sites if isinstance(site.tap, HyperMoeTap)]
    if hyper:
        tables = [site.tap.hyper_expert.selection.expert_embedding.weight for site in hyper]
        own = [site.facts.label for site in hyper]
        found["expert_embedding"] = _table(_host(torch.stack(tables)), layer=own, expert=None, feature=None)
    for site in sites:
        if isinstance(site.tap, RetrieverTap):
            found["prototype"] = _table(_host(site.tap.prototypes), prototype=list(tasks), feature=None)
    if sites and isinstance(sites[0].tap, RoutedLayerTap):
        found |= _route_tables(sites[0].tap.owner, labels, list(tasks))
    return found


def _route_tables(model: Any, labels: list[str], tasks: list[str]) -> dict[str, xr.DataArray]:
    table = model.task_embedding.weight
    router = model.router
    # The mode's own routes, without the noise that training draws.
    was_training, router.training = router.training, False
    try:
        routes = model.routes()
    finally:
        router.training = was_training
    plain = router.logits(table).float().softmax(dim=-1)
    by_task = {"task_row": tasks, "layer": labels, "expert": None}
    return {
        "task_embedding": _table(_host(table), task_row=tasks, feature=None),
        "route": _table(_host(routes.transpose(0, 1)), **by_task),
        "route_softmax_t1": _table(_host(plain.transpose(0, 1)), **by_task),
    }


class InstanceVectors:
    """PHA's instance vectors, prompt by prompt, as they arrive on the writing thread."""

    def __init__(self) -> None:
        self._rows: dict[str, np.ndarray] = {}

    def take(self, names: Sequence[str], vectors: np.ndarray) -> None:
        """Keep the vectors (prompt, feature) of these prompts."""
        self._rows |= dict(zip(names, vectors, strict=True))

    def table(self) -> dict[str, xr.DataArray]:
        """By name "instance": (prompt, feature) · instance vector z · any; nothing if there are none."""
        if not self._rows:
            return {}
        return {"instance": _table(np.stack(list(self._rows.values())), prompt=list(self._rows), feature=None)}


def _table(values: np.ndarray, **coords: list[str] | None) -> xr.DataArray:
    along = {
        name: np.arange(size) if given is None else given
        for (name, given), size in zip(coords.items(), values.shape, strict=True)
    }
    return xr.DataArray(values.astype(np.float32), dims=tuple(coords), coords=along)


def _host(values: Tensor | nn.Parameter) -> np.ndarray:
    return values.detach().float().cpu().numpy()
