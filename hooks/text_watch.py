"""Hooks on a model whose routers decide once a text: a row of the trace is a prompt.

A text begins when the encoder reads it. What the decoder then does, in one forward or step by step in `generate()`,
belongs to it, until the next text begins or the call that it was read in has ended.

B text, P position, z width of a conditioning vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hooks.generation import eos_ids_of
from hooks.likelihood import output_logits, token_nll
from hooks.passes import Generation, Labels, Pass, StackPass, bound_arguments, parameter_names, stack_pass
from hooks.sites import Site
from hooks.taps import Handle, Reading, in_backward
from hooks.taps.task_adapters import TaskAdapterTap
from routing import RecordingError

__all__ = ["STACK", "TextWatch"]

STACK = "model"
Deliver = Callable[[Pass, dict[str, int]], None]


@dataclass(eq=False, kw_only=True)
class _Text:
    """A batch of texts that is being read and answered."""

    one: Pass
    encoder: StackPass
    within_forward: bool
    n_decoder_passes: int = 0
    decoder_ids: Tensor | None = None
    real: Tensor | None = None
    nll: Tensor | None = None
    vectors: Tensor | None = None
    rows: Tensor | None = None
    lengths: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


class TextWatch:
    """Notes each batch of texts as one pass, and hands it over once the decoder has run.

    Args:
        model: the transformers model, unwrapped; an encoder–decoder.
        sites: its routers.
        adapters: the places of its generated adapters, or none.
        begun, deliver, first_heard, labels, with_nll: as for `PassWatch`.
    """

    main = STACK
    reads_first = STACK
    written_stacks: frozenset[str] = frozenset()

    def __init__(
        self,
        model: nn.Module,
        *,
        sites: list[Site],
        adapters: list[TaskAdapterTap],
        begun: Callable[[], None],
        deliver: Deliver,
        first_heard: Callable[[int, Reading], None],
        labels: Callable[[], Labels | None],
        with_nll: bool,
    ) -> None:
        self._model: Any = model
        self._sites, self._adapters = sites, adapters
        self._begun, self._deliver, self._first_heard = begun, deliver, first_heard
        self._labels, self._with_nll = labels, with_nll
        self.paused = False
        self._generation: Generation | None = None
        self._text: _Text | None = None
        self._in_forward = False
        self._vectors: Tensor | None = None
        self._unheard = set(range(len(sites)))
        config = model.config
        self._pad_id = getattr(config, "pad_token_id", None)
        self._ends = sorted(eos_ids_of(model))

    @property
    def generation(self) -> Generation | None:
        """The call of `generate()` that is under way."""
        return self._generation

    @generation.setter
    def generation(self, generation: Generation | None) -> None:
        if generation is None:
            self.rest()
        self._generation = generation

    def attach(self, *, compiled: bool = False) -> list[Handle]:
        """Hooks on model, encoder, decoder and generated adapters.

        Raises:
            RecordingError: the model is compiled.
        """
        if compiled:
            msg = (
                f"Parts of this {type(self._model).__name__} are compiled, and its routes and adapters are set from "
                "outside its graphs. Record it without torch.compile."
            )
            raise RecordingError(msg)
        encoder, decoder = self._model.get_encoder(), self._model.get_decoder()
        handles: list[Handle] = [
            self._model.register_forward_pre_hook(self._enter),
            self._model.register_forward_hook(self._leave, always_call=True),
            *self._at_beginning(encoder, self._encoder_begins),
            *self._at_beginning(decoder, self._decoder_begins),
        ]
        for tap in self._adapters:
            handles += tap.attach(self._measured)
        if self._adapters:
            handles.append(_Wrapped(self._model, self._adapted))
        return handles

    def receive(self, number: int, reading: Reading) -> None:
        """Take the reading of one router; of a text's later steps, which route alike, nothing is kept."""
        text = self._text
        if text is None or text.one.readings[number] is not None:
            return
        if number in self._unheard:
            self._unheard.discard(number)
            self._first_heard(number, reading)
        text.one.readings[number] = reading

    def conditioning(self) -> Tensor | None:
        """The vectors (B, z) that the running decoder's adapters are made from; None while nothing is recorded."""
        return None if self._text is None or self.paused else self._text.vectors

    def copy_always(self) -> None:
        """Nothing to do: what the routers hand over is made anew for each text."""

    def forget(self) -> None:
        """Drop a text that never came to its end."""
        self._text = None
        self._in_forward = False

    def rest(self) -> None:
        """Hand over the text that is under way, if its decoder has run: nothing more will come of it."""
        text, self._text = self._text, None
        if text is None or text.n_decoder_passes == 0:
            return
        silent = [site.facts for site, seen in zip(self._sites, text.one.readings, strict=True) if seen is None]
        if silent:
            msg = (
                f"The router of {silent[0].label} ({silent[0].module}) was not heard though the decoder ran. "
                "Record a model whose layers all run, and call it as a whole."
            )
            raise RecordingError(msg)
        n_batch = text.encoder.n_batch
        carried: dict[str, Tensor] = {}
        for seen in text.one.readings:
            if seen is not None and seen.vector is not None:
                carried["instance"] = seen.vector.float()
        if text.vectors is not None and text.rows is not None and text.lengths:
            carried["conditioning"] = text.vectors.float()
            carried["prototype_row"] = text.rows.float()
            ratios = [(added / branch).sqrt() for _, (added, branch) in sorted(text.lengths.items())]
            carried["ratio"] = torch.stack(ratios, dim=1)
        nll = None if text.nll is None else text.nll[:, None].contiguous().view(torch.int32)
        text.one.stacks[STACK] = StackPass(
            n_batch=n_batch,
            n_columns=1,
            past=0,
            cache=None,
            ids=text.encoder.ids,
            mask=text.encoder.mask,
            nll=nll,
            carried={name: value.contiguous() for name, value in carried.items()},
        )
        self._deliver(text.one, {STACK: n_batch})

    def _at_beginning(self, module: nn.Module, begin: Callable[[Mapping[str, Any]], None]) -> list[RemovableHandle]:
        names = parameter_names(module)

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self.paused and not in_backward():
                begin(bound_arguments(names, args, kwargs))

        return [module.register_forward_pre_hook(before, with_kwargs=True)]

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._in_forward = True

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._in_forward = False
        text = self._text
        if text is None or self.paused or in_backward():
            return
        if output is None:
            self._text = None  # the forward raised: what it left is no record
            return
        if self._with_nll and text.nll is None and text.n_decoder_passes == 1 and self._generation is None:
            self._note_nll(text, output)
        if text.within_forward:
            self.rest()

    def _encoder_begins(self, given: Mapping[str, Any]) -> None:
        self.rest()
        self._begun()
        seen = stack_pass(given)
        if seen is None:
            msg = (
                f"The encoder of this {type(self._model).__name__} was called with neither ids nor embeddings. "
                "Give it input_ids."
            )
            raise RecordingError(msg)
        one = Pass(readings=[None] * len(self._sites), labels=self._labels(), generation=self._generation)
        self._text = _Text(one=one, encoder=seen, within_forward=self._in_forward)

    def _decoder_begins(self, given: Mapping[str, Any]) -> None:
        text, seen = self._text, stack_pass(given)
        if text is None:
            msg = (
                f"The decoder of this {type(self._model).__name__} ran on a text whose encoder did not run in this "
                "recording. Call the model with input_ids inside the Recorder's context."
            )
            raise RecordingError(msg)
        assert seen is not None
        if seen.n_batch != text.encoder.n_batch:
            msg = (
                f"The encoder read {text.encoder.n_batch} texts and the decoder writes {seen.n_batch}, so that rows "
                "do not belong to one prompt each. Generate one sequence a prompt, without beams."
            )
            raise RecordingError(msg)
        text.real = self._real(seen, first=text.n_decoder_passes == 0)
        text.n_decoder_passes += 1
        text.decoder_ids = seen.ids
        if self._adapters and text.vectors is None:
            text.vectors, text.rows = self._named_vectors()

    def _real(self, seen: StackPass, *, first: bool) -> Tensor | None:
        """Which tokens of the decoder's input count (B, P): no padding, nothing from the end on, nothing twice."""
        if seen.mask is not None and first:
            return seen.mask.float()
        if seen.ids is None:
            return None
        real = torch.ones_like(seen.ids, dtype=torch.float32)
        if self._pad_id is not None:
            real = (seen.ids != self._pad_id).float()
        if first:
            real[:, 0] = 1  # the start token may be the padding token
        else:
            for end in self._ends if self._generation is None else self._generation.eos_ids:
                real = real * (seen.ids != end)
            real[:, :-1] = 0  # without a cache the text is read again for each new token
        return real

    def _named_vectors(self) -> tuple[Tensor, Tensor]:
        if self._vectors is None:
            msg = (
                "The adapters of this batch were set before the recording began, so nobody can say what they were made "
                "from. Enter adapted() inside the Recorder's context, or call the model with task_ids."
            )
            raise RecordingError(msg)
        vectors, prototypes = self._vectors, self._model.prototypes.weight.detach()
        same = (vectors[:, None] == prototypes.to(vectors)[None]).all(dim=-1)
        rows = torch.where(same.any(dim=1), same.int().argmax(dim=1), -1)
        return vectors, rows

    def _adapted(self, original: Callable[[Tensor], AbstractContextManager[Any]], vectors: Tensor) -> Any:
        return _Noting(self, original(vectors), vectors.detach())

    def _measured(self, number: int, added: Tensor, branch: Tensor) -> None:
        text = self._text
        if text is None or self.paused or in_backward():
            return
        real = torch.ones_like(added) if text.real is None else text.real.to(added.device)
        sums = ((added * real).sum(dim=1), (branch * real).sum(dim=1))
        before = text.lengths.get(number)
        text.lengths[number] = sums if before is None else (before[0] + sums[0], before[1] + sums[1])

    def _note_nll(self, text: _Text, output: Any) -> None:
        """Mean surprise at the tokens that the decoder was handed, its first one left out."""
        logits, ids = output_logits(output), text.decoder_ids
        if logits is None or ids is None or ids.shape[1] < 2 or logits.shape[:2] != ids.shape:
            return
        nll = token_nll(logits, ids, before=None)[:, 1:]
        real = (torch.ones_like(nll) if text.real is None else text.real.to(nll.device))[:, 1:]
        text.nll = torch.where(real > 0, nll, 0.0).sum(dim=1) / real.sum(dim=1)


class _Wrapped:
    """Stands before a model's `adapted` until it is removed."""

    def __init__(self, model: Any, instead: Callable[..., Any]) -> None:
        self._model, self._mine = model, model.__dict__.get("adapted")
        original = model.adapted
        model.adapted = lambda vectors: instead(original, vectors)

    def remove(self) -> None:
        if self._mine is None:
            self._model.__dict__.pop("adapted", None)
        else:
            self._model.adapted = self._mine


class _Noting:
    """The model's own context, while which the watch knows what the adapters are made from."""

    def __init__(self, watch: TextWatch, inner: AbstractContextManager[Any], vectors: Tensor) -> None:
        self._watch, self._inner, self._vectors = watch, inner, vectors

    def __enter__(self) -> Any:
        self._before, self._watch._vectors = self._watch._vectors, self._vectors
        return self._inner.__enter__()

    def __exit__(self, *error: Any) -> Any:
        self._watch._vectors = self._before
        return self._inner.__exit__(*error)
