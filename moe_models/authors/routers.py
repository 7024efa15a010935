"""The routers of Task-level MoE from the authors' weights, in all their forms: from task vectors to logits.

Letters in shapes: T task, L layer (encoder layers first), m experts a layer, D task vector, h router width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from moe_models.authors.keys_task_moe import ROUTER_HEADS
from moe_models.authors.mapping import below
from moe_models.authors.recognition import Recognized

RECURRENT = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@torch.no_grad()
def router_logits(
    tensors: Mapping[str, torch.Tensor], vectors: torch.Tensor, *, recognized: Recognized
) -> torch.Tensor:
    """Router logits (T, L, m) of task vectors (T, D), for every layer the router speaks of, vanilla ones included."""
    dims, kind = recognized.dims, recognized.router
    n_layers, m = dims["layers"], dims["n_experts"]
    if kind is None or kind == "linear_layer_specific":
        names = (
            [f"model.{stack}.routers.{i}." for stack in ("encoder", "decoder") for i in range(dims[f"{stack}_layers"])]
            if kind is None
            else [f"router.model.router_units.{i}." for i in range(n_layers)]
        )
        return torch.stack([_mlp(below(tensors, name), vectors) for name in names], dim=1)
    weights = below(tensors, "router.model.")
    if kind == "linear":
        return _mlp(weights, vectors).view(-1, n_layers, m)
    network = kind.removesuffix("_layer_specific")
    sequence = (
        _linear(weights, "layer_specific_proj", vectors).view(len(vectors), n_layers, -1)
        if kind.endswith("_layer_specific")
        else vectors[:, None] + weights["pos_embed.weight"]
    )
    read = _transformer(weights, sequence) if network == "transformer" else _recurrent(weights, sequence, network)
    return _linear(weights, "proj", read)


def _linear(weights: Mapping[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _mlp(weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return _linear(weights, "linear2", functional.gelu(_linear(weights, "linear1", x)))


def _recurrent(weights: Mapping[str, torch.Tensor], sequence: torch.Tensor, kind: str) -> torch.Tensor:
    """The layers read as a sequence, in both directions: (T, L, 2·h)."""
    width = weights["rnn.weight_hh_l0"].shape[1]
    network = RECURRENT[kind](sequence.shape[-1], width, bidirectional=True, batch_first=True)
    network.load_state_dict(below(weights, "rnn."))
    return network(sequence)[0]


def _transformer(weights: Mapping[str, torch.Tensor], sequence: torch.Tensor) -> torch.Tensor:
    """One encoder layer over the layers as a sequence, in evaluation: (T, L, width)."""
    feed_forward = len(weights["transformer.linear1.bias"])
    network = nn.TransformerEncoderLayer(sequence.shape[-1], ROUTER_HEADS, feed_forward, batch_first=True)
    network.load_state_dict(below(weights, "transformer."))
    return network.eval()(sequence)
