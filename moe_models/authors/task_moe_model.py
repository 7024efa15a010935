"""Task-level MoE, from the authors' weights: routed BART under the same names, its MLP routers as ours."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from moe_models.authors.checkpoint import Checkpoint
from moe_models.authors.errors import AuthorsFileError
from moe_models.authors.keys_backbones import STACKS
from moe_models.authors.mapping import Mapped, configuration, left_out, loaded, renamed, tied
from moe_models.authors.recognition import SHORT_STACK, Recognized, recognize
from moe_models.authors.settings import checked_settings
from moe_models.task_moe import TaskMoeConfig, TaskMoeForConditionalGeneration

TOLD = {
    "activation_function": "gelu",
    "scale_embedding": False,
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}

MAPPED_ROUTERS = (None, "linear", "linear_layer_specific")
"""Routers that are one MLP a layer, or can be written as one; None is the first version's."""

POSITION_OFFSET = 2
"""BART's position table has two rows that no position uses."""

DECODING_START = (
    "The authors' evaluation starts decoding from bos_token_id, not from decoder_start_token_id: pass "
    "decoder_start_token_id to generate() for their scores."
)


def task_moe_model(checkpoint: Checkpoint, *, selection: str = "softmax", temperature: float | None = None) -> Mapped:
    """Task-level MoE as ``TaskMoeForConditionalGeneration``.

    Args:
        checkpoint: with config.json, task_vecs.npy and id2task.json.
        selection: how routes are made from logits; softmax is how the authors' analysis reads them.
        temperature: τ of the selection, which the authors' code saves nowhere; 1 where nothing is given.

    Raises:
        AuthorsFileError: the file is another system's, is incomplete, contradicts what lies beside it, or has a router
            that ours cannot be.
    """
    found = recognize(checkpoint.tensors)
    if found.system != "Task-level MoE":
        msg = f"This is {found.system} in its {found.form} form. Give a file of Task-level MoE."
        raise AuthorsFileError(msg)
    if found.router not in MAPPED_ROUTERS:
        msg = (
            f"The router is of kind {found.router}, and our model's is one MLP a layer. "
            "Its routes can still be read: use routes(checkpoint)."
        )
        raise AuthorsFileError(msg)
    vectors, tasks = task_vectors(checkpoint, found)
    dims, unrouted = found.dims, unrouted_layers(found)
    values, said = _settings(checkpoint.config, found)
    ours = configuration(
        TaskMoeConfig,
        values
        | {
            "tasks": list(tasks),
            "num_layer_experts": dims["n_experts"],
            "task_embedding_dim": dims["task_embedding"],
            "router_hidden_dim": dims["router_hidden"],
            "selection": selection,
            "temperature": 1.0 if temperature is None else temperature,
            **{f"{stack}_unrouted_layers": unrouted[stack] for stack in STACKS},
        },
    )
    without = left_out(found) | {key for key in checkpoint.tensors if ".routers." in key or key.startswith("router.")}
    # The authors compute the output with the embedding, whatever lm_head holds.
    tensors = renamed(checkpoint.tensors, (), without=without | {"lm_head.weight"})
    repeats = [*(f"model.{stack}.embed_tokens.weight" for stack in STACKS)]
    tensors = tied(tensors, source="model.shared.weight", repeats=repeats)
    tensors |= {"lm_head.weight": tensors["model.shared.weight"], "task_embedding.weight": vectors}
    tensors |= _router(checkpoint.tensors, found) | {"router.temperature": torch.tensor(float(ours.temperature))}
    model = loaded(TaskMoeForConditionalGeneration, ours, tensors=tensors)
    return Mapped(model, found, (*found.sentences(), *said, *_differences(checkpoint, found, selection, temperature)))


def task_vectors(checkpoint: Checkpoint, found: Recognized) -> tuple[torch.Tensor, tuple[str, ...]]:
    """The task embeddings (tasks, D) and the tasks' names.

    Raises:
        AuthorsFileError: there are none, or their number or width does not fit the router or the names.
    """
    vectors, tasks = checkpoint.task_vectors, checkpoint.tasks
    if vectors is None or not tasks:
        msg = "Routes are made from task_vecs.npy, and id2task.json names its rows. Put both beside the weights."
        raise AuthorsFileError(msg)
    wanted = (len(tasks), found.dims["task_embedding"])
    if vectors.shape != wanted:
        msg = (
            f"task_vecs.npy has shape {vectors.shape}, but {wanted[0]} named tasks and a router for vectors of "
            f"{wanted[1]} were found. Give the files that were saved with these weights."
        )
        raise AuthorsFileError(msg)
    return torch.from_numpy(vectors).float(), tasks


