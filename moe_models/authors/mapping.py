"""Putting the authors' weights into one of our models, with nothing lost on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel

from moe_models.authors.errors import AuthorsFileError, listed
from moe_models.authors.recognition import Recognized


@dataclass(frozen=True)
class Mapped:
    """One of our models with the authors' weights.

    Attributes:
        model: in evaluation mode.
        recognized: what the file was.
        sentences: all that could not be mapped, was assumed, or behaves otherwise than in the authors' code.
    """

    model: PreTrainedModel
    recognized: Recognized
    sentences: tuple[str, ...]


def renamed(
    tensors: Mapping[str, torch.Tensor], renames: Sequence[tuple[str, str]], *, without: set[str]
) -> dict[str, torch.Tensor]:
    """The tensors under our names: in each key the first old name that occurs is replaced by the new one."""
    held = {}
    for key, value in tensors.items():
        if key not in without:
            old, new = next((pair for pair in renames if pair[0] in f".{key}"), ("", ""))
            held[f".{key}".replace(old, new, 1)[1:] if old else key] = value
    return held


def below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose keys begin with ``prefix``, under the rest of their keys, in single precision."""
    return {key.removeprefix(prefix): value.float() for key, value in tensors.items() if key.startswith(prefix)}


def left_out(recognized: Recognized) -> set[str]:
    """Keys that go into no model: those without a part in any computation, and those that were not understood."""
    return {key for keys in recognized.unused.values() for key in keys} | set(recognized.not_understood)


def tied(tensors: dict[str, torch.Tensor], *, source: str, repeats: Sequence[str]) -> dict[str, torch.Tensor]:
    """The tensors with ``repeats`` filled in from ``source``, the one embedding of the model.

    Raises:
        AuthorsFileError: a repeat differs from its source.
    """
    for name in repeats:
        if name in tensors and not torch.equal(tensors[name], tensors[source]):
            msg = (
                f"{name} differs from {source}, though they are one embedding in the authors' code. "
                "Give the state dict as it was saved."
            )
            raise AuthorsFileError(msg)
    return tensors | {name: tensors[source] for name in repeats}


def loaded(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, *, tensors: Mapping[str, torch.Tensor]
) -> PreTrainedModel:
    """A model of ours in evaluation mode with exactly these weights.

    Raises:
        AuthorsFileError: a weight of the model is not given, or one is given that the model lacks.
    """
    model = model_class(config)
    missing, unexpected = model.load_state_dict(dict(tensors), strict=False)
    if off := [*missing, *unexpected]:
        msg = (
            f"{len(off)} weights do not fit {model_class.__name__}: {listed(off)}. "
            "Give the file as the authors' code wrote it, with the config.json saved beside it."
        )
        raise AuthorsFileError(msg)
    return model.eval()


def configuration(config_class: type[PreTrainedConfig], values: Mapping[str, object]) -> PreTrainedConfig:
    """A configuration of ours.

    Raises:
        AuthorsFileError: a value is not of the kind the configuration wants.
    """
    try:
        return config_class(**values)
    except (StrictDataclassError, TypeError, ValueError) as error:
        msg = f"config.json holds a value that does not fit: {error} Give the config.json saved with these weights."
        raise AuthorsFileError(msg) from error
