"""Single decisions of routers: how a router ranks its experts, and what must be kept out so that another comes in.

T position, E expert, k selected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hooks.forced_choice import Barred
from hooks.sites import Site, attach_taps
from hooks.taps import Reading
from routing import RecordingError, SelectionError

__all__ = ["Rankings", "comes_in", "kept_out", "rankings", "require_one_stack", "why_not_forced"]


class Rankings(dict[int, tuple[Tensor, Tensor]]):
    """Of each router, by number, the selection scores (T, E) and the selected experts (T, k).

    Asked for a router whose rule is not known, it says so.
    """

    def __init__(self, sites: Sequence[Site], found: dict[int, tuple[Tensor, Tensor]]) -> None:
        super().__init__(found)
        self._sites = sites

    def __missing__(self, number: int) -> tuple[Tensor, Tensor]:
        facts = self._sites[number].facts
        msg = (
            f"No rule is known by which the router of {facts.label} ({facts.router_class}) chooses, so it has no "
            "runner-up. Leave this layer out."
        )
        raise RecordingError(msg)


def rankings(model: nn.Module, sites: Sequence[Site], forward: Callable[[], object]) -> Rankings:
    """How the routers rank their experts in one forward.

    Args:
        model: the model.
        sites: its routers, proven.
        forward: runs the model once.
    """
    found: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(number: int, reading: Reading) -> None:
        scores = None if reading.logits is None else sites[number].selection_scores(reading.logits)
        if scores is not None:
            found[number] = scores.cpu(), reading.ids.cpu()

    handles = attach_taps(model, list(sites), keep)
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return Rankings(sites, found)


def why_not_forced(model: nn.Module, sites: Sequence[Site]) -> str:
    """Why no single decision of a model can be changed, in a sentence; empty where it can."""
    name = type(model).__name__
    if any(site.tap.unit != "token" for site in sites):
        return f"Single decisions are changed token by token; the router of {name} decides once for a whole text."
    if getattr(model.config, "is_encoder_decoder", False):
        return f"Single decisions are changed in models that read and write in one stack; {name} has two."
    return ""


def require_one_stack(model: nn.Module, sites: Sequence[Site]) -> None:
    """Raise a RecordingError if no single decision of the model can be changed."""
    if why := why_not_forced(model, sites):
        msg = f"{why} Knock experts out instead."
        raise RecordingError(msg)


def kept_out(
    layer: str, position: int, scores: Tensor, selected: Tensor, *, row: int, expert: int | None
) -> list[Barred]:
    """The last selected expert, and whatever ranks before the one that is to come in.

    Args:
        layer: label of the router.
        position: of the token, for the message.
        scores: (E) selection scores of the token.
        selected: (k) its experts.
        row: row of the flattened (text, position) input that must not choose them.
        expert: the expert that is to come in; the runner-up, where it is None.

    Raises:
        SelectionError: the expert is selected already, or cannot be.
    """
    inside = set(selected.tolist())
    last = min(inside, key=lambda each: (float(scores[each]), -each))
    order = [each for each in scores.argsort(descending=True).tolist() if each not in inside]
    order = [each for each in order if torch.isfinite(scores[each])]
    if expert is not None and expert not in order:
        state = "is selected there already" if expert in inside else "cannot be selected there"
        msg = f"Expert {expert} of {layer} {state} (position {position}). Name one of {sorted(order)}."
        raise SelectionError(msg)
    if not order:
        msg = f"Every expert of {layer} is selected, so there is no runner-up. Leave this layer out."
        raise SelectionError(msg)
    between = order[: order.index(expert)] if expert is not None else []
    return [Barred(layer=layer, row=row, expert=each) for each in (last, *between)]


def comes_in(scores: Tensor, selected: Tensor, barred: Sequence[Barred]) -> int:
    """The expert that is chosen in place of the last selected one."""
    out = {*selected.tolist(), *(each.expert for each in barred)}
    return next(each for each in scores.argsort(descending=True).tolist() if each not in out)
