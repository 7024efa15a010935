"""Forwards of tiny models, what the taps hand over in them, and experts made unusable."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hooks.sites import Site, attach_taps
from hooks.taps import Reading, Tap
from tests.hooks.families import Family, text_batch

Readings = list[list[Reading]]


def inputs_of(family: Family, model: nn.Module, *, seed: int = 0) -> dict[str, Any]:
    """Keyword arguments of a forward: two texts, the first with three tokens of padding on its left; or two images."""
    if family.inputs == "patches":
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randn(32, 3 * 4 * 4, generator=generator)
        return {"pixel_values": pixels, "grid_thw": torch.tensor([[1, 4, 4], [1, 4, 4]])}
    inputs = text_inputs(model, *padded(text_batch(seed=seed), model, left=3))
    if canvas := getattr(model.config, "canvas_length", None):
        # Left out, the library draws the canvas at random.
        inputs["decoder_input_ids"] = text_batch(seed=seed + 1, n_columns=canvas)
    return inputs


def padded(ids: Tensor, model: nn.Module, *, left: int = 0, right: int = 0) -> tuple[Tensor, Tensor]:
    """The rows and their mask, with the ends of the first row replaced by padding."""
    ids, mask = ids.clone(), torch.ones_like(ids)
    for columns in (slice(0, left), slice(ids.shape[1] - right, ids.shape[1])):
        ids[0, columns] = model.config.get_text_config().pad_token_id
        mask[0, columns] = 0
    return ids, mask


def text_inputs(model: nn.Module, ids: Tensor, mask: Tensor, *, decoder_ids: Tensor | None = None) -> dict[str, Any]:
    """Keyword arguments of a forward over texts, with positions counted from the first real token."""
    accepted = inspect.signature(type(model).forward).parameters
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids[:, :5] if decoder_ids is None else decoder_ids
    elif "position_ids" in accepted:
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    if hasattr(model, "codec_embedding"):
        inputs["inputs_embeds"] = model.codec_embedding(inputs.pop("input_ids")).detach()
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    return inputs


def recorded(model: nn.Module, sites: list[Site], forward: Callable[[], Any]) -> Readings:
    """Every reading of each site while `forward` runs."""
    readings: Readings = [[] for _ in sites]
    handles = attach_taps(model, sites, lambda number, reading: readings[number].append(reading))
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return readings


def n_hooks(model: nn.Module) -> int:
    """Hooks on all modules of a model."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def tensors_in(output: Any) -> Iterator[Tensor]:
    """All tensors of a model's output, depth first."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from tensors_in(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from tensors_in(value)


def calls_of(model: nn.Module, modules: list[nn.Module], forward: Callable[[], Any]) -> list[Any]:
    """(args, kwargs) with which each module was last called while `forward` ran; None where it was not."""
    calls: dict[int, tuple[Any, Any]] = {}

    def keeper(number: int) -> Callable[..., None]:
        def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
            calls[number] = args, kwargs

        return keep

    handles = [
        module.register_forward_pre_hook(keeper(number), with_kwargs=True) for number, module in enumerate(modules)
    ]
    with torch.no_grad():
        forward()
    for handle in handles:
        handle.remove()
    return [calls.get(number) for number in range(len(modules))]


@contextmanager
def poisoned(tap: Tap, expert: int, n_real: int) -> Iterator[None]:
    """One expert's weights set to NaN: whatever token it touches becomes NaN, whoever says what was routed."""
    own = expert_weights(tap, expert, n_real)
    kept = [each.clone() for each in own]
    for each in own:
        each.fill_(float("nan"))
    try:
        yield
    finally:
        for each, value in zip(own, kept, strict=True):
            each.copy_(value)


def expert_weights(tap: Tap, expert: int, n_real: int) -> list[Tensor]:
    """Views of the parameters that one expert alone has."""
    named = f"expert_{expert}"
    if isinstance(tap.experts, nn.ModuleDict):
        return [each.detach() for each in tap.experts[named].parameters()]
    if hasattr(tap.experts, "down_embed"):
        return [tap.experts.down_embed.weight.detach()[expert], tap.experts.up_embed.weight.detach()[expert]]
    if hasattr(tap.experts, "ffn_hidden_size"):
        # DBRX lays its experts one under another in one matrix.
        return [each.detach().unflatten(0, (n_real, -1))[expert] for each in tap.experts.parameters()]
    rows = {n_real, n_real + tap.n_zero_experts}
    return [
        each.detach()[expert]
        for name, each in tap.experts.named_parameters()
        if each.shape[0] in rows and not name.startswith("router.")
    ]
