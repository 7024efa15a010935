"""Single decisions of a router changed: experts kept from being chosen for one token, so that the next best come in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hooks.knock_out import LOWEST, LOWEST_IN_HALF, PRODUCTS
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
    labels = [site.facts.label for site in sites]
    by_site: dict[int, list[Barred]] = {}
    for each in barred:
        if each.layer not in labels:
            msg = f"There is no router {each.layer!r}; the model has {', '.join(labels)}. Name one of these."
            raise RecordingError(msg)
        by_site.setdefault(labels.index(each.layer), []).append(each)
    disobeyed: dict[int, Tensor] = {}

    def check(number: int, reading: Reading) -> None:
        if number in by_site:
            rows = torch.tensor([each.row for each in by_site[number]], device=reading.ids.device)
            experts = torch.tensor([each.expert for each in by_site[number]], device=reading.ids.device)
            disobeyed[number] = (reading.ids[rows] == experts[:, None]).any()

    with ExitStack() as opened:
        for number, mine in by_site.items():
            opened.enter_context(_barring(sites[number], mine))
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


@contextmanager
def _barring(site: Site, barred: Sequence[Barred]) -> Iterator[None]:
    router, mine = site.tap.router, site.tap.router.__dict__.get("forward")
    forward: Callable[..., Any] = router.forward

    def masked(*args: Any, **kwargs: Any) -> Any:
        with _Barring(site.facts.n_experts, barred):
            return forward(*args, **kwargs)

    router.forward = masked
    try:
        yield
    finally:
        if mine is None:
            del router.forward
        else:
            router.forward = mine


class _Barring(TorchFunctionMode):
    """Products with a column for every expert come out with single entries at the bottom."""

    def __init__(self, n_experts: int, barred: Sequence[Barred]) -> None:
        super().__init__()
        self._n_experts, self._barred = n_experts, barred

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in PRODUCTS and isinstance(out, Tensor) and out.dim() and out.shape[-1] == self._n_experts:
            rows = torch.tensor([each.row for each in self._barred], device=out.device)
            columns = torch.tensor([each.expert for each in self._barred], device=out.device)
            flat = out.reshape(-1, self._n_experts).clone()
            flat[rows, columns] = LOWEST_IN_HALF if out.dtype == torch.float16 else LOWEST
            return flat.view(out.shape)
        return out