def unrouted_layers(found: Recognized) -> dict[str, list[int]]:
    """For each stack the layers without experts, told from the keys."""
    return {
        stack: [
            layer
            for layer in range(found.dims[f"{stack}_layers"])
            if f"{SHORT_STACK[stack]}{layer:02d}" not in found.layers
        ]
        for stack in STACKS
    }


def _settings(config: Mapping[str, object], found: Recognized) -> tuple[dict[str, object], tuple[str, ...]]:
    dims = found.dims
    heads = {f"{stack}_attention_heads": config.get(f"{stack}_attention_heads") for stack in STACKS}
    if off := [name for name, n in heads.items() if not isinstance(n, int) or n < 1 or dims["hidden"] % n]:
        msg = (
            f"{off[0]} is {heads[off[0]]!r}, and shapes do not tell it. "
            "Put the config.json of the training run beside the weights or one folder up."
        )
        raise AuthorsFileError(msg)
    measured = {
        "vocab_size": dims["vocabulary"],
        "d_model": dims["hidden"],
        "max_position_embeddings": dims["position_rows"] - POSITION_OFFSET,
        **{f"{stack}_layers": dims[f"{stack}_layers"] for stack in STACKS},
        **{f"{stack}_ffn_dim": dims[f"{stack}_ff"] for stack in STACKS},
        **heads,
    }
    router = {
        "router_block_num": dims["n_experts"],
        "router_input_dim": dims["task_embedding"],
        "router_hidden_dim": dims["router_hidden"],
        "router_nn_type": found.router,
    }
    if found.router is None:
        del router["router_nn_type"]
    config = {name: value for name, value in config.items() if not name.endswith("_vanilla_layers")}
    values, said = checked_settings(config, measured=measured | router, told=TOLD)
    return {name: value for name, value in values.items() if name not in router}, said


def layer_numbers(written: object) -> list[int]:
    """The layers in a comma string of config.json, such as "0,5"; a list of numbers is taken as well.

    Raises:
        AuthorsFileError: it holds something else than numbers.
    """
    parts = written.split(",") if isinstance(written, str) else written
    try:
        return sorted(int(part) for part in parts or () if str(part).strip())
    except (TypeError, ValueError) as error:
        msg = f"{written!r} in config.json is no list of layers. Give numbers with commas between them, such as 0,5."
        raise AuthorsFileError(msg) from error


def _router(tensors: Mapping[str, torch.Tensor], found: Recognized) -> dict[str, torch.Tensor]:
    """The router's weights under our names: one MLP for each routed layer."""
    depth, m, units = found.dims["encoder_layers"], found.dims["n_experts"], {}
    for unit, label in enumerate(found.layers):
        layer = int(label[-2:]) + (depth if label.startswith("dec") else 0)
        for end in ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"):
            if found.router == "linear":
                held = tensors[f"router.model.{end}"]
                held = held[layer * m : (layer + 1) * m] if end.startswith("linear2") else held
            elif found.router is None:
                stack = "decoder" if label.startswith("dec") else "encoder"
                held = tensors[f"model.{stack}.routers.{int(label[-2:])}.{end}"]
            else:
                held = tensors[f"router.model.router_units.{layer}.{end}"]
            units[f"router.units.{unit}.{end}"] = held
    return units


def _differences(checkpoint: Checkpoint, found: Recognized, selection: str, temperature: float | None) -> list[str]:
    said = [DECODING_START]
    if temperature is None:
        said.append(
            "The temperature τ of the selection is in no file (a model loaded by the authors' code has 5.0): routes "
            "are those of τ = 1, as in route_t1.npy."
        )
    if selection.startswith("gumbel"):
        said.append("The authors' Gumbel modes draw noise in evaluation too; our model evaluates them without noise.")
    if found.router == "linear":
        said.append(
            "The router's first layer is one for all layers; it was copied to each, so training would part them."
        )
    unrouted = unrouted_layers(found)
    if left := [f"{stack} {layers}" for stack, layers in unrouted.items() if layers]:
        said.append(f"The layers {' and '.join(left)} are not routed; the router's outputs for them were left out.")
    for stack, layers in unrouted.items():
        name = f"{stack}_vanilla_layers"
        if name in checkpoint.config and layer_numbers(checkpoint.config[name]) != layers:
            said.append(
                f"config.json has {name} {checkpoint.config[name]!r}, but the weights have {layers}, which was "
                "followed: the authors' code builds the decoder from the encoder's list."
            )
    shared, head = checkpoint.tensors["model.shared.weight"], checkpoint.tensors.get("lm_head.weight")
    if head is not None and not torch.equal(head, shared):
        said.append(
            "lm_head.weight differs from the embedding and was left out: the authors' code computes without it."
        )
    return said
