"""The rule: ids and weights as given to the experts module, logits from the router beside it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hooks.taps.reading import Emit, Reading
from hooks.taps.tap import Replay, ReportReplay, Tap, call_arguments, relative_error, sampled_rows

__all__ = ["ExpertsTap", "is_experts_module", "router_beside"]

# How transformers names the second argument of a module that is handed the routing.
ROUTING_ARGUMENTS = frozenset({"top_k_index", "router_indices", "selected_experts", "router_mask"})
ROUTER_NAMES = ("router", "gate")
N_LEVELS_UP = 6


def is_experts_module(module: nn.Module) -> bool:
    """Whether a module's forward takes (hidden states, experts, weights)."""
    names = _argument_names(module)
    return len(names) >= 3 and names[1] in ROUTING_ARGUMENTS


def router_beside(ancestors: list[nn.Module]) -> tuple[nn.Module, nn.Module] | None:
    """The router nearest to an experts module, and the block that holds it.

    Adapters wrap the experts in further modules, so the nearest ancestor need not be the block.
    """
    for block in ancestors[:N_LEVELS_UP]:
        children = dict(block.named_children())
        for name in ROUTER_NAMES:
            if name in children:
                return children[name], block
    return None


@dataclass(eq=False)
class ExpertsTap(Tap):
    """A pre-hook on the experts, where ids and weights are what is really applied, and a hook on the router.

    Which of the router's outputs is the logits is learned on the first forward: those that the experts are handed
    are the very same objects, so the logits are the remaining one with a column for every expert.
    """

    _outputs: Any = field(default=None, init=False, repr=False)
    _place: int | None = field(default=None, init=False, repr=False)
    _sample: tuple[Tensor, Tensor, Tensor, Tensor] | None = field(default=None, init=False, repr=False)

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> Tap | None:
        found = router_beside(ancestors)
        if found is None:
            return None
        router, block = found
        return cls(experts=module, router=router, block=block)

    def attach(self, emit: Emit) -> list[RemovableHandle]:
        names = _argument_names(self.experts)[:3]

        def keep_outputs(module: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:  # noqa: ANN401
            if not self.must_look_away():
                self._outputs = self.detached(outputs)

        def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.must_look_away():
                return
            _, ids, weights = call_arguments(names, args, kwargs)
            logits = self.logits_among(self._outputs, ids, weights)
            self._outputs = None
            emit(self.decode(ids, weights, logits))

        return [
            self.logits_source().register_forward_hook(keep_outputs),
            self.experts.register_forward_pre_hook(read, with_kwargs=True),
        ]

    def logits_source(self) -> nn.Module:
        """The module whose output holds the logits."""
        return self.router

    def detached(self, outputs: Any) -> Any:  # noqa: ANN401
        """What to keep of the router's outputs until the experts run."""
        return outputs

    def decode(self, ids: Tensor, weights: Tensor, logits: Tensor | None) -> Reading:
        """A reading from the experts' arguments and the router's logits."""
        return Reading(
            ids=ids.detach(),
            weights=weights.detach(),
            logits=None if logits is None else logits.detach().reshape(ids.shape[0], -1),
        )

    def logits_among(self, outputs: Any, ids: Tensor, weights: Tensor) -> Tensor | None:  # noqa: ANN401
        """The router's output that is neither ids nor weights and has a column for every expert."""
        if isinstance(outputs, Tensor):
            return outputs
        if not isinstance(outputs, (tuple, list)):
            return None
        if self._place is None:
            self._place = self._learn_place(outputs, ids, weights)
        return outputs[self._place] if self._place >= 0 else None

    def _learn_place(self, outputs: Any, ids: Tensor, weights: Tensor) -> int:  # noqa: ANN401
        n_experts = getattr(self.experts, "num_experts", ids.shape[-1])
        for place, each in enumerate(outputs):
            if not isinstance(each, Tensor) or not each.is_floating_point() or each is weights or each is ids:
                continue
            if each.shape[-1] >= n_experts and each.numel() == ids.shape[0] * each.shape[-1]:
                return place
        return -1

    def attach_witness(self, report: ReportReplay) -> list[RemovableHandle]:
        names = _argument_names(self.experts)[:3]

        def keep_sample(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.must_look_away():
                return
            hidden, ids, weights = call_arguments(names, args, kwargs)
            rows = sampled_rows(hidden.shape[0], hidden.device)
            reading = self.decode(ids, weights, None)
            # Copies, since some blocks edit these tensors in place afterwards.
            self._sample = (rows, hidden[rows].detach(), reading.ids[rows], reading.weights[rows])

        def replay(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            if self.must_look_away() or self._sample is None:
                return
            (rows, hidden, ids, weights), self._sample = self._sample, None
            with self.replay_quietly():
                replayed = self.replayed(hidden, ids, weights)
                report(Replay(relative_error(replayed, output.detach()[rows]), output.dtype))

        return [
            self.experts.register_forward_pre_hook(keep_sample, with_kwargs=True),
            self.experts.register_forward_hook(replay),
        ]

    def replayed(self, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """Sum over ranks, the heaviest first, of weight × output of that one expert.

        One expert a call with weight one: the sum comes out only if an id names an expert and a weight multiplies it.

        Returns:
            (row, hidden) · output of the experts · any.
        """
        weights, order = weights.sort(dim=-1, descending=True, stable=True)
        ids = ids.gather(-1, order)
        ones = torch.ones_like(weights[:, :1])
        total: Tensor | None = None
        for rank in range(ids.shape[-1]):
            expert = ids[:, rank : rank + 1].contiguous()
            contribution = self.experts(hidden, expert, ones).float() * weights[:, rank : rank + 1].float()
            total = contribution if total is None else total + contribution
        assert total is not None
        return total


def _argument_names(module: nn.Module) -> list[str]:
    # The class's signature: accelerate and kernels replace `forward` on the instance.
    try:
        names = list(inspect.signature(type(module).forward).parameters)
    except (TypeError, ValueError):
        return []
    return names[1:]
