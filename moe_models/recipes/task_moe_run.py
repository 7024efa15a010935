"""Task-level MoE and its controls as something to train: tasks, routes, model, loss, learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import BartForConditionalGeneration

from moe_models.task_moe import TaskMoeConfig, TaskMoeForConditionalGeneration, experts_from

from .answering import autocast, evaluating, shifted
from .examples import IGNORED, Examples
from .optimizer import Treatment
from .routes import FixedRoutes
from .task_names import ALIASES

DEFAULT_NEW_TASKS = (
    "squadshifts_nyt",
    "btc_ner",
    "clinc_intent",
    "goemotions_ekman",
    "email_spam",
    "medquad_answer",
)
"""Held out of training: two extractive, three classification, one knowledge. Each type keeps at least four tasks."""

ROUTES = {
    "learned": "routes learned in stage 1, frozen in stage 2",
    "average": "the average of the experts of each layer, for every task",
    "task-random": "one expert of each layer for every task, drawn and never learned",
    "untrained": "the routes of a router as initialized, frozen",
    "dense": "one expert a layer: plain multi-task training",
}

NOISE_SHARE = 1e-2
"""Noise on experts that start as copies, as a share of each weight's spread. The authors' 1e-8 gives the router next to
no gradient at first: identical experts make all routes alike."""


def untrained_task_moe(
    backbone: BartForConditionalGeneration,
    *,
    tasks: Sequence[str],
    routes: str,
    stage: int,
    embedding: torch.Tensor | None,
    n_experts: int,
    embedding_width: int,
    router_width: int,
    reads_instruction: bool,
    dropout: float,
    seed: int,
) -> TaskMoeForConditionalGeneration:
    """Return a model whose experts are copies of a backbone's layers plus noise; the same for the same seed.

    Args:
        backbone: a pretrained BART.
        tasks: in the order of task embeddings.
        routes: one of ROUTES.
        stage: 1 learns routes by straight-through Gumbel, 2 has them frozen and soft.
        embedding: task embeddings (T, D) to use; drawn from N(0, 1), so saying nothing of the tasks, if None.
        n_experts: experts a layer.
        embedding_width: D, where they are drawn.
        router_width: hidden width of each layer's router.
        reads_instruction: whether prompts come with their instruction line.
        dropout: of the blocks.
        seed: of router, embeddings, noise and fixed routes.
    """
    torch.manual_seed(seed)
    told = backbone.config.to_dict()
    for name in ("model_type", "architectures", "dtype", "transformers_version", "torch_dtype"):
        told.pop(name, None)
    soft = "average" if routes in ("average", "dense") else "softmax"
    config = TaskMoeConfig(
        **told
        | {
            "tasks": list(tasks),
            "task_aliases": {alias: task for alias, task in ALIASES.items() if task in tasks},
            "reads_instruction": reads_instruction,
            "num_layer_experts": 1 if routes == "dense" else n_experts,
            "task_embedding_dim": embedding_width if embedding is None else embedding.shape[1],
            "router_hidden_dim": router_width,
            "selection": "gumbel_hard" if stage == 1 else soft,
            "temperature": 1.0,
            "dropout": dropout,
            "use_cache": False,
        }
    )
    if routes == "task-random":
        model: TaskMoeForConditionalGeneration = FixedRoutes(config, seed=seed)
    else:
        model = TaskMoeForConditionalGeneration(config)
    if embedding is not None:
        with torch.no_grad():
            model.task_embedding.weight.copy_(embedding)
    if stage == 2:
        freeze_routes(model)
    return experts_from(model, backbone, noise_share=NOISE_SHARE, seed=seed + 1000 * stage)


def freeze_routes(model: TaskMoeForConditionalGeneration) -> None:
    """Leave router and task embeddings as they are from now on."""
    for part in (model.router, model.task_embedding):
        part.requires_grad_(requires_grad=False)


def router_state(model: TaskMoeForConditionalGeneration) -> dict[str, torch.Tensor]:
    """Return the weights that routes come from: what stage 2 takes over from stage 1."""
    kept = ("router.units.", "task_embedding.")
    return {name: value.detach().cpu() for name, value in model.state_dict().items() if name.startswith(kept)}


@torch.no_grad()
def take_router(model: TaskMoeForConditionalGeneration, state: dict[str, torch.Tensor]) -> None:
    """Put the weights of `router_state` into a model."""
    own = model.state_dict()
    for name, value in state.items():
        own[name].copy_(value)


def text_embeddings(backbone: BartForConditionalGeneration, examples: Examples, *, n_per_task: int) -> torch.Tensor:
    """Return embeddings (T, d) that say what tasks are like: means of the backbone's last decoder states.

    Over positions of the target, then over examples, then each feature brought to mean 0 and spread 1 over tasks (all
    texts share a large common part, which would leave the router nothing to tell tasks by).
    """
    table = []
    with evaluating(backbone):
        for task in examples.tasks:
            batch = examples.batch(examples.of_task(task)[:n_per_task], trimmed=True)
            labels = batch["labels"]
            states = backbone.model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                decoder_input_ids=shifted(backbone, labels),
            ).last_hidden_state.float()
            written = (labels != IGNORED)[..., None]
            table.append(((states * written).sum(1) / written.sum(1)).mean(0))
    stacked = torch.stack(table).cpu()
    return ((stacked - stacked.mean(0)) / stacked.std(0).clamp(min=1e-6)).clone()


@dataclass(frozen=True, kw_only=True)
class TaskMoeObjective:
    """The targets' mean negative log-likelihood a token (padding has no part), labels smoothed."""

    routes: str
    stage: int
    embedding: str
    instruction: str
    router_rate: float
    embedding_rate: float
    router_epsilon: float
    label_smoothing: float = 0.1

    def __call__(
        self, model: TaskMoeForConditionalGeneration, batch: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the losses of a batch and its routes."""
        with torch.no_grad():
            model.router.temperature.copy_(batch["temperature"])
        with autocast(batch["input_ids"].device):
            out = model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                decoder_input_ids=shifted(model, batch["labels"]),
                task_ids=batch["task_ids"],
            )
        logits, labels = out.logits.flatten(0, 1).float(), batch["labels"].flatten()
        told = {"ignore_index": IGNORED}
        smoothed = functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, **told)
        with torch.no_grad():
            plain = functional.cross_entropy(logits, labels, **told)
        return {"total": smoothed, "language": plain}, out.routes.detach()

    def entry(
        self, model: TaskMoeForConditionalGeneration, readings: torch.Tensor, batch: dict[str, torch.Tensor]
    ) -> dict[str, Any]:
        """Return the temperature, and the largest share of the batch that one expert of a layer has, by layer."""
        shares = readings.float().mean(dim=1).max(dim=-1).values
        return {
            "temperature": round(float(model.router.temperature), 4),
            "largest_share": [round(float(share), 3) for share in shares],
        }

    def identity(self) -> dict[str, Any]:
        """Return the options that a resumed run must share with the run it goes on with."""
        return asdict(self)

    def treatment(self, name: str, parameter: torch.nn.Parameter) -> Treatment:
        """Return how a parameter is stepped: AdamW, the router and the task embeddings much faster than the model.

        Experts begin as copies, so what tells them apart at first is noise, and its gradient is tiny. An AdamW that
        steps by sign settles the routes on it within a few hundred steps, for good; with a large epsilon the router
        waits until experts differ by what they have learned.
        """
        if name.startswith("router."):
            return Treatment(learning_rate_factor=self.router_rate, epsilon=self.router_epsilon)
        if name.startswith("task_embedding."):
            return Treatment(learning_rate_factor=self.embedding_rate, epsilon=self.router_epsilon)
        return Treatment()
