"""Routes of Task-level MoE over training: temperatures, snapshots, and routes that are fixed instead of learned.

Letters in shapes: T task, L routed layer (encoder layers first), m experts a layer, S snapshot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from moe_models.task_moe import TaskMoeConfig, TaskMoeForConditionalGeneration

from .examples import MixedBatches

_STAGE_1 = (2.0, 0.1, 1 / 3)
_STAGE_2 = (300.0, 1.0, 0.95)


def temperature(stage: int, step: int, *, n_steps: int) -> float:
    """Return τ at a step: stage 1 falls from 2 to 0.1 over a third, stage 2 from 300 to 1 over nearly all of it.

    At τ = 300 routes are all but uniform, so stage 2 begins as the average of the experts and ends at the learned
    routes.
    """
    highest, lowest, share = _STAGE_1 if stage == 1 else _STAGE_2
    fall = math.log(highest / lowest) / max(share * n_steps, 1e-9)
    return max(highest * math.exp(-fall * step), lowest)


class TemperedBatches:
    """Batches that carry the temperature of their step.

    Args:
        batches: of examples.
        stage: 1 or 2.
        n_steps: of the stage.
    """

    def __init__(self, batches: MixedBatches, *, stage: int, n_steps: int) -> None:
        self._batches, self._stage, self._n_steps = batches, stage, n_steps
        self.tokens_a_batch = batches.tokens_a_batch

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        """Return the batch of a step, with ``temperature``."""
        return self._batches[step] | {
            "temperature": torch.tensor(temperature(self._stage, step, n_steps=self._n_steps))
        }


class FixedRoutes(TaskMoeForConditionalGeneration):
    """A control: every task has one expert of each layer, drawn by a seed and never learned."""

    def __init__(self, config: TaskMoeConfig, *, seed: int) -> None:
        super().__init__(config)
        generator = torch.Generator().manual_seed(seed)
        shape = (len(self.routed_layers), len(config.tasks))
        chosen = torch.randint(config.num_layer_experts, shape, generator=generator)
        self.register_buffer("table", functional.one_hot(chosen, config.num_layer_experts).float())

    def routes(self, task_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Routes (L, B, m), each row one expert; a knocked-out one is replaced by the layer's others in equal parts."""
        table = self.table if task_ids is None else self.table[:, task_ids]
        if self.knocked_out is None:
            return table
        is_open = (~self.knocked_out)[:, None].to(table)
        kept = table * is_open
        rest = is_open / is_open.sum(-1, keepdim=True)
        return torch.where(kept.sum(-1, keepdim=True) > 0, kept, rest.expand_as(kept))


@torch.no_grad()
def route_tables(model: TaskMoeForConditionalGeneration) -> tuple[np.ndarray, np.ndarray]:
    """Return routes without noise, at τ = 1 and at the model's own τ: (T, L, m) each."""
    if isinstance(model, FixedRoutes) or model.router.selection == "average":
        own = model.routes().transpose(0, 1).cpu().numpy()
        return own, own
    logits = model.router.logits(model.task_embedding.weight).transpose(0, 1).float()
    at_own = functional.softmax(logits / model.router.temperature.float(), dim=-1)
    return functional.softmax(logits, dim=-1).cpu().numpy(), at_own.cpu().numpy()


def snapshot(model: TaskMoeForConditionalGeneration) -> dict[str, Any]:
    """Return what the curve keeps of the routes: both tables, rounded, and how sharp they are."""
    at_one, at_own = route_tables(model)
    return {
        "route_t1": np.round(at_one, 4).tolist(),
        "route": np.round(at_own, 4).tolist(),
        "temperature": round(float(model.router.temperature), 4),
        **sharpness(at_one),
    }


def sharpness(routes: np.ndarray) -> dict[str, float]:
    """Return how decided routes (T, L, m) are, in nats.

    Returns:
        ``entropy``, of a task in a layer, mean; ``mean_route_entropy``, of a layer's mean over tasks;
        ``specialization``, the second less the first: 0 if all tasks share a route.
    """
    own, shared = float(_entropy(routes).mean()), float(_entropy(routes.mean(axis=0)).mean())
    return {
        "entropy": round(own, 4),
        "mean_route_entropy": round(shared, 4),
        "specialization": round(shared - own, 4),
    }


def save_snapshots(path: Path, *, curves: Mapping[int, Sequence[Mapping[str, Any]]], types: Mapping[str, str]) -> int:
    """Write the snapshots of all stages to an npz file, and return how many there are.

    The file holds ``stage`` and ``step`` (S), ``temperature`` (S), ``route_t1`` and ``route`` (S, T, L, m) float32, and
    ``tasks`` and ``task_types`` (T) names; plain arrays, nothing pickled.

    Args:
        path: of the file.
        curves: entries of each stage; those without routes are left out.
        types: type of each task, in the order of the routes' rows.
    """
    kept = [(stage, entry) for stage, curve in sorted(curves.items()) for entry in curve if "route_t1" in entry]
    np.savez_compressed(
        path,
        stage=np.array([stage for stage, _ in kept], dtype=np.int32),
        step=np.array([entry["step"] for _, entry in kept], dtype=np.int32),
        temperature=np.array([entry["temperature"] for _, entry in kept], dtype=np.float32),
        route_t1=np.array([entry["route_t1"] for _, entry in kept], dtype=np.float32),
        route=np.array([entry["route"] for _, entry in kept], dtype=np.float32),
        tasks=np.array(list(types)),
        task_types=np.array(list(types.values())),
    )
    return len(kept)


def _entropy(shares: np.ndarray) -> np.ndarray:
    return -(shares * np.log(np.clip(shares, 1e-12, None))).sum(axis=-1)
