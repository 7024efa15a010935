"""Route maps of Task-level MoE: computed from weights and task vectors, or read from the training script's arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from moe_models.authors.checkpoint import Checkpoint, read_array
from moe_models.authors.errors import AuthorsFileError, listed
from moe_models.authors.keys_backbones import STACKS
from moe_models.authors.ontology import TaskOrder
from moe_models.authors.recognition import SHORT_STACK, recognize
from moe_models.authors.routers import router_logits
from moe_models.authors.task_moe_model import task_vectors


@dataclass(frozen=True)
class RouteMap:
    """How much each expert of each layer counts for each task.

    Attributes:
        weights: (task, layer, expert) · share of the layer's output · 0 to 1, sums to 1 over expert.
        tasks: the name of each row.
        layers: the name of each layer, encoder first: enc00 … dec05.
        routed: for each layer whether its experts exist; the router speaks of ordinary layers as well.
        temperature: τ of the softmax; None where it is not known.
        categories: the task's category and sub-category, where an ontology was given.
        sentences: what was assumed or left out.
    """

    weights: np.ndarray
    tasks: tuple[str, ...]
    layers: tuple[str, ...]
    routed: tuple[bool, ...]
    temperature: float | None
    categories: tuple[tuple[str, str], ...] | None
    sentences: tuple[str, ...]


def routes(checkpoint: Checkpoint, *, temperature: float | None = None, order: TaskOrder | None = None) -> RouteMap:
    """The noise-free softmax routes of all tasks, softmax(R/τ), as the authors' analysis computes them; no data needed.

    Every kind of router is understood, those that our model cannot be as well.

    Args:
        checkpoint: with task_vecs.npy and id2task.json.
        temperature: τ; 1 where nothing is given, as in route_t1.npy. The first version has none (τ = 1) in this mode.
        order: which tasks, and in which order; all rows of task_vecs.npy where nothing is given.

    Raises:
        AuthorsFileError: the file is another system's, or the tasks do not fit.
    """
    found = recognize(checkpoint.tensors)
    if found.system != "Task-level MoE":
        msg = (
            f"This is {found.system} in its {found.form} form, without routes of tasks. Give a file of Task-level MoE."
        )
        raise AuthorsFileError(msg)
    vectors, tasks = task_vectors(checkpoint, found)
    said = list(found.sentences())
    if order is not None:
        if strangers := [task for task in order.tasks if task not in tasks]:
            msg = (
                f"id2task.json has no row for {listed(strangers)}. "
                "Give the split the model was trained on, or leave the order out."
            )
            raise AuthorsFileError(msg)
        vectors = vectors[[tasks.index(task) for task in order.tasks]]
        tasks, said = order.tasks, [*said, *order.sentences]
    if temperature is None:
        said.append(
            "The temperature τ is in no file (a model loaded by the authors' code has 5.0): routes are those of τ = 1, "
            "as in route_t1.npy."
        )
    logits = router_logits(checkpoint.tensors, vectors, recognized=found)
    tau = 1.0 if temperature is None else temperature
    layers = _layer_names(*(found.dims[f"{stack}_layers"] for stack in STACKS))
    return RouteMap(
        weights=torch.softmax(logits / tau, dim=-1).numpy(),
        tasks=tasks,
        layers=layers,
        routed=tuple(layer in found.layers for layer in layers),
        temperature=tau,
        categories=None if order is None else order.categories,
        sentences=tuple(said),
    )


def saved_routes(path: str | Path, *, order: TaskOrder, n_encoder_layers: int | None = None) -> RouteMap:
    """The routes in a route.npy or route_t1.npy, with the names of its tasks rebuilt from split and ontology.

    Args:
        path: an array of (tasks, layers, experts); it carries no names.
        order: the tasks in the order of the ontology; their number must be the array's.
        n_encoder_layers: how many of the layers are the encoder's; half where nothing is given.

    Raises:
        AuthorsFileError: the array is no route map, or has another number of tasks.
    """
    path = Path(path)
    weights = read_array(path)
    if weights.ndim != 3 or 0 in weights.shape or (weights < 0).any() or abs(weights.sum(axis=-1) - 1).max() > 1e-3:
        msg = (
            f"{path.name} of shape {weights.shape} is no route map: (tasks, layers, experts), each layer's weights "
            "summing to 1. Give the route.npy or route_t1.npy of a …-steps folder."
        )
        raise AuthorsFileError(msg)
    if len(weights) != len(order.tasks):
        msg = (
            f"{path.name} has {len(weights)} tasks, but split and ontology give {len(order.tasks)}. "
            "Give the split file and the ontology of that training run; with others the names would be wrong."
        )
        raise AuthorsFileError(msg)
    n_layers = weights.shape[1]
    n_encoder = n_layers // 2 if n_encoder_layers is None else n_encoder_layers
    if not 0 <= n_encoder <= n_layers or (n_encoder_layers is None and n_layers % 2):
        msg = f"{path.name} has {n_layers} layers, and how many are the encoder's is not told. Pass n_encoder_layers=."
        raise AuthorsFileError(msg)
    at_1 = path.stem.endswith("_t1")
    said = [
        *order.sentences,
        f"{path.name} carries no names: its rows were named in the order of split and ontology, which only their "
        "number confirms.",
        "Routes are a softmax without noise, whatever mode the model was trained in; layers that are not routed are in "
        "the array as well.",
    ]
    if not at_1:
        said.append("route.npy was made at the temperature of its training step, which is in no file.")
    return RouteMap(
        weights=weights,
        tasks=order.tasks,
        layers=_layer_names(n_encoder, n_layers - n_encoder),
        routed=(True,) * n_layers,
        temperature=1.0 if at_1 else None,
        categories=order.categories,
        sentences=tuple(said),
    )


def _layer_names(n_encoder: int, n_decoder: int) -> tuple[str, ...]:
    return tuple(
        f"{SHORT_STACK[stack]}{layer:02d}"
        for stack, n in zip(STACKS, (n_encoder, n_decoder), strict=True)
        for layer in range(n)
    )
