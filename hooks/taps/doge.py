"""Doge: experts are rows of two embeddings, found by product keys; there is no experts module."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor, nn

from hooks.taps.reading import Emit, Reading
from hooks.taps.tap import Handle, Replay, ReportReplay, Tap, relative_error

__all__ = ["DogeTap"]

NOTE = (
    "The library reshapes the router's scores across tokens, so a token's experts may be decided by another token; "
    "recorded are the experts that the token was given."
)


@dataclass(eq=False)
class DogeTap(Tap):
    """A pre-hook on the embedding of experts gives the ids; logits are the sums of both halves' keys.

    The weights reach no module. They are the softmax of the chosen sums, which the replay confirms.
    """

    _keys: Tensor | None = field(default=None, init=False, repr=False)

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> Self:
        """The tap of a DogeCDMoE."""
        return cls(experts=module, router=module.router_gate, block=module, note=NOTE)

    def attach(self, emit: Emit) -> list[Handle]:
        """Hooks on the keys and on the first embedding."""

        def keep_keys(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if not self.must_look_away():
                self._keys = output.detach()

        def read(module: nn.Module, args: tuple[Any, ...]) -> None:
            if self.must_look_away() or self._keys is None:
                return
            ids, keys = args[0].detach(), self._keys
            self._keys = None
            # As the library splits them: the halves of the batch, not the halves of a row.
            along, across = keys.view(2, ids.shape[0], -1)
            logits = (along.unsqueeze(-1) + across.unsqueeze(-2)).flatten(-2)
            weights = logits.gather(-1, ids).softmax(dim=-1)
            if self.experts.norm_topk_prob:
                weights = weights / weights.sum(dim=-1, keepdim=True)
            self.deliver(emit, Reading(ids=ids, weights=weights, logits=logits))

        return [
            self.router.register_forward_hook(keep_keys),
            self.experts.down_embed.register_forward_pre_hook(read),
        ]

    def attach_witness(self, report: ReportReplay) -> list[Handle]:
        """Compute the recorded experts by hand and compare with what the block adds to its dense part."""
        kept: list[Reading] = []

        def replay(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            if self.must_look_away() or not kept:
                return
            reading, hidden = kept.pop(), args[0].detach()
            with self.replay_quietly():
                dense = module.down_proj(module.act_fn(module.gate_proj(hidden)) * module.up_proj(hidden))
                flat = hidden.flatten(0, -2)
                activation = (module.down_embed.weight[reading.ids] * flat.unsqueeze(1)).sum(-1)
                factor = module.act_fn(activation) * reading.weights
                added = (factor.unsqueeze(-1) * module.up_embed.weight[reading.ids]).sum(1)
                replayed = dense.flatten(0, -2) + added
                report(Replay(relative_error(replayed, output[0].detach().flatten(0, -2)), hidden.dtype))

        return [*self.watch(kept.append), self.experts.register_forward_hook(replay)]
