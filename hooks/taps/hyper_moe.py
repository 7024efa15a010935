"""HyperMoE: a router whose choice also decides which adapter is generated and added to the experts' sum.

N row, S set, k selected expert, d hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from hooks.taps.capacity import SwitchTap
from hooks.taps.experts import ExpertsTap
from hooks.taps.generated import Generated, applied, generated_of
from hooks.taps.reading import Emit, Reading
from hooks.taps.tap import Handle, Replay, ReportReplay, relative_error, sampled_rows
from routing.errors import RecordingError

__all__ = ["HyperMoeTap", "HyperSwitchTap", "generates"]


def generates(block: nn.Module) -> bool:
    """Whether a block adds a generated adapter to its experts' sum."""
    part = getattr(block, "hyper_expert", None)
    return part is not None and hasattr(part, "generate") and hasattr(part, "selection")


@dataclass(eq=False)
class HyperMoeTap(ExpertsTap):
    """The experts' tap, and hooks on the HyperExpert: what it added, and against what.

    The selected set names the adapter, so nothing generated is ever copied: the ratio of two lengths is all that a row
    has more than in any model.
    """

    _held: tuple[Emit, Reading] | None = field(default=None, init=False, repr=False)
    _length: Tensor | None = field(default=None, init=False, repr=False)

    @property
    def hyper_expert(self) -> Any:
        """The block's HyperExpert."""
        return self.block.hyper_expert

    def deliver(self, emit: Emit, reading: Reading) -> None:
        """Hold the reading until the HyperExpert has run."""
        self._held = emit, reading

    def attach(self, emit: Emit) -> list[Handle]:
        """The experts' hooks, one more on them for the length of their output, one on the HyperExpert.

        Raises:
            RecordingError: the selection embedding is overridden, so that sets do not make the adapters they name.
        """
        if self.hyper_expert.override is not None:
            msg = (
                f"The model runs with its selection embedding overridden ({self.hyper_expert.override}), so a selected "
                "set does not make the adapter that it names. Record outside overridden_selection()."
            )
            raise RecordingError(msg)

        def measure(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if not self.must_look_away():
                self._length = self.branch_length(args, output.detach())

        def complete(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if self.must_look_away() or self._held is None:
                return
            (emit, reading), self._held = self._held, None
            # No ratio where the expert branch gave nothing.
            ratio = _length(output.detach()) / self._length
            self._length = None
            ratio = ratio.masked_fill(ratio.isinf(), torch.nan)
            super(HyperMoeTap, self).deliver(emit, replace(reading, ratio=ratio))

        return [
            *super().attach(emit),
            self.experts.register_forward_hook(measure),
            self.hyper_expert.register_forward_hook(complete),
        ]

    def branch_length(self, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """(N) length of what the expert branch gives, from the experts' arguments and output."""
        return _length(output)

    def branch_beside(self, args: tuple[Any, ...], rows: Tensor) -> Tensor | None:
        """(row, d) what the expert branch gives beside the experts' output, or None."""
        return None

    @torch.no_grad()
    def generated(self, sets: Tensor) -> Generated:
        """The adapters of selected sets (S, k), each ascending, as they are stored."""
        part = self.hyper_expert
        raw = part.selection.raw(sets)
        conditioning = {"selection_embedding": raw, "hypernetwork_input": part.selection(raw)}
        return generated_of(part.generate(sets), conditioning)

    def attach_witness(self, report: ReportReplay) -> list[Handle]:
        """Hooks on experts, HyperExpert and block: each must be what the recorded ids, weights and set make."""
        kept: dict[str, Any] = {}

        def keep_reading(reading: Reading) -> None:
            kept["reading"] = reading

        def keep_experts(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if self.must_look_away():
                return
            rows = sampled_rows(output.shape[0], output.device)
            kept.update(rows=rows, experts=output.detach()[rows], beside=self.branch_beside(args, rows))

        def keep_added(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if not self.must_look_away() and "rows" in kept:
                rows = kept["rows"]
                kept.update(hidden=args[0].detach()[rows], added=output.detach()[rows])

        def replay(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if self.must_look_away() or self.is_random() or "added" not in kept or "reading" not in kept:
                return
            with self.replay_quietly():
                report(self.explained(kept, output.detach().flatten(0, -2)[kept["rows"]]))
            kept.clear()

        return [
            *self.watch(keep_reading),
            self.experts.register_forward_hook(keep_experts),
            self.hyper_expert.register_forward_hook(keep_added),
            self.block.register_forward_hook(replay),
        ]

    def explained(self, kept: dict[str, Any], output: Tensor) -> Replay:
        """How far experts, adapter and their sum are from what the recording makes of them."""
        hidden, rows, reading = kept["hidden"], kept["rows"], kept["reading"]
        ids, weights = reading.ids[rows], reading.weights[rows]
        branch = self.replayed(hidden, ids, weights)
        sets, which = ids.sort(dim=-1).values.unique(dim=0, return_inverse=True)
        added = applied(self.generated(sets), which.cpu(), hidden.float().cpu()).to(hidden.device)
        whole = branch + added if kept["beside"] is None else branch + added + kept["beside"].float()
        errors = (
            relative_error(branch, kept["experts"]),
            relative_error(added, kept["added"]),
            relative_error(whole, output),
        )
        return Replay(torch.stack(errors).max(), output.dtype)


@dataclass(eq=False)
class HyperSwitchTap(HyperMoeTap, SwitchTap):
    """On Switch the set is the router's wish: a token that its expert had no room for still has its adapter."""

    def branch_length(self, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """The length of the expert's output, or of P·x where such a model gives that to dropped tokens."""
        length = _length(output)
        if self.block.dropped_tokens != "scaled_input":
            return length
        dropped = ~args[1].detach().flatten(1).any(dim=-1)
        return torch.where(dropped, args[2].detach().reshape(-1).float() * _length(args[0].detach()), length)

    def branch_beside(self, args: tuple[Any, ...], rows: Tensor) -> Tensor | None:
        """P·x of dropped tokens, where such a model gives them that."""
        if self.block.dropped_tokens != "scaled_input":
            return None
        hidden, mask, probability = (each.detach() for each in args[:3])
        dropped = ~mask.flatten(1).any(dim=-1, keepdim=True)
        return (dropped * probability.reshape(-1, 1) * hidden)[rows]


def _length(values: Tensor) -> Tensor:
    return torch.linalg.vector_norm(values, dim=-1, dtype=torch.float32)
