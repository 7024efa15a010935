"""PHA: the adapters beside the decoder's feed-forwards, read where they are applied.

B text, P position, z width of a conditioning vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hooks.layer_facts import clean_path
from hooks.taps.generated import Generated, applied, generated_of
from hooks.taps.tap import Handle, Replay, relative_error

__all__ = ["TaskAdapterTap", "task_adapter_taps"]

EmitLengths = Callable[[int, Tensor, Tensor], None]


@dataclass(eq=False)
class TaskAdapterTap:
    """The reader of one decoder layer's generated adapter.

    Attributes:
        owner: the model.
        block: the feed-forward with its adapter.
        number: of the decoder layer; among the layers that the hypernetwork serves it has the same.
        path: of the block in the model.
    """

    owner: Any
    block: Any
    number: int
    path: str

    def attach(self, emit: EmitLengths) -> list[Handle]:
        """Hooks that `emit(number, added, branch)`: squared lengths (B, P) of what adapter and feed-forward gave."""
        kept: list[Tensor] = []

        def measure(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            kept[:] = [_squared_length(output)]

        def hand_over(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if kept:
                emit(self.number, kept.pop(), _squared_length(output))

        return [
            self.block.adapter.register_forward_hook(measure),
            self.block.DenseReluDense.register_forward_hook(hand_over),
        ]

    def attach_witness(
        self, vectors: Callable[[], Tensor | None], report: Callable[[int, Replay], None]
    ) -> list[Handle]:
        """Hooks that replay a forward from the stored form of the adapters of `vectors()` (B, z), unless None."""
        kept: dict[str, Tensor] = {}

        def keep_added(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            kept.update(hidden=args[0].detach(), added=output.detach())

        def keep_branch(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            kept.update(branch=output.detach())

        def replay(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            made_from = vectors()
            if module.training or "added" not in kept or made_from is None:
                return
            report(self.number, self.explained(made_from, kept, came_in=args[0].detach(), output=output.detach()))
            kept.clear()

        return [
            self.block.adapter.register_forward_hook(keep_added),
            self.block.DenseReluDense.register_forward_hook(keep_branch),
            self.block.register_forward_hook(replay),
        ]

    @torch.no_grad()
    def explained(self, vectors: Tensor, kept: dict[str, Tensor], *, came_in: Tensor, output: Tensor) -> Replay:
        """How far adapter and layer are from what the stored adapters make of them."""
        distinct, which = vectors.unique(dim=0, return_inverse=True)
        added = applied(self.generated(distinct), which.cpu(), kept["hidden"].float().cpu()).to(output.device)
        whole = came_in.float() + kept["branch"].float() + added
        errors = (
            relative_error(added.flatten(0, 1), kept["added"].flatten(0, 1)),
            relative_error(whole.flatten(0, 1), output.flatten(0, 1)),
        )
        return Replay(torch.stack(errors).max(), output.dtype)

    @torch.no_grad()
    def generated(self, vectors: Tensor) -> Generated:
        """The adapters that vectors (S, z) make for this layer, as they are stored."""
        return generated_of(self.owner.hypernetwork(vectors)[self.number], {"conditioning_vector": vectors})


def task_adapter_taps(model: nn.Module) -> list[TaskAdapterTap]:
    """The generated adapters of a PHA model's decoder, layer by layer; none where the model generates nothing."""
    if not hasattr(model, "adapted") or not hasattr(model, "hypernetwork"):
        return []
    found: list[TaskAdapterTap] = []
    for path, module in model.named_modules():
        if hasattr(getattr(module, "adapter", None), "current"):
            found.append(TaskAdapterTap(model, module, len(found), clean_path(path)))
    return found


def _squared_length(values: Tensor) -> Tensor:
    return values.detach().float().square().sum(dim=-1)
