"""The rule: ids and weights as given to the experts module, logits from the router beside it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from hooks.taps.reading import Emit, Reading
from hooks.taps.tap import Handle, Replay, ReportReplay, Tap, call_arguments, relative_error, sampled_rows

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

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> Self | None:
        """A tap for an experts module with a router beside it."""
        found = router_beside(ancestors)
        if found is None:
            return None
        router, block = found
        return cls(experts=module, router=router, block=block)

    def attach(self, emit: Emit) -> list[Handle]:
        """Two hooks: the router's outputs are kept until the experts are called with the choice."""
        names = _argument_names(self.experts)[:3]

        def keep_outputs(module: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:  # noqa: ANN401
            if not self.must_look_away():
                self._outputs = self.kept(outputs)

        def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.must_look_away():
                return
            _, ids, weights = call_arguments(names, args, kwargs)
            logits = self.logits_among(self._outputs, ids, weights)
            self._outputs = None
            self.deliver(emit, self.decode(ids, weights, logits))

        return [
            self.logits_source().register_forward_hook(keep_outputs),
            self.experts.register_forward_pre_hook(read, with_kwargs=True),
        ]

    def logits_source(self) -> nn.Module:
        """The module whose output holds the logits."""
        return self.router

    def kept(self, outputs: Any) -> Any:  # noqa: ANN401
        """What to hold of the router's outputs until the experts run."""
        return outputs

    def decode(self, ids: Tensor, weights: Tensor, logits: Tensor | None) -> Reading:
        """A reading from the experts' arguments and the router's logits."""
        # Once a layer and step, where decoding waits for Python: nothing is called that would change nothing.
        if logits is not None:
            logits = logits.detach() if logits.requires_grad else logits
            logits = logits if logits.dim() == 2 else logits.reshape(ids.shape[0], -1)
        return Reading(ids=ids, weights=weights.detach() if weights.requires_grad else weights, logits=logits)

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

    def attach_witness(self, report: ReportReplay) -> list[Handle]:
        """Hooks on the experts: what went in, what came out, and whether the reading explains it."""
        names = _argument_names(self.experts)[:3]
        kept: dict[str, Any] = {}

        def keep_reading(reading: Reading) -> None:
            kept["reading"] = reading

        def keep_hidden(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.must_look_away():
                return
            hidden = call_arguments(names, args, kwargs)[0].detach().flatten(0, -2)
            rows = sampled_rows(hidden.shape[0], hidden.device)
            # Indexing copies; some blocks edit their hidden states in place.
            kept.update(rows=rows, hidden=hidden[rows])

        def replay(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            if self.must_look_away() or self.is_random() or "reading" not in kept:
                return
            rows, reading = kept["rows"], kept["reading"]
            returned = output.detach().flatten(0, -2)[rows]
            with self.replay_quietly():
                report(self.compared(kept["hidden"], reading.ids[rows], reading.weights[rows], returned))
            kept.clear()

        return [
            *self.watch(keep_reading),
            self.experts.register_forward_pre_hook(keep_hidden, with_kwargs=True),
            self.experts.register_forward_hook(replay),
        ]

    def compared(self, hidden: Tensor, ids: Tensor, weights: Tensor, output: Tensor) -> Replay:
        """The replay of a few rows beside what the experts returned for them."""
        return Replay(relative_error(self.replayed(hidden, ids, weights), output), output.dtype)

    def replayed(self, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """Sum over ranks, the heaviest first, of weight × output of that one expert.

        One expert a call, with weight one: the sum comes out only if every id names the expert that ran and every
        weight is the factor on its output.

        Returns:
            (row, hidden) · output of the experts · any.
        """
        weights, order = weights.sort(dim=-1, descending=True, stable=True)
        ids = ids.gather(-1, order)
        total = torch.zeros((), device=weights.device)
        for rank in range(ids.shape[-1]):
            contribution = self.one_expert(hidden, ids[:, rank].contiguous(), weights.dtype)
            total = total + contribution.float() * weights[:, rank : rank + 1].float()
        return total

    def one_expert(self, hidden: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Output of one expert a row, unweighted.

        Returns:
            (row, hidden) · output of that expert · any.
        """
        ones = torch.ones(ids.shape[0], 1, dtype=dtype, device=ids.device)
        return self.experts(hidden, ids.unsqueeze(-1), ones).flatten(0, -2)


def _argument_names(module: nn.Module) -> list[str]:
    # The class's signature: accelerate and kernels replace `forward` on the instance.
    try:
        names = list(inspect.signature(type(module).forward).parameters)
    except (TypeError, ValueError):
        return []
    return names[1:]
