"""The parts PHA adds to a frozen text-to-text model.

Letters in shapes: B example, P position, T task, M decoder layer, d hidden, z width of prototypes and instance vectors.

References:
    Zhao et al., EMNLP 2023, "Prototype-based HyperAdapter for Sample-Efficient Multi-task Tuning".
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig
from transformers.models.t5.modeling_t5 import T5LayerFF

from moe_models.adapters import (
    Adapter,
    AdapterWeights,
    ConditioningEmbedding,
    ConditioningLinear,
    GeneratorHeads,
)


class Retriever(nn.Module):
    """An example's instance vector z from the encoder's output: masked mean, then Linear, ReLU, Linear."""

    def __init__(self, hidden: int, process: int, prototype: int) -> None:
        super().__init__()
        self.process = nn.Sequential(
            ConditioningLinear(hidden, process), nn.ReLU(), ConditioningLinear(process, prototype)
        )

    def forward(self, encoded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, z) from the encoder's output (B, P, d); padding, where ``mask`` (B, P) is 0, has no part in the mean."""
        weight = mask[..., None].to(encoded.dtype)
        return self.process((encoded * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1))


class PrototypicalHypernetwork(nn.Module):
    """Adapters of every decoder layer from one vector a task.

    u = [k ; e_m], r = W2·ReLU(W1·u), v = LayerNorm(r), and one linear head from v for each part of the adapter. With
    ``bias``, W1 and W2 each add one, as in the authors' code.
    """

    def __init__(
        self,
        *,
        n_layers: int,
        prototype: int,
        hidden: int,
        width: int,
        bias: bool = False,
        norm_epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.layer_embedding = ConditioningEmbedding(n_layers, prototype)
        self.widen = ConditioningLinear(2 * prototype, 2 * prototype, bias=bias)
        self.narrow = ConditioningLinear(2 * prototype, prototype, bias=bias)
        self.norm = nn.LayerNorm(prototype, eps=norm_epsilon)
        self.heads = GeneratorHeads(prototype, hidden=hidden, width=width)

    def forward(self, vectors: torch.Tensor) -> list[AdapterWeights]:
        """For each of the M layers, one adapter a row of ``vectors`` (S, z)."""
        made = []
        for layer in self.layer_embedding.weight:
            u = torch.cat([vectors, layer.expand(len(vectors), -1)], dim=-1)
            made.append(self.heads(self.norm(self.narrow(functional.relu(self.widen(u))))))
        return made


class GeneratedAdapter(nn.Module):
    """A decoder layer's place for the adapters that this forward's tasks use; it owns no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.current: AdapterWeights | None = None
        """One adapter an example of the batch (B of them); set for one forward and taken away after it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the adapters add: (B, P, d) in and out.

        Raises:
            RuntimeError: no adapters were set, so the task of the examples is not known.
        """
        if self.current is None:
            msg = "PHA's decoder has no adapters for this batch. Call the model or generate() with task_ids=."
            raise RuntimeError(msg)
        adapters = self.current
        if len(adapters.down) != len(x):
            # Beam search repeats every example; its copies share the task.
            repeats = len(x) // len(adapters.down)
            adapters = adapters[torch.arange(len(adapters.down), device=x.device).repeat_interleave(repeats)]
        return adapters(x)


class TaskAdapter(nn.Module):
    """One learned adapter a task, none of them shared: the control in which tasks learn nothing from each other."""

    def __init__(self, n_tasks: int, hidden: int, width: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(n_tasks, hidden, width) * 1e-3)
        self.bias_down = nn.Parameter(torch.zeros(n_tasks, width))
        self.up = nn.Parameter(torch.randn(n_tasks, width, hidden) * 1e-3)
        self.bias_up = nn.Parameter(torch.zeros(n_tasks, hidden))
        self.rows: torch.Tensor | None = None
        """The task of each example of the batch (B); set for one forward and taken away after it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the adapters of the examples' tasks add: (B, P, d) in and out.

        Raises:
            RuntimeError: no tasks were set.
        """
        if self.rows is None:
            msg = "The adapters of this control belong to tasks, and no tasks were set. Call the model with task_ids=."
            raise RuntimeError(msg)
        rows = self.rows.repeat_interleave(len(x) // len(self.rows)) if len(self.rows) != len(x) else self.rows
        chosen = AdapterWeights(self.down[rows], self.bias_down[rows], self.up[rows], self.bias_up[rows])
        return chosen(x)


class AdaptedFeedForward(T5LayerFF):
    """A T5 feed-forward with an adapter beside it: h + dropout(FFN(LN h)) + A(LN h), or + A(h) where so configured."""

    def __init__(self, config: PreTrainedConfig, adapter: nn.Module) -> None:
        super().__init__(config)
        self.adapter = adapter
        self.adapter_normed_input = config.adapter_normed_input

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, P, d) in and out."""
        normed = self.layer_norm(hidden_states)
        added = self.adapter(normed if self.adapter_normed_input else hidden_states)
        return hidden_states + self.dropout(self.DenseReluDense(normed)) + added


def shared_adapter(config: PreTrainedConfig) -> Adapter:
    """An adapter whose weights all tasks share, as in PHA's encoder."""
    own_width = config.encoder_adapter_dim is not None and not config.is_decoder
    return Adapter(config.d_model, config.encoder_adapter_dim if own_width else config.adapter_dim)
