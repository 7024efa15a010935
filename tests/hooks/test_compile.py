"""torch.compile: readings come out of one whole graph, and come and go with the hooks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hooks.proof import prove_sites
from hooks.sites import Site, attach_taps, find_sites
from hooks.taps import Reading
from tests.hooks.families import text_batch
from tests.hooks.family_table import FAMILIES
from tests.hooks.forwards import recorded

IDS = text_batch(seed=0)


@pytest.fixture(autouse=True)
def no_graph_survives() -> Iterator[None]:
    yield
    torch.compiler.reset()


def build(name: str) -> torch.nn.Module:
    return next(family for family in FAMILIES if family.name == name).build()


class Buffers:
    """A receiver that copies into memory that was there before: the only kind that one graph can hold."""

    def __init__(self, sites: list[Site], n_rows: int) -> None:
        self.ids = [torch.full((n_rows, site.facts.top_k), -1) for site in sites]
        self.logits = [torch.full((n_rows, site.facts.n_experts), float("nan")) for site in sites]

    def receive(self, number: int, reading: Reading) -> None:
        self.ids[number].copy_(reading.ids)
        self.logits[number].copy_(reading.logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["olmoe", "zaya"])
def test_one_graph_holds_the_taps(name: str) -> None:
    model = build(name)
    sites = prove_sites(model, find_sites(model), lambda: model(input_ids=IDS))
    plain = recorded(model, sites, lambda: model(input_ids=IDS, use_cache=False))
    buffers = Buffers(sites, IDS.numel())
    handles = attach_taps(model, sites, buffers.receive)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        compiled(input_ids=IDS, use_cache=False)
    for handle in handles:
        handle.remove()
    for number, (reading,) in enumerate(plain):
        assert torch.equal(buffers.ids[number], reading.ids)
        assert torch.equal(buffers.logits[number], reading.logits)


@pytest.mark.slow
def test_taps_come_and_go_after_the_first_compiled_call() -> None:
    model = build("olmoe")
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        before = compiled(input_ids=IDS, use_cache=False).logits
        sites = prove_sites(compiled, find_sites(compiled), lambda: compiled(input_ids=IDS, use_cache=False))
        buffers = Buffers(sites, IDS.numel())
        handles = attach_taps(compiled, sites, buffers.receive)
        during = compiled(input_ids=IDS, use_cache=False).logits
        assert all((ids >= 0).all() for ids in buffers.ids)
        for handle in handles:
            handle.remove()
        fresh = Buffers(sites, IDS.numel())
        buffers.ids, buffers.logits = fresh.ids, fresh.logits
        after = compiled(input_ids=IDS, use_cache=False).logits
    assert all((ids == -1).all() for ids in buffers.ids), "nothing is left in the graph"
    assert torch.equal(before, during)
    assert torch.equal(before, after)
