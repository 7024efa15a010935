"""HyperMoE on Switch, from the authors' weights: the same architecture as ours, under other names."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from moe_models.authors.checkpoint import Checkpoint
from moe_models.authors.errors import AuthorsFileError
from moe_models.authors.keys_backbones import STACKS
from moe_models.authors.mapping import Mapped, configuration, left_out, loaded, renamed, tied
from moe_models.authors.recognition import SHORT_STACK, Recognized, recognize
from moe_models.authors.settings import checked_settings, t5_sizes
from moe_models.hypermoe import HyperMoeSwitchConfig, HyperMoeSwitchForConditionalGeneration

RENAMES = (
    (".param_gen.layer_embed.", ".hypernetwork.layer_embedding."),
    (".param_gen.decoder.linear1.", ".hypernetwork.trunk."),
    (".param_gen.decoder.weight_up.", ".hypernetwork.heads.up."),
    (".param_gen.decoder.weight_down.", ".hypernetwork.heads.down."),
    (".param_gen.decoder.bias_up.", ".hypernetwork.heads.bias_up."),
    (".param_gen.decoder.bias_down.", ".hypernetwork.heads.bias_down."),
    (".mlp.n_experts_embedding.", ".mlp.hyper_expert.selection.expert_embedding."),
    (".mlp.embedding_process.", ".mlp.hyper_expert.selection.process."),
)
"""Their generator writes weight_up as (a, d) and weight_down as (d, a), rows first, as ours does: no transpose."""

TOLD = {
    "expert_capacity": 64,
    "layer_norm_epsilon": 1e-6,
    "relative_attention_max_distance": 128,
    "dense_act_fn": "relu",
    "dropout_rate": 0.1,
    "router_jitter_noise": 0.01,
    "router_dtype": "float32",
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}

WIDTHS = {
    "experts_embedding_dim": ("expert_embedding", "expert_embedding_dim"),
    "process_dim": ("process", "process_dim"),
    "hypernet_input": ("hypernetwork_input", "hypernetwork_input_dim"),
    "layer_emb_dim": ("layer_embedding", "layer_embedding_dim"),
    "hypernetwork_bottleneck": ("bottleneck", "hypernetwork_bottleneck"),
    "adapter_dim": ("adapter", "adapter_dim"),
}
"""The HyperExpert's widths: their name in config.json, our dimension, our option."""


def switch_model(checkpoint: Checkpoint) -> Mapped:
    """HyperMoE (or the authors' Switch baseline) as ``HyperMoeSwitchForConditionalGeneration``.

    Raises:
        AuthorsFileError: the file is another system's or form's, is incomplete, or contradicts its config.json.
    """
    found = recognize(checkpoint.tensors)
    if found.form not in ("switch", "switch baseline"):
        msg = f"This is {found.system} in its {found.form} form. Give a file of HyperMoE on Switch."
        raise AuthorsFileError(msg)
    hyper, dims, config = found.form == "switch", found.dims, checkpoint.config
    ties = _tied_head(checkpoint.tensors, config)
    bias = any(key.endswith(".router.classifier.bias") for key in checkpoint.tensors)
    measured = t5_sizes(dims) | {
        "num_experts": dims["n_experts"],
        "router_bias": bias,
        "tie_word_embeddings": ties,
    }
    widths = {theirs: dims[ours] for theirs, (ours, _) in WIDTHS.items()} if hyper else {}
    switches = {"experts_embedding": hyper, "use_hypernet": hyper}
    config = {name: value for name, value in config.items() if "_sparse_" not in name}
    values, said = checked_settings(config, measured=measured | widths | switches, told=TOLD)
    options = {theirs: option for theirs, (_, option) in WIDTHS.items()}
    values = {options.get(name, name): value for name, value in values.items() if name not in switches}
    values |= {f"num_sparse_{stack}_layers": _n_sparse(found, stack, checkpoint.config) for stack in STACKS}
    values |= {"conditioning": "unselected" if hyper else "none", "dropped_tokens": "scaled_input"}
    ours = configuration(HyperMoeSwitchConfig, values)
    tensors = renamed(checkpoint.tensors, RENAMES, without=left_out(found))
    repeats = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", *(["lm_head.weight"] if ties else [])]
    model = loaded(
        HyperMoeSwitchForConditionalGeneration, ours, tensors=tied(tensors, source="shared.weight", repeats=repeats)
    )
    return Mapped(model, found, (*found.sentences(), *said, *_differences(values, hyper=hyper)))


def _differences(values: Mapping[str, object], *, hyper: bool) -> list[str]:
    said = []
    if values["router_jitter_noise"]:
        said.append(
            "The authors' router multiplies what the whole layer sees by noise, in evaluation too; our model adds "
            "noise to the router alone and in training only, so its outputs are those of router_jitter_noise 0."
        )
    if not hyper:
        said.append(
            "A Switch without expert embeddings is the authors' MoE baseline or any other Switch Transformer; the "
            "weights do not tell which."
        )
    return said


def _tied_head(tensors: Mapping[str, torch.Tensor], config: Mapping[str, object]) -> bool:
    if "lm_head.weight" not in tensors:
        return bool(config.get("tie_word_embeddings", True))
    return torch.equal(tensors["lm_head.weight"], tensors["shared.weight"])


def _n_sparse(found: Recognized, stack: str, config: Mapping[str, object]) -> int:
    """How many sparse layers our configuration must ask for to make exactly those of the file.

    The authors' release makes layer i sparse where i mod step = 1, so step 1 makes none; the present library makes all
    layers sparse then, and none where it is asked for more layers than there are.
    """
    depth, short = found.dims[f"{stack}_layers"], SHORT_STACK[stack]
    sparse = {int(label.removeprefix(short)) for label in found.layers if label.startswith(short)}
    told = config.get(f"num_sparse_{stack}_layers")
    if isinstance(told, int) and sparse not in [_sparse_layers(depth, told, every_at_step_1=x) for x in (False, True)]:
        msg = (
            f"config.json asks for {told} sparse layers of {depth} in the {stack}; the weights have {sorted(sparse)}. "
            "Give the config.json that was saved with these weights."
        )
        raise AuthorsFileError(msg)
    fitting = [n for n in range(1, depth + 2) if sparse == _sparse_layers(depth, n, every_at_step_1=True)]
    if not fitting:
        msg = (
            f"The {stack}'s sparse layers {sorted(sparse)} of {depth} are not evenly spaced, as Switch makes them. "
            "Give the whole state dict, as the training script saved it."
        )
        raise AuthorsFileError(msg)
    return fitting[0]


def _sparse_layers(depth: int, n: int, *, every_at_step_1: bool) -> set[int]:
    step = depth // n if n > 0 else depth
    if step == 1 and every_at_step_1:
        return set(range(depth))
    return {layer for layer in range(depth) if step > 0 and layer % step == 1}
