"""Hooks on the model itself: where a pass begins and ends, and whether every router was heard in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hooks.likelihood import output_logits, token_nll
from hooks.passes import Generation, Labels, Pass, StackPass, bound_arguments, parameter_names, stack_pass
from hooks.sites import Site
from hooks.taps import Reading, in_backward
from routing import RecordingError

__all__ = ["PassWatch", "main_stack"]

Deliver = Callable[[Pass, dict[str, int]], None]


def main_stack(sites: list[Site], *, two_stacks: bool) -> str:
    """The stack whose rows are the tokens that the model is called with."""
    stacks = list(dict.fromkeys(site.facts.stack for site in sites))
    if two_stacks or "decoder" in stacks:
        return "decoder"
    return "text" if "text" in stacks else stacks[0]


class PassWatch:
    """Notes each forward of the model as a pass and hands it over once every router was heard.

    Args:
        model: the transformers model, unwrapped.
        sites: its routers.
        begun: called at each beginning; it raises if the writer has failed.
        deliver: is handed each pass with the rows of each stack.
        first_heard: is handed the first reading of each router, for the proof.
        labels: the labels in force.
        with_nll: whether the likelihood of each token is taken from the model's logits.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sites: list[Site],
        begun: Callable[[], None],
        deliver: Deliver,
        first_heard: Callable[[int, Reading], None],
        labels: Callable[[], Labels | None],
        with_nll: bool,
    ) -> None:
        self._model, self._sites = model, sites
        self._begun, self._deliver, self._first_heard = begun, deliver, first_heard
        self._labels, self._with_nll = labels, with_nll
        self._two_stacks = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
        self.main = main_stack(sites, two_stacks=self._two_stacks)
        self.paused = self._outside_graphs = False
        self.generation: Generation | None = None
        self._heard_before = False
        self._open: Pass | None = None
        self._owner: nn.Module | None = None
        self._thread = 0
        self._before: tuple[int | None, Tensor] | None = None
        self._copied: set[int] = set()
        self._unexamined = set(range(len(sites)))
        self._originals: dict[int, Reading] = {}
        self._pools = _pools(sites)
        self._on_cuda = any(parameter.is_cuda for parameter in model.parameters())

    @property
    def reads_first(self) -> str:
        """The stack that reads a text first."""
        return "encoder" if self._two_stacks else self.main

    @property
    def written_stacks(self) -> frozenset[str]:
        """Stacks whose tokens are all written by the model."""
        return frozenset({"decoder"}) if self._two_stacks else frozenset()

    def attach(self, *, compiled: bool = False) -> list[RemovableHandle]:
        """Hooks on the model, and on its encoder and decoder where it has both; kept out of compiled graphs."""
        self._outside_graphs = compiled
        handles = self._hooked(self._model, stack=None)
        if self._two_stacks:
            handles += self._hooked(self._model.get_encoder(), stack="encoder")
            handles += self._hooked(self._model.get_decoder(), stack="decoder")
        return handles

    def receive(self, number: int, reading: Reading) -> None:
        """Take the reading of one router. Runs once a layer and step, so it does little."""
        one = self._open
        if one is None or one.readings[number] is not None:
            self._refuse(number, one)
            return
        if number in self._unexamined:
            self._first_heard(number, reading)
            self._originals[number] = reading
            reading = _copy(reading)
        elif number in self._copied:
            reading = _copy(reading)
        one.readings[number] = reading

    def _refuse(self, number: int, one: Pass | None) -> None:
        if self.paused:
            return
        facts = self._sites[number].facts
        if one is None:
            msg = (
                f"The router of {facts.label} ({facts.module}) ran outside a forward of the "
                f"{type(self._model).__name__} that is being recorded. Give Recorder the module that you call."
            )
        else:
            msg = (
                f"The router of {facts.label} ({facts.module}) ran twice in one forward, so its rows have no place. "
                "Record a model in which each layer runs once a forward."
            )
        raise RecordingError(msg)

    def forget(self) -> None:
        """Drop a pass that never came to its end."""
        self._open = self._owner = None
        self._originals = {}

    def rest(self) -> None:
        """Nothing to do: each forward is handed over at its end."""

    def copy_always(self) -> None:
        """Copy every reading at the tap: compiled graphs write into the same memory at each call."""
        self._copied = set(range(len(self._sites)))

    def _hooked(self, module: nn.Module, *, stack: str | None) -> list[RemovableHandle]:
        names = parameter_names(module)

        def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self.paused and not in_backward():
                self._begin(module, stack, bound_arguments(names, args, kwargs))

        def end(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if self._owner is module:
                self._end(output)

        if self._outside_graphs:
            begin, end = torch.compiler.disable(begin), torch.compiler.disable(end)
        return [
            module.register_forward_pre_hook(begin, with_kwargs=True),
            module.register_forward_hook(end, always_call=True),
        ]

    def _begin(self, module: nn.Module, stack: str | None, given: Mapping[str, Any]) -> None:
        thread = threading.get_ident()
        if self._open is not None and self._thread != thread:
            msg = (
                "Two threads run the model at once, so their records would mix. "
                "Record from one thread, or give each thread a model of its own."
            )
            raise RecordingError(msg)
        inside = self._open is not None and self._owner is not module and stack is not None and self._two_stacks
        if not inside:
            if self._on_cuda and torch.cuda.is_current_stream_capturing():
                msg = (
                    "The forward is being captured into a CUDA graph, whose replays run no hooks. "
                    "Record without CUDA graphs (torch.compile without mode='reduce-overhead')."
                )
                raise RecordingError(msg)
            self._begun()
            self._open = Pass(readings=[None] * len(self._sites), labels=self._labels(), generation=self.generation)
            self._owner, self._thread = module, thread
        assert self._open is not None
        if stack is None and not self._two_stacks:
            stack = self.main
        if stack is not None and (seen := stack_pass(given)) is not None:
            self._open.stacks[stack] = seen

    def _end(self, output: Any) -> None:
        one, self._open, self._owner = self._open, None, None
        if one is None or output is None:
            return  # the forward raised: what it left is no record
        if not self._heard_before:
            self._heard_before = True
            self._find_main(one)
        if self._with_nll:
            self._note_nll(one, output)
        n_rows = self._rows_by_stack(one)
        self._require_all_heard(one, n_rows)
        if self._originals:
            self._find_edited(one)
        for number, reading in enumerate(one.readings):
            if reading is not None and reading.ratio is not None:
                one.stacks[self._sites[number].facts.stack].carried[f"ratio{number}"] = reading.ratio.float()
        self._deliver(one, n_rows)

    def _find_main(self, one: Pass) -> None:
        """Correct which stack reads the model's input, if the rows of the first forward say so (diffusion models)."""
        seen = one.stacks.get(self.main)
        if seen is None or self._two_stacks:
            return
        n_input = seen.n_batch * seen.n_columns
        sizes: dict[str, set[int]] = {}
        for site, reading in zip(self._sites, one.readings, strict=True):
            if reading is not None and reading.rows is None:
                sizes.setdefault(site.facts.stack, set()).add(reading.ids.shape[0])
        fitting = [stack for stack, found in sizes.items() if found == {n_input}]
        if fitting and self.main not in fitting:
            one.stacks[fitting[0]] = one.stacks.pop(self.main)
            self.main = fitting[0]

    def _note_nll(self, one: Pass, output: Any) -> None:
        seen = one.stacks.get(self.main)
        logits = output_logits(output)
        if seen is None or seen.ids is None or logits is None or logits.shape[0] != seen.n_batch:
            self._before = None
            return
        goes_on = bool(seen.past) and self._before is not None and self._before[0] in (None, seen.cache)
        before = self._before[1] if goes_on and self._before is not None else None
        if logits.shape[1] <= seen.n_columns and (before is not None or logits.shape[1] > 1):
            seen.nll = token_nll(logits, seen.ids, before=before).view(torch.int32)
        # A copy of the last column: a view would keep the logits of the whole batch alive.
        self._before = (seen.cache, logits[:, -1].detach().clone())

    def _rows_by_stack(self, one: Pass) -> dict[str, int]:
        """Rows of each stack; towers that were not called with tokens are given rows by what they routed."""
        n_rows = {stack: seen.n_batch * seen.n_columns for stack, seen in one.stacks.items()}
        for site, reading in zip(self._sites, one.readings, strict=True):
            stack = site.facts.stack
            if reading is None or stack in n_rows:
                continue
            size = reading.ids.shape[0]
            n_batch = next((seen.n_batch for seen in one.stacks.values()), 1)
            if size % n_batch:
                msg = (
                    f"{site.facts.module} routed {size} rows for a batch of {n_batch}, so they cannot be assigned to "
                    "prompts. Record such inputs one at a time (batch_size=1)."
                )
                raise RecordingError(msg)
            one.stacks[stack] = StackPass(n_batch=n_batch, n_columns=size // n_batch, past=0, cache=None)
            n_rows[stack] = size
        return n_rows

    def _require_all_heard(self, one: Pass, n_rows: Mapping[str, int]) -> None:
        for number, (site, reading) in enumerate(zip(self._sites, one.readings, strict=True)):
            expected = n_rows.get(site.facts.stack)
            if expected is None:
                continue  # this stack did not run
            if reading is not None and reading.rows is None and reading.ids.shape[0] == expected:
                continue
            # Pools that share a layer's tokens between them (text and image experts) add up to all of them.
            parts = [one.readings[member] for member in self._pools[number]]
            n_heard = sum(part.ids.shape[0] for part in parts if part is not None)
            if len(parts) > 1 and n_heard == expected:
                continue
            facts = site.facts
            heard = "was not heard" if n_heard == 0 else f"gave {n_heard} rows"
            msg = (
                f"The router of {facts.label} ({facts.router_class} at {facts.module}) {heard} in a forward of "
                f"{expected} rows. A fused kernel, a compiled graph or an early exit may have gone around it; "
                "load the model without that, and start the recording before the first compiled call."
            )
            raise RecordingError(msg)

    def _find_edited(self, one: Pass) -> None:
        """Which routers' tensors the model edits in place after the tap: only those are copied from now on."""
        for number, original in self._originals.items():
            copy = one.readings[number]
            if copy is not None and not _same(original, copy):
                self._copied.add(number)
            self._unexamined.discard(number)
        self._originals = {}


def _pools(sites: list[Site]) -> list[list[int]]:
    """For each router, the numbers of those that share its layer's tokens, itself included."""
    parents = [getattr(site.tap, "pools", None) or site for site in sites]
    return [[other for other, parent in enumerate(parents) if parent is own] for own in parents]


def _copy(reading: Reading) -> Reading:
    return Reading(*(None if part is None else part.clone() for part in _parts(reading)))


def _same(one: Reading, other: Reading) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(_parts(one), _parts(other), strict=True)
    )


def _parts(reading: Reading) -> tuple[Tensor | None, ...]:
    return tuple(getattr(reading, each.name) for each in fields(reading))
