"""Task-level MoE: every transformer layer is several whole layers, and a task decides how much each of them counts.

References:
    Ye, Zha and Ren, Findings of EMNLP 2022, "Eliciting and Understanding Cross-task Skills with Task-level
    Mixture-of-Experts".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.models.bart.modeling_bart import BartDecoderLayer, BartEncoderLayer

from moe_models.adapters import ConditioningEmbedding, KeepsOwnInitialization
from moe_models.task_moe.router import TaskRouter
from moe_models.tasks import KnowsTasks


@strict
class TaskMoeConfig(BartConfig):
    """A BART configuration plus the experts of each layer, the router's widths and the tasks, in a fixed order.

    ``selection`` is ``gumbel_hard`` (straight-through), ``gumbel``, ``softmax`` or ``average`` (a control: every expert
    counts the same). Decoding keeps no key-value cache: the experts of a layer would each need their own.
    ``encoder_unrouted_layers`` and ``decoder_unrouted_layers`` name layers that stay ordinary (the authors call them
    vanilla); the router has no part for them, and they are not counted among the routed layers. ``task_aliases`` gives
    tasks other names that they go by. ``reads_instruction`` says whether prompts were trained on with their first line,
    the instruction; a model that reads it knows the task without its route.
    """

    model_type = "task_moe"

    tasks: list[str] = field(default_factory=list)
    task_aliases: dict[str, str] = field(default_factory=dict)
    reads_instruction: bool = True
    num_layer_experts: int = 3
    task_embedding_dim: int = 128
    router_hidden_dim: int = 64
    selection: str = "gumbel_hard"
    temperature: float = 2.0
    train_task_embeddings: bool = True
    encoder_unrouted_layers: list[int] = field(default_factory=list)
    decoder_unrouted_layers: list[int] = field(default_factory=list)
    use_cache: bool = False


@dataclass
class TaskMoeOutput(Seq2SeqLMOutput):
    """BART's output and the routes that made it: (L, B, m), encoder layers first."""

    routes: torch.Tensor | None = None


