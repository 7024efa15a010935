"""Which of the three systems a state dict is, in which form and of which dimensions, from its keys and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from moe_models.authors.errors import AuthorsFileError, listed
from moe_models.authors.keys_backbones import STACKS
from moe_models.authors.keys_hypermoe import gpt2_table, switch_table
from moe_models.authors.keys_pha import pha_table
from moe_models.authors.keys_task_moe import RECURRENT_GATES, ROUTER_HEADS, router_kind, task_moe_table
from moe_models.authors.layout import Reading, Shape, reading

System = Literal["HyperMoE", "PHA", "Task-level MoE"]

SHORT_STACK = {"encoder": "enc", "decoder": "dec"}


@dataclass(frozen=True)
class Recognized:
    """What a state dict is.

    Attributes:
        system: whose file it is.
        form: ``switch``, ``gpt2``, ``switch baseline``, ``gpt2 baseline``; ``t5``; ``v1``, ``v2``.
        router: for Task-level MoE the kind of router, by its name in the authors' config.json.
        dims: the dimensions, recovered from shapes and numbering.
        layers: the layers with experts (for PHA, with generated adapters): ``enc03``, ``dec00``, ``L07``.
        unused: keys the authors' code saves and does not compute with, by reason.
        not_understood: keys that belong to none of the system's parts.
    """

    system: System
    form: str
    router: str | None
    dims: Mapping[str, int]
    layers: tuple[str, ...]
    unused: Mapping[str, tuple[str, ...]]
    not_understood: tuple[str, ...]

    def sentences(self) -> tuple[str, ...]:
        """What of the file has no part in any result, and why."""
        said = [f"Weights left out: {len(keys)}, since {why}." for why, keys in self.unused.items()]
        if self.not_understood:
            said.append(f"Weights not understood and left out: {listed(self.not_understood)}.")
        return tuple(said)


def recognize(state_dict: Mapping[str, torch.Tensor | Shape]) -> Recognized:
    """Tell what a state dict is; its values may be tensors or plain shapes.

    Raises:
        AuthorsFileError: it is none of the systems, or one of them with keys missing or shapes that disagree.
    """
    shapes = {key: tuple(getattr(value, "shape", value)) for key, value in state_dict.items()}
    has_experts = any(".experts.expert_" in key for key in shapes)
    switch = any(key.endswith(".router.classifier.weight") for key in shapes)
    gpt2 = any(key.endswith(".w_gate") for key in shapes)
    hyper = any(key.endswith(".n_experts_embedding.weight") for key in shapes)
    if switch and (hyper or has_experts):
        return _switch(shapes, hyper=hyper)
    if gpt2 and (hyper or has_experts):
        return _gpt2(shapes, hyper=hyper)
    if {
        "decoder.adapter_task_embedding.weight",
        "decoder.param_gen.decoder.linear2.weight",
        "decoder.mlp.0.weight",
    } <= (shapes.keys()):
        return _pha(shapes)
    if any(".blocks." in key for key in shapes):
        if any(key.startswith("router.model.") for key in shapes):
            return _task_moe(shapes, form="v2")
        if any(".encoder.routers." in key for key in shapes):
            return _task_moe(shapes, form="v1")
    raise AuthorsFileError(_stranger(shapes))


def _stranger(shapes: Mapping[str, Shape]) -> str:
    if not shapes:
        return "The state dict is empty. Give the weights that the authors' code saved."
    if any("adapter_task_embedding" in key or ".param_gen.decoder." in key for key in shapes):
        return (
            "The keys are those of Hyperdecoders or another relative of PHA: PHA has decoder.mlp.0.weight, "
            "decoder.adapter_task_embedding.weight and decoder.param_gen.decoder.linear2.weight together. "
            "Give a model trained with decoder_adapter = pro-hyper."
        )
    return (
        f"The {len(shapes)} keys are of no system known here; they begin with {listed(list(shapes))}. "
        "Give a state dict made by the authors' code of HyperMoE, PHA or Task-level MoE."
    )


def _switch(shapes: Mapping[str, Shape], *, hyper: bool) -> Recognized:
    what = "HyperMoE on Switch" if hyper else "a Switch Transformer"
    read = reading(switch_table(hyper=hyper), shapes, what=what, known={})
    layers = []
    for stack in STACKS:
        sparse = [layer for (layer,) in read.places[f"{stack} sparse"]]
        with_experts = sorted({layer for layer, _ in read.places[f"{stack} experts"]})
        _require_one_each(
            read.dims[f"{stack}_layers"],
            [layer for (layer,) in read.places[f"{stack} dense"]] + sparse,
            what=f"feed-forward of the {stack}",
        )
        _require_same(sparse, with_experts, what=f"{stack}'s sparse layers", other="layers with experts")
        layers += [f"{SHORT_STACK[stack]}{layer:02d}" for layer in sparse]
    _require_divisible(read.dims["inner"], read.dims["heads"])
    return _recognized(read, "HyperMoE", "switch" if hyper else "switch baseline", layers)


def _gpt2(shapes: Mapping[str, Shape], *, hyper: bool) -> Recognized:
    read = reading(gpt2_table(hyper=hyper), shapes, what="HyperMoE on GPT-2", known={})
    layers = range(read.dims["layers"])
    _require_same(list(layers), sorted({layer for layer, _ in read.places["experts"]}), what="layers", other="experts")
    return _recognized(read, "HyperMoE", "gpt2" if hyper else "gpt2 baseline", [f"L{layer:02d}" for layer in layers])


def _pha(shapes: Mapping[str, Shape]) -> Recognized:
    gated = any(key.endswith(".wi_0.weight") for key in shapes)
    read = reading(pha_table(gated=gated), shapes, what="PHA", known={})
    _require_divisible(read.dims["inner"], read.dims["heads"])
    return _recognized(read, "PHA", "t5", [f"dec{layer:02d}" for layer in range(read.dims["decoder_layers"])])


def _task_moe(shapes: Mapping[str, Shape], *, form: str) -> Recognized:
    kind = "v1" if form == "v1" else router_kind(shapes)
    if kind is None:
        keys = [key for key in shapes if key.startswith("router.model.")]
        msg = (
            f"This looks like Task-level MoE with a router of an unknown kind: {listed(keys)}. "
            "Known are the MLP, recurrent and transformer routers of the authors' second version."
        )
        raise AuthorsFileError(msg)
    depths = {f"{stack}_layers": _depth(shapes, stack) for stack in STACKS}
    known = depths | {"layers": sum(depths.values())}
    read = reading(task_moe_table(kind), shapes, what=f"Task-level MoE {form}", known=known)
    layers = []
    for stack in STACKS:
        routed = sorted({layer for layer, _ in read.places[f"{stack} experts"]})
        unrouted = [layer for (layer,) in read.places[f"{stack} unrouted"]]
        _require_one_each(read.dims[f"{stack}_layers"], routed + unrouted, what=f"layer of the {stack}")
        layers += [f"{SHORT_STACK[stack]}{layer:02d}" for layer in routed]
    if kind.startswith("transformer"):
        _require_divisible(read.dims["router_hidden" if "specific" in kind else "task_embedding"], ROUTER_HEADS)
    if kind.startswith("recurrent"):
        gates = read.dims["gate_rows"] / read.dims["router_hidden"]
        if gates not in RECURRENT_GATES:
            msg = (
                f"The recurrent router has {gates:g} gates, but rnn has 1, gru 3 and lstm 4. "
                "Give the whole state dict, as the training script saved it."
            )
            raise AuthorsFileError(msg)
        kind = kind.replace("recurrent", RECURRENT_GATES[int(gates)])
    return _recognized(read, "Task-level MoE", form, layers, router=None if form == "v1" else kind)


def _recognized(
    read: Reading, system: System, form: str, layers: list[str], *, router: str | None = None
) -> Recognized:
    return Recognized(system, form, router, read.dims, tuple(layers), read.unused, read.not_understood)


def _depth(shapes: Mapping[str, Shape], stack: str) -> int:
    numbers = [re.match(rf"model\.{stack}\.layers\.(\d+)\.", key) for key in shapes]
    return 1 + max((int(found[1]) for found in numbers if found), default=-1)


def _require_one_each(n: int, numbers: list[int], *, what: str) -> None:
    if sorted(numbers) != list(range(n)):
        off = next(number for number in range(max([n, *numbers]) + 1) if numbers.count(number) != 1 or number >= n)
        msg = (
            f"There are {numbers.count(off)} instead of one {what} at layer {off}. "
            "Give the whole state dict, as the training script saved it."
        )
        raise AuthorsFileError(msg)


def _require_same(numbers: list[int], others: list[int], *, what: str, other: str) -> None:
    if numbers != others:
        msg = (
            f"The {what} are {numbers}, but the {other} are {others}. "
            "Give the whole state dict, as the training script saved it."
        )
        raise AuthorsFileError(msg)


def _require_divisible(width: int, heads: int) -> None:
    if width % heads:
        msg = (
            f"The attention's width {width} is no multiple of its {heads} heads. "
            "Give the whole state dict, as the training script saved it."
        )
        raise AuthorsFileError(msg)
