"""Task-level MoE: whole layers as experts, weighted by a route that each text's task has.

B text, m expert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from hooks.selection_rule import SelectionRule
from hooks.taps.reading import Emit, Reading
from hooks.taps.tap import Handle, Replay, ReportReplay, Tap, relative_error
from routing.facts import LayerFacts

__all__ = ["RouteRule", "RoutedLayerTap"]

LOWEST_LOGIT = -65504.0
"""What stands for the logit of a knocked-out expert: the lowest that float16 holds."""


@dataclass(frozen=True, eq=False)
class RouteRule(SelectionRule):
    """Softmax of the logits at a temperature.

    Attributes:
        temperature: what the logits are divided by.
    """

    temperature: float = 1.0

    def scores(self, logits: Tensor) -> Tensor:
        """(row, expert) · share of the route · 0 to 1."""
        return (logits.float() / self.temperature).softmax(dim=-1)


@dataclass(eq=False)
class RoutedLayerTap(Tap):
    """The route that was set for the batch, read when the layer runs, and the logits of the layer's router unit."""

    unit: str = "prompt"
    owner: nn.Module | None = field(default=None, repr=False)
    place: int = 0
    _logits: Tensor | None = field(default=None, init=False, repr=False)

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> RoutedLayerTap | None:
        """The tap of a routed layer, or None where no model with a router for it is around."""
        owner = next((each for each in ancestors if hasattr(each, "routed_layers") and hasattr(each, "router")), None)
        if owner is None:
            return None
        place = next(number for number, layer in enumerate(owner.routed_layers) if layer is module)
        tap = cls(experts=module, router=owner.router.units[place], block=module, owner=owner, place=place)
        # Where every expert counts the same, logits decide nothing.
        tap.score_function = "average" if tap.selection == "average" else None
        return tap

    @property
    def selection(self) -> str:
        """How routes are made from logits."""
        return str(self.owner.router.selection)  # type: ignore[union-attr]

    @property
    def temperature(self) -> float:
        """What logits are divided by."""
        held = self.owner.router.temperature  # type: ignore[union-attr]
        return 1.0 if held.is_meta else float(held)

    def completed(self, facts: LayerFacts) -> LayerFacts:
        """One stack for all layers, since a text has one row; the mode of selection and its temperature."""
        m = len(self.block.blocks)
        return replace(
            facts,
            stack="model",
            n_experts=m,
            n_shared_experts=0,
            top_k=1 if self.selection == "gumbel_hard" else m,
            score_function="average" if self.selection == "average" else "softmax",
            weights_normalized=True,
            scale=1.0,
            selection=self.selection,
            temperature=self.temperature,
        )

    def known_rule(self) -> SelectionRule | None:
        """Softmax at the model's temperature, but for the mode in which every expert counts the same."""
        return None if self.selection == "average" else RouteRule("softmax", temperature=self.temperature)

    def attach(self, emit: Emit) -> list[Handle]:
        """Two hooks: the router unit's logits are kept until the layer runs with its route."""

        def keep_logits(module: nn.Module, args: tuple[Any, ...], logits: Tensor) -> None:
            if not self.must_look_away():
                self._logits = logits.detach()

        def read(module: nn.Module, args: tuple[Any, ...]) -> None:
            if self.must_look_away() or module.route is None:
                return
            self.deliver(emit, self.decode(module.route.detach(), self._logits))

        return [self.router.register_forward_hook(keep_logits), self.block.register_forward_pre_hook(read)]

    def decode(self, route: Tensor, logits: Tensor | None) -> Reading:
        """A reading from the weights of every expert (B, m)."""
        if self.selection == "gumbel_hard":
            weights, ids = route.max(dim=-1, keepdim=True)
        else:
            ids = torch.arange(route.shape[1], device=route.device).expand_as(route).contiguous()
            weights = route
        if logits is not None and logits.shape != route.shape:
            logits = None  # the router ran for other texts: routes were given, not made
        knocked_out = self.owner.knocked_out  # type: ignore[union-attr]
        if logits is not None and knocked_out is not None:
            logits = logits.masked_fill(knocked_out[self.place], LOWEST_LOGIT)
        return Reading(ids=ids, weights=weights, logits=logits)

    def attach_witness(self, report: ReportReplay) -> list[Handle]:
        """Hooks on the layer: its blocks run once more, and the recorded weights must make its output of theirs."""
        kept: dict[str, Any] = {}

        def keep_reading(reading: Reading) -> None:
            kept["reading"] = reading

        def keep_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self.must_look_away():
                kept["call"] = (args[0].detach().clone(), args[1:], kwargs)

        def replay(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if self.must_look_away() or self.is_random() or len(kept) < 2:
                return
            hidden, others, kwargs = kept["call"]
            with self.replay_quietly():
                run = lambda block: block(hidden, *others, **kwargs)  # noqa: E731
                replayed = self.replayed(kept["reading"], run)
            kept.clear()
            report(Replay(relative_error(replayed.flatten(0, 1), output.detach().flatten(0, 1)), output.dtype))

        return [
            *self.watch(keep_reading),
            self.block.register_forward_pre_hook(keep_input, with_kwargs=True),
            self.block.register_forward_hook(replay),
        ]

    def replayed(self, reading: Reading, run: Callable[[nn.Module], Tensor]) -> Tensor:
        """Sum over all blocks of the recorded weight × output of that block; a block that was not recorded weighs 0.

        Returns:
            (text, position, hidden) · output of the layer · any.
        """
        weights = torch.zeros(len(reading.ids), len(self.block.blocks), device=reading.ids.device)
        weights.scatter_(1, reading.ids, reading.weights.float())
        outputs = [run(block).float() for block in self.block.blocks]
        return sum(weights[:, j, None, None] * output for j, output in enumerate(outputs))  # type: ignore[return-value]

    def is_random(self) -> bool:
        """In training the layers drop out, whatever kind of dropout they use."""
        return self.block.training
