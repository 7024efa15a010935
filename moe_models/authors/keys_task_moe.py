"""The keys of Task-level MoE as its authors' code saves them: routed BART layers, and the router in its many forms."""

from __future__ import annotations

from collections.abc import Iterable

from moe_models.authors.keys_backbones import STACKS, bart_embeddings, bart_layer
from moe_models.authors.layout import Part

_LINEAR = {"linear1.bias": "router_hidden", "linear2.bias": "n_experts"}
_UNIT = {"linear1.weight": "router_hidden task_embedding", "linear2.weight": "n_experts router_hidden", **_LINEAR}

_PROJECTED = {
    "layer_specific_proj.weight": "layers*router_hidden task_embedding",
    "layer_specific_proj.bias": "layers*router_hidden",
}
_PLACED = {"pos_embed.weight": "layers task_embedding"}


def _recurrent(width: str) -> dict[str, str]:
    keys = {"proj.weight": "n_experts 2*router_hidden", "proj.bias": "n_experts"}
    for direction in ("", "_reverse"):
        keys |= {
            f"rnn.weight_ih_l0{direction}": f"gate_rows {width}",
            f"rnn.weight_hh_l0{direction}": "gate_rows router_hidden",
            f"rnn.bias_ih_l0{direction}": "gate_rows",
            f"rnn.bias_hh_l0{direction}": "gate_rows",
        }
    return keys


def _transformer(width: str) -> dict[str, str]:
    keys = {
        "self_attn.in_proj_weight": f"3*{width} {width}",
        "self_attn.in_proj_bias": f"3*{width}",
        "self_attn.out_proj.weight": f"{width} {width}",
        "self_attn.out_proj.bias": width,
        "linear1.weight": f"router_ff {width}",
        "linear1.bias": "router_ff",
        "linear2.weight": f"{width} router_ff",
        "linear2.bias": width,
    }
    keys |= {f"{norm}.{x}": width for norm in ("norm1", "norm2") for x in ("weight", "bias")}
    keys = {f"transformer.{key}": shape for key, shape in keys.items()}
    return keys | {"proj.weight": f"n_experts {width}", "proj.bias": "n_experts"}


_ROUTERS = {
    "linear": {
        "linear1.weight": "router_hidden task_embedding",
        "linear1.bias": "router_hidden",
        "linear2.weight": "layers*n_experts router_hidden",
        "linear2.bias": "layers*n_experts",
    },
    "recurrent": _PLACED | _recurrent("task_embedding"),
    "recurrent_layer_specific": _PROJECTED | _recurrent("router_hidden"),
    "transformer": _PLACED | _transformer("task_embedding"),
    "transformer_layer_specific": _PROJECTED | _transformer("router_hidden"),
}

RECURRENT_GATES = {1: "rnn", 3: "gru", 4: "lstm"}
"""The kind of recurrent router, from how many gates its weights hold."""

ROUTER_HEADS = 4
"""Heads of the transformer router's attention; written in the authors' code, not in any file."""


def router_kind(keys: Iterable[str]) -> str | None:
    """Which of the router's forms a v2 file holds; the three recurrent kinds are one here. None for no known form."""
    ends = {key.removeprefix("router.model.") for key in keys if key.startswith("router.model.")}
    if any(end.startswith("router_units.") for end in ends):
        return "linear_layer_specific"
    specific = "_layer_specific" if any(end.startswith("layer_specific_proj.") for end in ends) else ""
    for start, kind in (("rnn.", "recurrent"), ("transformer.", "transformer")):
        if any(end.startswith(start) for end in ends):
            return kind + specific
    return "linear" if any(end.startswith("linear1.") for end in ends) else None


def task_moe_table(kind: str) -> list[Part]:
    """Routed BART with one kind of router; ``v1`` stands for the older files with a router in each layer."""
    table = bart_embeddings()
    for stack in STACKS:
        layer, keys = f"model.{stack}.layers.{{layer}}.", bart_layer(stack)
        table += [
            Part(f"{stack} experts", f"{layer}blocks.{{expert}}.", keys, counts="n_experts", needed=False),
            Part(f"{stack} unrouted", layer, keys, needed=False),
        ]
        if kind == "v1":
            table.append(Part(f"{stack} routers", f"model.{stack}.routers.{{layer}}.", _UNIT, counts=f"{stack}_layers"))
    if kind == "linear_layer_specific":
        table.append(Part("router", "router.model.router_units.{layer}.", _UNIT, counts="layers"))
    elif kind != "v1":
        table.append(Part("router", "router.model.", _ROUTERS[kind]))
    return table
