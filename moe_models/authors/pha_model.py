"""PHA on T5, from the authors' weights: the same architecture as ours, with biases in the generator."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from moe_models.authors.checkpoint import Checkpoint
from moe_models.authors.errors import AuthorsFileError
from moe_models.authors.mapping import Mapped, configuration, left_out, loaded, renamed, tied
from moe_models.authors.recognition import Recognized, recognize
from moe_models.authors.settings import checked_settings, t5_sizes
from moe_models.pha import PhaConfig, PhaForConditionalGeneration

RENAMES = (
    (".adapter_layer.adapter_down_manual.", ".adapter.down."),
    (".adapter_layer.adapter_up_manual.", ".adapter.up."),
    (".decoder.mlp.", ".retriever.process."),
    (".decoder.adapter_task_embedding.", ".prototypes."),
    (".decoder.param_gen.layer_embed.", ".hypernetwork.layer_embedding."),
    (".decoder.param_gen.decoder.linear1.", ".hypernetwork.widen."),
    (".decoder.param_gen.decoder.linear2.", ".hypernetwork.narrow."),
    (".decoder.param_gen.decoder.LayerNorm.", ".hypernetwork.norm."),
    (".decoder.param_gen.decoder.weight_up.", ".hypernetwork.heads.up."),
    (".decoder.param_gen.decoder.weight_down.", ".hypernetwork.heads.down."),
    (".decoder.param_gen.decoder.bias_up.", ".hypernetwork.heads.bias_up."),
    (".decoder.param_gen.decoder.bias_down.", ".hypernetwork.heads.bias_down."),
)

NORM_EPSILON = 1e-6
"""Of the norm in the authors' generator; written in their code, not in any file."""

TOLD = {
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "dropout_rate": 0.1,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "adapter_norm_input": True,
    "encoder_adapter": "manual",
    "decoder_adapter": "pro-hyper",
}

ROW_ORDER = (
    "The order of tasks in config.json is the only map from prototypes to tasks, and the authors' code writes it anew "
    "from an unordered set at every launch: if config.json is not the one saved with these weights, names are permuted."
)


def pha_model(checkpoint: Checkpoint) -> Mapped:
    """PHA as ``PhaForConditionalGeneration``.

    Raises:
        AuthorsFileError: the file is another system's, is incomplete, contradicts its config.json, or was trained in
            another mode than PHA's.
    """
    found = recognize(checkpoint.tensors)
    if found.system != "PHA":
        msg = f"This is {found.system} in its {found.form} form. Give a file of PHA."
        raise AuthorsFileError(msg)
    _require_tied_head(checkpoint.tensors)
    dims, gated = found.dims, any(key.endswith(".wi_0.weight") for key in checkpoint.tensors)
    projection = checkpoint.config.get("feed_forward_proj", "gated-gelu" if gated else "relu")
    measured = t5_sizes(dims) | {
        "encoder_adapter_dim": dims["encoder_adapter"],
        "decoder_adapter_dim": dims["adapter"],
        "tie_word_embeddings": True,
        "feed_forward_proj": projection,
    }
    config = {name: value for name, value in checkpoint.config.items() if name != "tasks"}
    values, said = checked_settings(config, measured=measured, told=TOLD)
    _require_pha_modes(values)
    tasks, order = row_tasks(checkpoint, found)
    ours = configuration(
        PhaConfig,
        {name: value for name, value in values.items() if name not in ("decoder_adapter_dim", "adapter_norm_input")}
        | {
            "tasks": list(tasks),
            "adapter_dim": dims["adapter"],
            "prototype_dim": dims["prototype"],
            "retriever_dim": dims["retriever"],
            "generator_bias": True,
            "generator_norm_epsilon": NORM_EPSILON,
            "adapter_normed_input": values["adapter_norm_input"],
        },
    )
    tensors = renamed(checkpoint.tensors, RENAMES, without=left_out(found))
    repeats = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"]
    model = loaded(PhaForConditionalGeneration, ours, tensors=tied(tensors, source="shared.weight", repeats=repeats))
    return Mapped(model, found, (*found.sentences(), order, *said))


def row_tasks(checkpoint: Checkpoint, found: Recognized) -> tuple[tuple[str, ...], str]:
    """The task of each prototype, and what is uncertain about that.

    Raises:
        AuthorsFileError: the names are not as many as the prototypes, or one comes twice.
    """
    n, tasks = found.dims["n_tasks"], checkpoint.tasks
    if not tasks:
        names = tuple(f"prototype {row}" for row in range(n))
        return names, "There was no config.json with tasks, so the prototypes have no names but their row's number."
    if len(tasks) != n or len(set(tasks)) != n:
        msg = (
            f"The weights have {n} prototypes, but config.json names {len(tasks)} tasks, {len(set(tasks))} distinct. "
            "Give the config.json that was saved with these weights; no other has the order of the rows."
        )
        raise AuthorsFileError(msg)
    return tasks, ROW_ORDER


def _require_tied_head(tensors: Mapping[str, torch.Tensor]) -> None:
    if "lm_head.weight" in tensors and not torch.equal(tensors["lm_head.weight"], tensors["shared.weight"]):
        msg = (
            "lm_head.weight is not the embedding, as in T5 v1.1, which the installed transformers cannot build. "
            "The prototypes and adapters can still be read: use prototypes(checkpoint)."
        )
        raise AuthorsFileError(msg)


def _require_pha_modes(values: Mapping[str, object]) -> None:
    modes = {"encoder_adapter": "manual", "decoder_adapter": "pro-hyper"}
    if other := [f"{name} {values[name]!r}" for name, mode in modes.items() if values[name] != mode]:
        msg = (
            f"config.json says {' and '.join(other)}, which is not how PHA is trained (manual, pro-hyper). "
            "Give a model of PHA; other modes of the same code are not mapped."
        )
        raise AuthorsFileError(msg)
