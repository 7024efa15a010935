"""The common ground of all taps: hooks that only look, and a replay that checks what they saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hooks.selection_rule import SelectionRule
from hooks.taps.reading import Emit, Reading
from routing.facts import LayerFacts

__all__ = ["Handle", "Replay", "ReportReplay", "Tap", "call_arguments", "in_backward", "relative_error", "sampled_rows"]

N_REPLAYED_ROWS = 128


@dataclass(frozen=True)
class Replay:
    """How far the recorded routing is from explaining what the experts returned.

    Attributes:
        error: () · largest relative distance of a row · 0 where the recording explains the output exactly.
        dtype: precision in which the experts ran; it decides how near is near enough.
        kind: what was compared: "replay" for ids and weights, "weights" where the library ignores the ids.
        note: what the comparison brought to light, or None.
    """

    error: Tensor
    dtype: torch.dtype
    kind: str = "replay"
    note: str | None = None


ReportReplay = Callable[[Replay], None]


class Handle(Protocol):
    """What removes a hook."""

    def remove(self) -> None:
        """Remove it; a second time does nothing."""


@dataclass(eq=False)
class Tap:
    """The reader of one router. Subclasses say where to look and how to decode.

    Attributes:
        experts: the module that runs the routed experts.
        router: the module that decides.
        block: the module that holds both; if it runs and the tap sees nothing, the site cannot be recorded.
        note: what a reader of the trace must know about routers of this kind, or None.
        n_zero_experts: how many of the experts compute nothing.
        score_function: its name where no rule from logits to experts exists to be learned, or None.
        unit: what one of its decisions is for: "token", or "prompt" where a whole text has one.
    """

    experts: nn.Module
    router: nn.Module
    block: nn.Module
    note: str | None = None
    n_zero_experts: int = 0
    score_function: str | None = None
    unit: str = "token"
    replaying: bool = field(default=False, init=False, repr=False)
    _watching: Emit | None = field(default=None, init=False, repr=False)

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> Tap | None:
        """A tap for a module whose class this tap reads, or None where it is not routed after all.

        Args:
            module: the module that discovery found.
            ancestors: the modules around it, the nearest first.
        """
        raise NotImplementedError

    def attach(self, emit: Emit) -> list[Handle]:
        """Hooks that `deliver` once per forward of this router; they return nothing and never synchronize."""
        raise NotImplementedError

    def attach_witness(self, report: ReportReplay) -> list[Handle]:
        """Hooks that replay each reading and report how near it came; needs the hooks of `attach` before its own."""
        raise NotImplementedError

    def deliver(self, emit: Emit, reading: Reading) -> None:
        """Hand a reading on, and to the witness if one is watching."""
        emit(reading)
        if self._watching is not None:
            self._watching(reading)

    def watch(self, keep: Emit) -> list[Handle]:
        """Have every reading handed to `keep` as well, until the handle in the result is removed."""
        self._watching = keep
        return [_Watch(self)]

    def completed(self, facts: LayerFacts) -> LayerFacts:
        """The facts with what only this kind of router can tell; called once its label is known."""
        return facts

    def known_rule(self) -> SelectionRule | None:
        """The rule from logits to selection scores where it is known, not learned; it is checked all the same."""
        return None

    def bias_candidates(self, n_experts: int) -> list[Tensor]:
        """Vectors near the router, one number an expert, that may be its selection bias.

        Returns:
            (expert) · added to a score · any; on the CPU.
        """
        found: dict[int, Tensor] = {}
        for module in (*self.router.modules(), self.block):
            with _at_hand(module):
                for name, tensor in (*module._buffers.items(), *module._parameters.items()):
                    if "_bias" in name and tensor is not None and tensor.numel() == n_experts:
                        found.setdefault(id(tensor), _gathered(tensor))
        return list(found.values())

    @contextmanager
    def replay_quietly(self) -> Iterator[None]:
        """Run modules again without recording them again, and without a trace in autograd."""
        self.replaying = True
        try:
            with torch.no_grad():
                yield
        finally:
            self.replaying = False

    def is_random(self) -> bool:
        """Whether the experts draw random numbers, as dropout does in training: then no replay can be exact."""
        return any(isinstance(each, nn.Dropout) and each.training and each.p > 0 for each in self.experts.modules())

    def must_look_away(self) -> bool:
        """Whether this forward is a replay, or a checkpointed layer that backward computes a second time."""
        return self.replaying or in_backward()


@dataclass(frozen=True)
class _Watch:
    tap: Tap

    def remove(self) -> None:
        self.tap._watching = None


def _at_hand(module: nn.Module) -> AbstractContextManager[object]:
    # Offloaded weights are on no device outside their module's forward.
    if not any(each.is_meta for each in module.parameters(recurse=False)):
        return nullcontext()
    from accelerate.utils import align_module_device

    return align_module_device(module)


def _gathered(tensor: Tensor) -> Tensor:
    # Sharded parameters are gathered by a collective; every rank proves its sites, so every rank takes part.
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().reshape(-1).float().cpu()


def in_backward() -> bool:
    """Whether autograd is running. A forward inside it is the recomputation of a layer already recorded."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._current_graph_task_id() != -1


def call_arguments(names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments of a call in the order of the signature, whether given by place or by name."""
    return [args[place] if place < len(args) else kwargs.get(name) for place, name in enumerate(names)]


def sampled_rows(n_rows: int, device: torch.device, *, limit: int = N_REPLAYED_ROWS) -> Tensor:
    """Evenly spread rows.

    Returns:
        (sample) · row number · 0 to n_rows - 1.
    """
    step = max(1, -(-n_rows // limit))
    return torch.arange(0, n_rows, step, device=device)


def relative_error(replayed: Tensor, recorded: Tensor) -> Tensor:
    """Largest distance of a replayed row from the recorded one, relative to the length of the recorded row.

    A row much shorter than the others is measured against a tenth of their mean: its own length is mostly rounding.

    Returns:
        () · relative distance · 0 or more, NaN where either holds a NaN.
    """
    replayed, recorded = replayed.float(), recorded.float()
    if recorded.numel() == 0:
        return recorded.new_zeros(())
    length = recorded.norm(dim=-1)
    distance = (replayed - recorded).norm(dim=-1)
    floor = 0.1 * length.mean() + torch.finfo(torch.float32).tiny
    return (distance / torch.maximum(length, floor)).max()
