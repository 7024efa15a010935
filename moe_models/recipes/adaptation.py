"""Tasks a Task-level MoE was not trained on: which route serves them best, and what a few examples make of it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from moe_models.task_moe import TaskMoeForConditionalGeneration

from .answering import autocast, forced, shifted, task_scores
from .examples import IGNORED, Examples, MixedBatches
from .scoring import main_score


def adapted_scores(
    model: TaskMoeForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    support: Examples,
    test: Examples,
    *,
    labels: dict[str, tuple[str, ...]],
    n_steps: int,
    learning_rate: float,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Return, for each new task, its test score with a known task's route, and after training on the support.

    Each new task begins with the route of the training task under which its support rows are likeliest; then the whole
    model is trained on the support, the route left alone. The same for every kind of routes, and no row is chosen by.

    Args:
        model: trained; it is not changed.
        tokenizer: its tokenizer.
        support: few examples of the new tasks, numbered into their own ``tasks``.
        test: others of the same tasks.
        labels: label sets.
        n_steps: steps of AdamW on the support.
        learning_rate: level.
        seed: of order and dropout.
    """
    told = {}
    losses = np.stack([forced(model, support, as_task=row).nll for row in range(len(model.config.tasks))], axis=1)
    task_of = support.task.cpu().numpy()
    for number, name in enumerate(support.tasks):
        its = task_of == number
        if not its.any() or not len(test.of_task(name)):
            continue
        row = int(losses[its].mean(axis=0).argmin())
        before = _told(_only(test, name), row)
        zero_shot = task_scores(model, tokenizer, before, labels=labels)[name]
        adapted = _trained(
            model, _told(_only(support, name), row), n_steps=n_steps, learning_rate=learning_rate, seed=seed
        )
        after = task_scores(adapted, tokenizer, before, labels=labels)[name]
        told[name] = {
            "route_of": model.config.tasks[row],
            "zero_shot": main_score(zero_shot),
            "adapted": main_score(after),
            "majority": after["majority"],
            "n": after["n"],
            "n_support": int(its.sum()),
        }
    return told


def relative_gain(scores: dict[str, float], base: dict[str, float], *, least: float = 0.02) -> float | None:
    """Return ARG, the mean over tasks of (score − base) / base, over tasks whose base is at least ``least``."""
    gains = [(scores[task] - value) / value for task, value in base.items() if task in scores and value >= least]
    return float(np.mean(gains)) if gains else None


def _trained(
    model: TaskMoeForConditionalGeneration, support: Examples, *, n_steps: int, learning_rate: float, seed: int
) -> TaskMoeForConditionalGeneration:
    adapted = copy.deepcopy(model).train()
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    batches = MixedBatches(support, n_examples=min(32, len(support)), seed=seed)
    for step in range(n_steps):
        torch.manual_seed(seed * 1_000_003 + step)
        batch = batches[step]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / max(1, n_steps // 10)) * (1 - step / max(1, n_steps))
        with autocast(adapted.device):
            logits = adapted(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                decoder_input_ids=shifted(adapted, batch["labels"]),
                task_ids=batch["task_ids"],
            ).logits
        loss = functional.cross_entropy(
            logits.flatten(0, 1).float(), batch["labels"].flatten(), ignore_index=IGNORED, label_smoothing=0.1
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return adapted.eval()


def _only(examples: Examples, task: str) -> Examples:
    numbers = examples.of_task(task)
    return replace(
        examples,
        rows=tuple(examples.rows[number] for number in numbers.tolist()),
        source=examples.source[numbers],
        source_length=examples.source_length[numbers],
        labels=examples.labels[numbers],
        task=examples.task[numbers],
    )


def _told(examples: Examples, row: int) -> Examples:
    """Return examples that a model is told to be of its task number ``row``."""
    return replace(examples, task=torch.full_like(examples.task, row))
