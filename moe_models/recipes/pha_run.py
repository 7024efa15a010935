"""PHA and its controls as something to train: tasks, methods, model, loss, and the best weights on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import T5ForConditionalGeneration

from moe_models.pha import PhaConfig, PhaForConditionalGeneration, backbone_loaded

from .answering import Forced, autocast, forced
from .examples import Examples
from .scoring import mean
from .task_names import ALIASES

DEFAULT_TASKS = (
    "movie_sentence_polarity",
    "product_pros_cons",
    "subjectivity",
    "banking77",
    "clinc_domain",
    "sgd_domain",
    "wikigold_ner",
    "wnut17_ner",
    "restaurant8k_slot",
    "dbpedia14",
)
"""Ten tasks in families that can help each other: judgements of short texts, requests of users, copying from the text,
and one apart. Span questions are left out: at this size they stay near zero with any number of examples."""

DEFAULT_NEW_TASKS = ("btc_ner", "clinc_intent", "goemotions_ekman", "opentrivia_category")
"""Tasks the model never sees, to ask its retriever about: two have relatives among the tasks, two have not."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """What the decoder's adapters come from, and the weight of both contrastive losses."""

    adapter_source: str
    contrast_weight: float
    words: str


METHODS = {
    "pha": Method(adapter_source="prototype", contrast_weight=0.1, words="PHA"),
    "no-contrast": Method(
        adapter_source="prototype",
        contrast_weight=0.0,
        words="the same hypernetwork and task vectors, without the contrastive losses",
    ),
    "instance": Method(
        adapter_source="instance", contrast_weight=0.1, words="adapters generated from each example's own vector"
    ),
    "shared": Method(adapter_source="shared", contrast_weight=0.0, words="one learned adapter a layer for all tasks"),
    "per-task": Method(
        adapter_source="task", contrast_weight=0.0, words="learned adapters of every task's own, nothing shared"
    ),
}


def untrained_pha(
    backbone: T5ForConditionalGeneration,
    *,
    tasks: Sequence[str],
    method: str,
    adapter_width: int,
    dropout: float,
    seed: int,
) -> PhaForConditionalGeneration:
    """Return PHA or a control on a frozen backbone; the same for the same seed."""
    torch.manual_seed(seed)
    told = backbone.config.to_dict()
    for name in ("model_type", "architectures", "dtype", "transformers_version", "torch_dtype"):
        told.pop(name, None)
    config = PhaConfig(
        **told
        | {
            "tasks": list(tasks),
            "task_aliases": {alias: task for alias, task in ALIASES.items() if task in tasks},
            "adapter_source": METHODS[method].adapter_source,
            "contrast_weight": METHODS[method].contrast_weight,
            "adapter_dim": adapter_width,
            "dropout_rate": dropout,
        }
    )
    return backbone_loaded(PhaForConditionalGeneration(config), backbone)


@dataclass(frozen=True, kw_only=True)
class PhaObjective:
    """PHA's loss: the targets' mean negative log-likelihood a token (padding has no part), and both contrasts."""

    method: str
    n_examples: str

    def __call__(
        self, model: PhaForConditionalGeneration, batch: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], None]:
        """Return the losses of a batch."""
        with autocast(batch["input_ids"].device):
            out = model(**batch)
        losses = {"total": out.loss, "language": out.language_loss.detach()}
        if out.instance_loss is not None:
            losses |= {"instance": out.instance_loss.detach(), "prototype": out.prototype_loss.detach()}
        return losses, None

    def entry(self, model: PhaForConditionalGeneration, readings: None, batch: dict[str, torch.Tensor]) -> dict:
        """Return nothing more for the curve."""
        return {}

    def identity(self) -> dict[str, Any]:
        """Return the options that a resumed run must share with the run it goes on with."""
        return asdict(self)


class BestWeights:
    """Keeps the trained weights of the check that went best: exact matches on dev, then likelihood.

    Args:
        examples: dev examples that weights are chosen by; other rows must be reported on.
        path: file of the weights.
    """

    def __init__(self, examples: Examples, *, path: Path) -> None:
        self._examples, self._path = examples, path
        self.best: tuple[float, float] | None = None
        self.step: int | None = None

    def resume(self, curve: Sequence[dict[str, Any]]) -> None:
        """Take up what the checks of a resumed run found."""
        for entry in curve:
            if "dev_exact" in entry:
                self._see(entry["dev_exact"], entry["dev_nll"], step=entry["step"])

    def check(self, step: Callable[[], int]) -> Callable[[PhaForConditionalGeneration], dict[str, Any]]:
        """Return what a training run calls; ``step`` tells the step it is at."""

        def checked(model: PhaForConditionalGeneration) -> dict[str, Any]:
            exact, nll = task_means(forced(model, self._examples), self._examples.tasks)
            if self._see(exact, nll, step=step()):
                self._keep(model)
            print(f"  dev exact {mean(list(exact.values())):.3f} · nll {mean(list(nll.values())):.3f}", flush=True)
            return {"dev_exact": exact, "dev_nll": nll}

        return checked

    @torch.no_grad()
    def restore(self, model: PhaForConditionalGeneration) -> None:
        """Put the kept weights into the model."""
        kept = torch.load(self._path, map_location=model.device, weights_only=True)
        for name, parameter in model.named_parameters():
            if name in kept:
                parameter.copy_(kept[name])

    def _see(self, exact: dict[str, float], nll: dict[str, float], *, step: int) -> bool:
        found = (mean(list(exact.values())), -mean(list(nll.values())))
        if self.best is not None and found <= self.best:
            return False
        self.best, self.step = found, step
        return True

    def _keep(self, model: PhaForConditionalGeneration) -> None:
        trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
        partial = self._path.with_suffix(".partial")
        torch.save(trained, partial)
        os.replace(partial, self._path)


def task_means(found: Forced, tasks: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Return exact match and nll of each task."""
    by_task = found.by_task(tasks)
    return {task: its["exact"] for task, its in by_task.items()}, {task: its["nll"] for task, its in by_task.items()}
