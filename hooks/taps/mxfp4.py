"""GPT-OSS with MXFP4 weights: one fused kernel routes and computes, and neither router nor experts is called.

The block returns its logits beside its output. What the kernel makes of them (top-k, then a softmax over the chosen)
is made again here, and a replay through the same kernel must give the block's output.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from hooks.taps.experts import ExpertsTap
from hooks.taps.reading import Emit, Reading
from hooks.taps.tap import Handle, ReportReplay, sampled_rows

__all__ = ["Mxfp4Tap"]

# Far enough below 0 to weigh nothing in any precision, and finite, since a kernel may not expect infinities.
NEVER = -1e4


@dataclass(eq=False)
class Mxfp4Tap(ExpertsTap):
    """One hook, on the block."""

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> Self:
        """The tap of an Mxfp4GptOssExperts."""
        return cls(experts=module, router=ancestors[0].router, block=ancestors[0])

    def attach(self, emit: Emit) -> list[Handle]:
        """One hook, on the block."""

        def read(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            if self.must_look_away():
                return
            logits = output[1].detach()
            chosen, ids = logits.topk(self.router.top_k, dim=-1)
            self.deliver(emit, Reading(ids, chosen.softmax(dim=-1), logits))

        return [self.block.register_forward_hook(read)]

    def attach_witness(self, report: ReportReplay) -> list[Handle]:
        """Hooks on the block: what went in, what came out, and whether the reading explains it."""
        kept: dict[str, Any] = {}

        def keep_hidden(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not self.must_look_away():
                hidden = args[0].detach().flatten(0, -2)
                kept["rows"] = sampled_rows(hidden.shape[0], hidden.device)
                kept["hidden"] = hidden[kept["rows"]]

        def keep_reading(reading: Reading) -> None:
            kept["reading"] = reading

        def replay(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            if self.must_look_away() or "reading" not in kept:
                return
            rows, reading = kept["rows"], kept["reading"]
            returned = output[0].detach().flatten(0, -2)[rows]
            with self.replay_quietly():
                report(self.compared(kept["hidden"], reading.ids[rows], reading.weights[rows], returned))
            kept.clear()

        return [
            *self.watch(keep_reading),
            self.block.register_forward_pre_hook(keep_hidden),
            self.block.register_forward_hook(replay),
        ]

    def one_expert(self, hidden: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Output of one expert a row, by the kernel's own routing of logits that leave no other choice."""
        logits = torch.full((ids.shape[0], self.router.num_experts), NEVER, dtype=dtype, device=ids.device)
        logits.scatter_(-1, ids.unsqueeze(-1), 0)
        # The module that holds the kernels is the one that defines these experts.
        kernels = sys.modules[type(self.experts).__module__].triton_kernels_hub
        routing = kernels.routing.routing(logits, self.router.top_k)
        run = getattr(self.experts, "forward_routed", self.experts)
        return run(hidden, *routing)
