"""Single decisions of a router changed: experts kept from being chosen for one token, so that the next best come in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hooks.router_products import lowest, router_products_changed, site_number
from hooks.sites import Site, attach_taps
from hooks.taps import Reading
from routing import RecordingError, expert_name

__all__ = ["Barred", "experts_barred"]


@dataclass(frozen=True, kw_only=True)
class Barred:
    """One expert that one row must not choose.

    Attributes:
        layer: label of the router.
        row: row of the flattened (text, position) input.
        expert: the expert.
    """

    layer: str
    row: int
    expert: int


@contextmanager
def experts_barred(model: nn.Module, sites: Sequence[Site], barred: Sequence[Barred]) -> Iterator[None]:
    """While open, rows of the one forward that is run do not choose some experts; all other rows choose as they do.

    Args:
        model: the model.
        sites: its routers, proven.
        barred: what must not be chosen.

    Raises:
        RecordingError: a layer is not there, or a router chose what was barred (a selection bias brought it back);
            the latter at the end.
    """
    by_site: dict[int, list[Barred]] = {}
    for each in barred:
        by_site.setdefault(site_number(sites, each.layer), []).append(each)
    disobeyed: dict[int, Tensor] = {}

    def check(number: int, reading: Reading) -> None:
        if number in by_site:
            rows = torch.tensor([each.row for each in by_site[number]], device=reading.ids.device)
            experts = torch.tensor([each.expert for each in by_site[number]], device=reading.ids.device)
            disobeyed[number] = (reading.ids[rows] == experts[:, None]).any()

    with ExitStack() as opened:
        for number, mine in by_site.items():
            opened.enter_context(router_products_changed(sites[number], _barring(mine)))
        for handle in attach_taps(model, list(sites), check):
            opened.callback(handle.remove)
        yield
    for number, seen in disobeyed.items():
        if bool(seen):
            facts = sites[number].facts
            names = ", ".join(dict.fromkeys(expert_name(facts.label, each.expert) for each in by_site[number]))
            msg = (
                f"The router of {facts.label} ({facts.router_class} at {facts.module}) chose {names} for a token that "
                "was kept from it: a selection bias, or a choice that is not by scores, brought it back. "
                "Leave this layer out."
            )
            raise RecordingError(msg)


def _barring(barred: Sequence[Barred]) -> Callable[[Tensor], Tensor]:
    """Return what puts single entries of a product, one a barred choice, at the bottom."""

    def change(product: Tensor) -> Tensor:
        rows = torch.tensor([each.row for each in barred], device=product.device)
        columns = torch.tensor([each.expert for each in barred], device=product.device)
        flat = product.reshape(-1, product.shape[-1]).clone()
        flat[rows, columns] = lowest(product)
        return flat.view(product.shape)

    return change
