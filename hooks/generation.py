"""A watch on `generate()`: what it was asked, so that its steps can be told from its prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from hooks.passes import Generation
from routing import RecordingError

__all__ = ["eos_ids_of", "generation_watched"]


def eos_ids_of(model: nn.Module, given: Any = None) -> frozenset[int]:
    """Token ids that end a text, from what was asked, the generation config or the model's."""
    for holder in (given, getattr(model, "generation_config", None), getattr(model, "config", None)):
        ids = getattr(holder, "eos_token_id", holder if holder is given else None)
        if isinstance(ids, Tensor):
            ids = ids.tolist()
        if isinstance(ids, int):
            return frozenset({ids})
        if isinstance(ids, (list, tuple)) and ids:
            return frozenset(int(each) for each in ids)
    return frozenset()


@contextmanager
def generation_watched(
    model: nn.Module, *, begun: Callable[[Generation | None], None], paused: Callable[[], bool]
) -> Iterator[None]:
    """While open, the model's `generate` tells `begun` what it was asked, and None when it is done.

    Beam search and drafted tokens are refused: both feed tokens that the text does not keep.
    """
    if not callable(getattr(model, "generate", None)):
        yield
        return
    generate, mine = model.generate, model.__dict__.get("generate")

    def watched(*args: Any, **kwargs: Any) -> Any:
        if paused():
            return generate(*args, **kwargs)
        _require_plain(model, kwargs)
        if _asked(model, kwargs, "cache_implementation"):
            # A static cache would have transformers compile the decode step, around our hooks.
            kwargs.setdefault("disable_compile", True)
        inputs = (
            args[0]
            if args
            else next(
                (kwargs[name] for name in ("inputs", "input_ids", "inputs_embeds") if kwargs.get(name) is not None),
                None,
            )
        )
        begun(
            Generation(
                prompt_columns=int(inputs.shape[1]) if isinstance(inputs, Tensor) and inputs.dim() >= 2 else None,
                eos_ids=eos_ids_of(model, kwargs.get("eos_token_id", kwargs.get("generation_config"))),
            )
        )
        try:
            return generate(*args, **kwargs)
        finally:
            begun(None)

    model.generate = watched
    try:
        yield
    finally:
        if mine is None:
            del model.generate
        else:
            model.generate = mine


def _asked(model: nn.Module, kwargs: dict[str, Any], name: str) -> Any:
    if kwargs.get(name) is not None:
        return kwargs[name]
    config = kwargs.get("generation_config") or getattr(model, "generation_config", None)
    return getattr(config, name, None)


def _require_plain(model: nn.Module, kwargs: dict[str, Any]) -> None:
    n_beams = _asked(model, kwargs, "num_beams")
    if n_beams is not None and n_beams > 1:
        msg = (
            f"generate() was asked for {n_beams} beams, whose rows change places between steps, so their routing "
            "cannot be told apart. Generate with num_beams=1, or record the finished texts in a forward of their own."
        )
        raise RecordingError(msg)
    if kwargs.get("assistant_model") is not None or _asked(model, kwargs, "prompt_lookup_num_tokens"):
        msg = (
            "generate() was asked to draft tokens and to check them, so tokens would be recorded that the text does "
            "not keep. Generate without assistant model and prompt look-up, or record the finished texts in a forward."
        )
        raise RecordingError(msg)