class RoutedLayer(nn.Module):
    """Several whole layers side by side: the output is Σ_j w_j·Block_j(x), the weights given per example."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.route: torch.Tensor | None = None
        """Weights (B, m) for the batch that runs now; set for one forward and taken away after it."""

    def forward(self, hidden_states: torch.Tensor, *args, **kwargs) -> torch.Tensor:  # noqa: ANN002, ANN003
        """(B, position, d) in and out. In evaluation a block that no example uses is not run.

        Raises:
            RuntimeError: no route was set, so the task of the examples is not known.
        """
        if self.route is None:
            msg = "Task-level MoE has no routes for this batch. Call the model or generate() with task_ids=."
            raise RuntimeError(msg)
        route = self.route.to(hidden_states.dtype)
        if len(route) != len(hidden_states):  # beam search repeats every example
            route = route.repeat_interleave(len(hidden_states) // len(route), dim=0)
        needed = range(len(self.blocks)) if self.training else route.any(dim=0).nonzero().flatten().tolist()
        return sum(route[:, j, None, None] * self.blocks[j](hidden_states, *args, **kwargs) for j in needed)


def routed_stack(
    kind: type[nn.Module], config: TaskMoeConfig, *, n_layers: int, unrouted: Sequence[int]
) -> nn.ModuleList:
    """``n_layers`` layers of one kind: routed ones of as many blocks as there are experts, and the ``unrouted``."""
    return nn.ModuleList(
        kind(config, layer_idx=number)
        if number in unrouted
        else RoutedLayer([kind(config, layer_idx=number) for _ in range(config.num_layer_experts)])
        for number in range(n_layers)
    )


class TaskMoeForConditionalGeneration(KnowsTasks, KeepsOwnInitialization, BartForConditionalGeneration):
    """BART with routed layers. Embeddings, their norms and the head are shared by all tasks."""

    config_class = TaskMoeConfig

    def __init__(self, config: TaskMoeConfig) -> None:
        super().__init__(config)
        if not config.tasks:
            msg = "Task-level MoE routes by task and was given no tasks. Set TaskMoeConfig(tasks=[…])."
            raise ValueError(msg)
        self.model.encoder.layers = routed_stack(
            BartEncoderLayer, config, n_layers=config.encoder_layers, unrouted=config.encoder_unrouted_layers
        )
        self.model.decoder.layers = routed_stack(
            BartDecoderLayer, config, n_layers=config.decoder_layers, unrouted=config.decoder_unrouted_layers
        )
        self.task_embedding = ConditioningEmbedding(len(config.tasks), config.task_embedding_dim)
        self.task_embedding.weight.requires_grad_(config.train_task_embeddings)
        self.router = TaskRouter(
            n_layers=len(self.routed_layers),
            n_experts=config.num_layer_experts,
            task_embedding=config.task_embedding_dim,
            hidden=config.router_hidden_dim,
            selection=config.selection,
            temperature=config.temperature,
        )
        self.knocked_out: torch.Tensor | None = None
        self.post_init()

    @property
    def routed_layers(self) -> list[RoutedLayer]:
        """All routed layers, encoder first."""
        every = [*self.model.encoder.layers, *self.model.decoder.layers]
        return [layer for layer in every if isinstance(layer, RoutedLayer)]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, TaskRouter):
            module.temperature.fill_(module.initial_temperature)
        super()._init_weights(module)

    def routes(self, task_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Routes (L, B, m) of the given tasks, or of all in the order of ``config.tasks``; from weights alone.

        In full precision whatever the rest runs in: logits close to each other decide which expert a task gets.
        """
        table = self.task_embedding.weight
        with torch.autocast(table.device.type, enabled=False):
            return self.router(table if task_ids is None else table[task_ids], knocked_out=self.knocked_out)

    @contextmanager
    def routed(self, routes: torch.Tensor) -> Iterator[None]:
        """Run the layers with these routes (L, B, m)."""
        try:
            for layer, route in zip(self.routed_layers, routes, strict=True):
                layer.route = route
            yield
        finally:
            for layer in self.routed_layers:
                layer.route = None

    @contextmanager
    def knock_out(self, experts: Sequence[tuple[int, int]]) -> Iterator[None]:
        """Evaluate with these (routed layer, expert) pairs made unselectable.

        Raises:
            ValueError: a layer would be left with no expert.
        """
        mask = torch.zeros(len(self.routed_layers), self.config.num_layer_experts, dtype=torch.bool, device=self.device)
        for layer, expert in experts:
            mask[layer, expert] = True
        if bool(mask.all(dim=1).any()):
            empty = mask.all(dim=1).nonzero().flatten().tolist()
            msg = f"All experts of routed layers {empty} would be knocked out. Leave at least one in each layer."
            raise ValueError(msg)
        before, self.knocked_out = self.knocked_out, mask
        try:
            yield
        finally:
            self.knocked_out = before

    def forward(self, *args, task_ids: torch.Tensor | None = None, **kwargs) -> TaskMoeOutput:  # noqa: ANN002, ANN003
        """BART's forward for examples of the tasks ``task_ids`` (B); inside ``routed`` they may be left out."""
        if task_ids is None:
            return TaskMoeOutput(**super().forward(*args, **kwargs | {"use_cache": False}))
        routes = self.routes(task_ids)
        with self.routed(routes):
            out = super().forward(*args, **kwargs | {"use_cache": False})
        return TaskMoeOutput(**out, routes=routes)

    @torch.no_grad()
    def generate(self, *args, task_ids: torch.Tensor | None = None, **kwargs) -> torch.Tensor:  # noqa: ANN002, ANN003
        """BART's ``generate`` with the routes of ``task_ids`` (B)."""
        kwargs["use_cache"] = False
        if task_ids is None:
            return super().generate(*args, **kwargs)
        with self.routed(self.routes(task_ids)):
            return super().generate(*args, **kwargs)


@torch.no_grad()
def experts_from(
    model: TaskMoeForConditionalGeneration, backbone: BartForConditionalGeneration, *, noise_share: float, seed: int
) -> TaskMoeForConditionalGeneration:
    """``model`` with every expert a copy of the pretrained layer plus noise, and the shared parts as pretrained.

    Args:
        model: changed in place.
        backbone: a BART of the same widths.
        noise_share: standard deviation of the noise as a share of each weight's own; identical experts give the router
            no gradient, so this must be above zero for the router to learn.
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    own = model.state_dict()
    for name, value in backbone.state_dict().items():
        for target in [name] if name in own else _places(name, model.config.num_layer_experts):
            noise = torch.randn(value.shape, generator=generator).to(value) if target != name else 0.0
            spread = value.float().std().item() if value.numel() > 1 else 0.0
            own[target].copy_(value + noise_share * spread * noise)
    return model


def _places(name: str, n_experts: int) -> list[str]:
    head, _, tail = name.partition(".layers.")
    number, _, rest = tail.partition(".")
    return [f"{head}.layers.{number}.blocks.{j}.{rest}" for j in range(n_experts)]
