"""What a trained PHA's vectors and adapters do: retrieval, clusters, adapters of other tasks, tasks never seen.

Letters in shapes: N example, T task, z width of instance vectors and prototypes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from moe_models.pha import PhaForConditionalGeneration

from .answering import evaluating, forced
from .examples import Examples

_PASS = 256


def instance_vectors(model: PhaForConditionalGeneration, examples: Examples) -> np.ndarray:
    """Return each example's vector z at length 1: (N, z)."""
    found = []
    with evaluating(model):
        for some in torch.arange(len(examples), device=examples.source.device).split(_PASS):
            batch = examples.batch(some, trimmed=True)
            with model.told(batch["task_ids"]):
                encoded = model.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
            found.append(model.retriever(encoded, batch["attention_mask"]).float().cpu())
    return _unit(torch.cat(found).numpy())


def prototypes(model: PhaForConditionalGeneration) -> np.ndarray:
    """Return the prototypes at length 1: (T, z)."""
    return _unit(model.prototypes.weight.detach().float().cpu().numpy())


def retrieval(vectors: np.ndarray, task: np.ndarray, prototypes: np.ndarray) -> dict[str, Any]:
    """Return how often the nearest prototype is the own task's, and what is retrieved for each task.

    Args:
        vectors: instance vectors of length 1 (N, z).
        task: the task of each (N).
        prototypes: of length 1 (T, z).

    Returns:
        ``accuracy``, share; ``confusion``, (true task, retrieved task) shares of a row.
    """
    nearest = (vectors @ prototypes.T).argmax(axis=1)
    confusion = np.zeros((len(prototypes), len(prototypes)))
    np.add.at(confusion, (task, nearest), 1)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    return {"accuracy": float((nearest == task).mean()), "confusion": np.round(shares, 4).tolist()}


def silhouette(vectors: np.ndarray, task: np.ndarray) -> float:
    """Return the mean silhouette of instances by task, by cosine distance: −1 to 1, 0 where tasks overlap.

    References:
        Rousseeuw 1987, Silhouettes: a graphical aid to the interpretation and validation of cluster analysis.
    """
    member = (task[:, None] == np.unique(task)[None, :]).astype(float)
    sizes = member.sum(axis=0)
    # Distances are linear in the vectors, so sums over a cluster need no table of all pairs.
    to_cluster = sizes - vectors @ (vectors.T @ member)
    own = member.astype(bool)
    within = to_cluster[own] / np.maximum(sizes[None, :].repeat(len(task), 0)[own] - 1, 1)
    nearest_other = np.where(own, np.inf, to_cluster / sizes).min(axis=1)
    widest = np.maximum(np.maximum(within, nearest_other), 1e-12)
    alone = sizes[member.argmax(axis=1)] == 1
    return float(np.where(alone, 0.0, (nearest_other - within) / widest).mean())


def with_every_prototype(model: PhaForConditionalGeneration, examples: Examples) -> dict[str, list[list[float]]]:
    """Return exact match and nll of each task's examples run with each task's adapters: (task, prototype used)."""
    n = len(examples.tasks)
    exact, nll = np.zeros((n, n)), np.zeros((n, n))
    for used in range(n):
        found = forced(model, examples, as_task=used)
        for task in range(n):
            its = found.task == task
            exact[task, used], nll[task, used] = found.exact[its].mean(), found.nll[its].mean()
    return {"exact": np.round(exact, 4).tolist(), "nll": np.round(nll, 4).tolist()}


def own_is_best(matrix: np.ndarray, *, lower_is_better: bool) -> float:
    """Return the share of tasks whose own prototype does best, (task, prototype used); ties count as no."""
    signed = -matrix if lower_is_better else matrix
    others = np.where(np.eye(len(matrix), dtype=bool), -np.inf, signed).max(axis=1)
    return float((np.diagonal(signed) > others).mean())


def new_tasks(model: PhaForConditionalGeneration, examples: Examples, tasks: tuple[str, ...]) -> dict[str, Any]:
    """Return what is retrieved for tasks never seen, and how well the retrieved adapters do on them.

    Args:
        model: a trained PHA.
        examples: support examples of the new tasks, numbered into their own ``tasks``.
        tasks: the model's tasks.

    Returns:
        By new task: ``retrieved``, shares of the model's tasks; ``nearest``, the task nearest the mean vector;
        ``nll``, of the support under each of the model's tasks; ``rank`` of the nearest by it (1 is best).
    """
    # The model knows no row for them; which it is told does not matter for the vectors.
    shown = replace(examples, task=torch.zeros_like(examples.task))
    vectors, known = instance_vectors(model, shown), prototypes(model)
    nearest = (vectors @ known.T).argmax(axis=1)
    own = examples.task.cpu().numpy()
    losses = np.stack([forced(model, examples, as_task=used).nll for used in range(len(tasks))], axis=1)
    told = {}
    for number, name in enumerate(examples.tasks):
        its = own == number
        if not its.any():
            continue
        shares = np.bincount(nearest[its], minlength=len(tasks)) / its.sum()
        best = int((_unit(vectors[its].mean(axis=0, keepdims=True)) @ known.T).argmax())
        loss = losses[its].mean(axis=0)
        told[name] = {
            "retrieved": {task: round(float(share), 4) for task, share in zip(tasks, shares, strict=True)},
            "nearest": tasks[best],
            "nll": {task: round(float(value), 4) for task, value in zip(tasks, loss, strict=True)},
            "rank": int((loss < loss[best]).sum()) + 1,
            "n": int(its.sum()),
        }
    return told


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
