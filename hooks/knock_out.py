"""Experts made unselectable before the router chooses, in any family whose logits a product makes.

While a router runs, the products inside it that have a column for every expert come out with the knocked-out columns at
the bottom, and the router's selection bias is lowered there as well. Whatever the router makes of that, its choice is
read by the taps all the while: an expert that was selected after all is an error, never a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from hooks.router_products import lowest, router_products_changed, site_number
from hooks.sites import Site, attach_taps
from hooks.taps import Reading
from hooks.taps.retriever import RetrieverTap
from hooks.taps.task_routes import RoutedLayerTap
from routing import RecordingError, expert_name

__all__ = ["experts_knocked_out"]

LOWEST_BIAS, LOWEST_BIAS_IN_HALF = -1e9, -6e4


@contextmanager
def experts_knocked_out(model: nn.Module, sites: Sequence[Site], experts: Sequence[tuple[str, int]]) -> Iterator[None]:
    """While open, the model runs without some experts; the others are chosen in their place.

    Args:
        model: the model.
        sites: its routers, proven (`hooks.proof.prove_sites`), so that the width of their logits is known.
        experts: (label of the layer, expert) each.

    Raises:
        RecordingError: an expert does not exist, too few would be left, or the router of a layer cannot be kept from
            selecting them; the last is known when a forward has run, and raised at the end.
    """
    by_site = _by_site(sites, experts)
    chosen: dict[int, list[Tensor]] = {number: [] for number in by_site}

    def check(number: int, reading: Reading) -> None:
        if number in by_site:
            banned = torch.tensor(by_site[number], device=reading.ids.device)
            chosen[number].append(((reading.weights != 0) & torch.isin(reading.ids, banned)).any())

    with ExitStack() as opened:
        routed = {number: sites[number].tap for number in by_site if isinstance(sites[number].tap, RoutedLayerTap)}
        if routed:
            owner = next(iter(routed.values())).owner
            pairs = [(tap.place, each) for number, tap in routed.items() for each in by_site[number]]  # type: ignore[attr-defined]
            opened.enter_context(owner.knock_out(pairs))  # type: ignore[union-attr, operator]
        for number, numbers in by_site.items():
            if number not in routed:
                opened.enter_context(_lowered(sites[number], numbers))
        for handle in attach_taps(model, list(sites), check):
            opened.callback(handle.remove)
        yield
    for number, seen in chosen.items():
        if any(bool(each) for each in seen):
            facts = sites[number].facts
            names = ", ".join(expert_name(facts.label, each) for each in by_site[number])
            msg = (
                f"The router of {facts.label} ({facts.router_class} at {facts.module}) selected {names} although they "
                "were knocked out: it does not choose by products of its own. Leave this layer's experts in."
            )
            raise RecordingError(msg)


def _by_site(sites: Sequence[Site], experts: Sequence[tuple[str, int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for label, expert in experts:
        number = site_number(sites, label)
        if not 0 <= expert < sites[number].facts.n_experts:
            msg = f"{label} has experts 0 to {sites[number].facts.n_experts - 1}, not {expert}. Name one of these."
            raise RecordingError(msg)
        found.setdefault(number, [])
        if expert not in found[number]:
            found[number].append(expert)
    for number, numbers in found.items():
        facts, tap = sites[number].facts, sites[number].tap
        if isinstance(tap, RetrieverTap):
            msg = (
                "PHA's prototypes are retrieved, not run: without one, nothing in a forward changes. Exchange the "
                "prototypes of tasks instead (analysis.interventions.prototype_exchange)."
            )
            raise RecordingError(msg)
        if tap.score_function not in (None, "average"):
            msg = (
                f"The router of {facts.label} chooses by a table, not by scores, so no expert of it can be knocked "
                "out. Leave this layer's experts in."
            )
            raise RecordingError(msg)
        needed = 1 if isinstance(tap, RoutedLayerTap) else facts.top_k
        if facts.n_experts - len(numbers) < needed:
            msg = (
                f"{len(numbers)} of {facts.n_experts} experts of {facts.label} would be knocked out, but a token needs "
                f"{needed}. Knock out {facts.n_experts - needed} at most."
            )
            raise RecordingError(msg)
    return found


@contextmanager
def _lowered(site: Site, experts: list[int]) -> Iterator[None]:
    """One router, its logits and selection bias lowered for some experts."""

    def lowered(product: Tensor) -> Tensor:
        return product.index_fill(-1, torch.tensor(experts, device=product.device), lowest(product))

    biases = _selection_biases(site, site.facts.n_experts)
    kept = [bias.detach().clone() for bias in biases]
    with router_products_changed(site, lowered):
        try:
            with torch.no_grad():
                for bias in biases:
                    bias.view(-1)[experts] = LOWEST_BIAS if bias.dtype != torch.float16 else LOWEST_BIAS_IN_HALF
            yield
        finally:
            with torch.no_grad():
                for bias, values in zip(biases, kept, strict=True):
                    bias.copy_(values)


def _selection_biases(site: Site, n_experts: int) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for module in (*site.tap.router.modules(), site.tap.block):
        for name, tensor in (*module._buffers.items(), *module._parameters.items()):
            if "_bias" in name and tensor is not None and tensor.numel() == n_experts:
                found[id(tensor)] = tensor
    return list(found.values())
