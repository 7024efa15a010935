"""What one forward of the model was about: token ids, padding, positions, cache, phase.

A pass is noted by hooks on the model itself (and on encoder and decoder, where there are two). Nothing here asks the
device for a value; what lies on the device is cloned, since generation loops write into their inputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hooks.taps import Reading
from routing import RecordingError

__all__ = [
    "Generation",
    "Labels",
    "Pass",
    "StackPass",
    "bound_arguments",
    "inner_model",
    "parameter_names",
    "stack_pass",
]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A call of `generate()` that is under way.

    Attributes:
        prompt_columns: columns of its input, padding included; what follows was generated.
        eos_ids: tokens that end a text.
    """

    prompt_columns: int | None
    eos_ids: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Which prompts the rows of a batch are.

    Attributes:
        prompts: row of the prompt table, one for each row of the batch.
        n_tokens: real tokens of each row, where the batch is padded on the right and passed without a mask.
        n_prompt_tokens: how many of them are the prompt; what follows counts as generated.
        serial: number of the labelling: two forwards under one labelling may be one text.
    """

    prompts: tuple[int, ...]
    n_tokens: tuple[int, ...] | None
    n_prompt_tokens: tuple[int, ...] | None
    serial: int


@dataclass(slots=True, kw_only=True)
class StackPass:
    """The input of one stack of the model in one forward.

    Attributes:
        n_batch, n_columns: shape of the input; its routers see n_batch × n_columns rows.
        past: columns in the cache before this forward, None where only the device knows.
        cache: identity of the cache, for telling one text's steps from the next text's.
        ids, mask, positions: (batch, column) int32, or None where they were not passed.
        nll: (batch, column) float32 negative log-likelihood of each input token, or None.
        carried: further float32 tensors by name, one value or row of values a row of the routers.
    """

    n_batch: int
    n_columns: int
    past: int | None
    cache: int | None
    ids: Tensor | None = None
    mask: Tensor | None = None
    positions: Tensor | None = None
    nll: Tensor | None = None
    carried: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Pass:
    """One forward of the model: its inputs by stack, and one reading a router."""

    stacks: dict[str, StackPass] = field(default_factory=dict)
    readings: list[Reading | None]
    labels: Labels | None
    generation: Generation | None


def inner_model(model: nn.Module) -> nn.Module:
    """The transformers model inside wrappers that only pass calls on (data parallel, compiled, PEFT).

    Raises:
        RecordingError: the wrapper copies the model, so that hooks would record on the copies.
    """
    if isinstance(model, nn.DataParallel):
        msg = (
            "torch.nn.DataParallel copies the model in every forward, so its routers cannot be recorded. "
            "Use DistributedDataParallel with one Recorder and one folder a process."
        )
        raise RecordingError(msg)
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        elif hasattr(model, "peft_config") and callable(getattr(model, "get_base_model", None)):
            model = model.get_base_model()
        else:
            return model


def parameter_names(module: nn.Module) -> list[str]:
    """Names of the arguments of a module's forward, in order."""
    return list(inspect.signature(module.forward).parameters)


def bound_arguments(names: list[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, whether they were given by place or by name."""
    return {**dict(zip(names, args, strict=False)), **kwargs} if args else dict(kwargs)


def stack_pass(given: Mapping[str, Any]) -> StackPass | None:
    """The input of a stack from the arguments of its forward; None if it takes neither ids nor embeddings."""
    ids, embeds = given.get("input_ids"), given.get("inputs_embeds")
    shaped = ids if ids is not None else embeds
    if shaped is None or shaped.dim() < 2:
        return None
    n_batch, n_columns = shaped.shape[:2]
    mask, wider = _current_mask(given.get("attention_mask"), n_columns)
    cache = given.get("past_key_values")
    past: int | None = wider
    if not past and cache is not None:
        past = _cached_columns(cache)
    positions = given.get("position_ids")
    if positions is not None and positions.shape != (n_batch, n_columns):
        # One row for all of the batch holds plain positions; three axes are rotary, and no place in the text.
        positions = None
    return StackPass(
        n_batch=n_batch,
        n_columns=n_columns,
        past=past,
        cache=None if cache is None else id(cache),
        ids=None if ids is None else _noted(ids),
        mask=None if mask is None else _noted(mask),
        positions=None if positions is None or n_columns == 1 else _noted(positions),
    )


def _noted(values: Tensor) -> Tensor:
    # A new tensor in any case: loops that reuse their input buffers would change what we hold.
    return values.detach().to(torch.int32, copy=True)


def _current_mask(mask: Any, n_columns: int) -> tuple[Tensor | None, int]:
    """The mask of the current columns, and how many columns it has before them."""
    if isinstance(mask, Mapping):
        mask = mask.get("full_attention")
    if not isinstance(mask, Tensor):
        return None, 0
    if mask.dim() == 2:
        return mask[:, -n_columns:], max(0, mask.shape[1] - n_columns)
    if mask.dim() == 4:
        # The last query of a causal mask sees every real token; padding it does not see.
        last = mask[:, 0, -1, :]
        seen = last if last.dtype == torch.bool else last > torch.finfo(last.dtype).min / 2
        # A static cache is wider than what has been written; the current columns cannot be told from its tail.
        return (seen, 0) if seen.shape[1] == n_columns else (None, 0)
    return None, 0


def _cached_columns(cache: Any) -> int | None:
    measure: Callable[[], Any] | None = getattr(cache, "get_seq_length", None)
    if measure is None:
        # The tuples of older models: keys are (batch, head, column, width).
        return int(cache[0][0].shape[-2]) if isinstance(cache, tuple) and cache and cache[0] else 0
    length = measure()
    if isinstance(length, Tensor):
        return int(length) if length.device.type == "cpu" else None
    return int(length)
