"""JetMoE: the router returns its decisions grouped by expert, in the MLP and in the attention alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from hooks.taps.reading import Emit, Reading
from hooks.taps.tap import Handle, Replay, ReportReplay, Tap, relative_error

__all__ = ["JetMoeTap"]


@dataclass(eq=False)
class JetMoeTap(Tap):
    """A hook on the router that puts its grouped decisions back in the order of tokens and ranks."""

    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> Self:
        """The tap of a JetMoeMoE, or of a JetMoeMoA, whose block is the attention that calls its two halves."""
        in_attention = type(module).__name__ == "JetMoeMoA"
        block = ancestors[0] if in_attention else module
        return cls(experts=module, router=module.router, block=block)

    def attach(self, emit: Emit) -> list[Handle]:
        """One hook, on the router."""

        def read(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            if not self.must_look_away():
                self.deliver(emit, ungrouped(output, module.top_k))

        return [self.router.register_forward_hook(read)]

    def attach_witness(self, report: ReportReplay) -> list[Handle]:
        """Check both halves: each recorded expert's own input matrix, and the weighted sum of what came out."""
        kept = self._kept

        def keep_reading(reading: Reading) -> None:
            kept["reading"] = reading

        def keep_router(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            if not self.must_look_away():
                kept.update(hidden=args[0].detach().clone(), slots=output[0])

        def keep_first(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            kept["first"] = output.detach()

        def keep_second(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            kept["second"] = output.detach()

        def replay(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            if self.must_look_away() or "second" not in kept:
                return
            whole = (output[0] if isinstance(output, tuple) else output).detach()
            with self.replay_quietly():
                report(Replay(self._error(whole), whole.dtype))
            kept.clear()

        return [
            *self.watch(keep_reading),
            self.router.register_forward_hook(keep_router),
            self.experts.input_linear.register_forward_hook(keep_first),
            self.experts.output_linear.register_forward_hook(keep_second),
            self.block.register_forward_hook(replay),
        ]

    def _error(self, whole: Tensor) -> Tensor:
        kept, reading = self._kept, self._kept["reading"]
        n_rows, top_k = reading.ids.shape
        # Both halves return their rows expert by expert; `place` says where a token's rank lies among them.
        place = torch.empty_like(kept["slots"])
        place[kept["slots"]] = torch.arange(n_rows * top_k, device=place.device)
        first, second = (kept[half][place].unflatten(0, (n_rows, top_k)) for half in ("first", "second"))
        by_hand = torch.empty_like(first)
        for expert in reading.ids.unique():
            row, rank = (reading.ids == expert).nonzero(as_tuple=True)
            by_hand[row, rank] = functional.linear(kept["hidden"][row], self.experts.input_linear.weight[expert])
        summed = (second.float() * reading.weights.unsqueeze(-1).float()).sum(1) + self.experts.bias.float()
        return torch.maximum(
            relative_error(by_hand.flatten(0, 1), first.flatten(0, 1)),
            relative_error(summed, whole.reshape(n_rows, -1)),
        )


def ungrouped(output: tuple[Any, ...], top_k: int) -> Reading:
    """A reading in the order of tokens from the router's grouped outputs.

    The router gives, expert by expert, the slot (token × top-k + rank) of each decision, and its weight.
    """
    slots, _, weights, n_per_expert, logits = output
    n_experts = logits.shape[-1]
    numbers = torch.arange(n_experts, device=slots.device)
    # The counts are already a Python list in the model, so nothing waits here.
    experts = numbers.repeat_interleave(
        torch.tensor(n_per_expert).to(slots.device, non_blocking=True), output_size=slots.shape[0]
    )
    ids = torch.empty_like(slots).scatter_(0, slots, experts)
    in_order = torch.empty_like(weights.detach()).scatter_(0, slots, weights.detach())
    return Reading(ids=ids.view(-1, top_k), weights=in_order.view(-1, top_k), logits=logits.detach())
