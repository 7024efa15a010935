"""Llama 4: no ids reach the experts.

Every expert runs on every token; what it is given is the token times a score that is 0 unless the expert was chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from hooks.taps.reading import Emit, Reading
from hooks.taps.tap import Handle, Replay, ReportReplay, Tap, relative_error, sampled_rows

__all__ = ["Llama4Tap"]

# Every expert runs on every replayed row.
N_DENSE_ROWS = 32


@dataclass(eq=False)
class Llama4Tap(Tap):
    """A hook on the router, whose dense scores are the weights that are applied and so hold the choice."""

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> Self:
        """The tap of a Llama4TextMoe."""
        return cls(
            experts=module.experts,
            router=module.router,
            block=module,
            note="The weight multiplies the expert's input, not its output; all experts run on all tokens.",
        )

    def attach(self, emit: Emit) -> list[Handle]:
        """One hook, on the router."""

        def read(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            if self.must_look_away():
                return
            scores, logits = (each.detach() for each in output)
            weights, ids = scores.topk(module.top_k, dim=-1)
            self.deliver(emit, Reading(ids=ids, weights=weights, logits=logits))

        return [self.router.register_forward_hook(read)]

    def attach_witness(self, report: ReportReplay) -> list[Handle]:
        """Run the experts again on the router's input, with only the recorded ones given a weight."""
        kept: dict[str, Any] = {}

        def keep_hidden(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not self.must_look_away():
                kept["rows"] = sampled_rows(args[0].shape[0], args[0].device, limit=N_DENSE_ROWS)
                kept["hidden"] = args[0].detach()[kept["rows"]]

        def keep_reading(reading: Reading) -> None:
            kept["reading"] = reading

        def replay(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if self.must_look_away() or "reading" not in kept:
                return
            reading, rows, hidden = kept["reading"], kept["rows"], kept["hidden"]
            n_experts = reading.logits.shape[-1]
            with self.replay_quietly():
                returned = output.detach().unflatten(0, (n_experts, -1))[:, rows]
                weights = torch.zeros_like(reading.logits[rows]).scatter(-1, reading.ids[rows], reading.weights[rows])
                given = (hidden * weights.T.unsqueeze(-1)).flatten(0, 1)
                replayed = self.experts(given).unflatten(0, (n_experts, -1))
                report(Replay(relative_error(replayed.sum(0), returned.sum(0)), output.dtype))
            kept.clear()

        return [
            *self.watch(keep_reading),
            self.router.register_forward_pre_hook(keep_hidden),
            self.experts.register_forward_hook(replay),
        ]
