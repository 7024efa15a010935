"""Every family of transformers that routes: what is read from it is right, and reading it changes nothing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hooks.proof import Witness, prove_sites
from hooks.selection_rule import ACTIVATIONS
from hooks.sites import Site, attach_taps, find_sites
from hooks.taps import Reading
from routing.errors import RecordingError
from tests.hooks.families import Family, text_batch
from tests.hooks.family_table import FAMILIES
from tests.hooks.forwards import (
    Readings,
    calls_of,
    inputs_of,
    n_hooks,
    padded,
    poisoned,
    recorded,
    tensors_in,
    text_inputs,
)

# The whole of it takes most of a minute.
pytestmark = pytest.mark.slow

# Replays are exact up to the order of a sum.
EXACT = 2e-5


@dataclass(frozen=True)
class Subject:
    """A family with its tiny model, proven once and shared by the family's checks."""

    family: Family
    model: nn.Module
    inputs: dict[str, Any]
    sites: list[Site]
    readings: Readings

    def forward(self) -> Any:
        with torch.no_grad():
            return self.model(**self.inputs)

    def ran(self) -> list[tuple[Site, Reading]]:
        """The sites that ran, each with its reading; an image pool has none without an image."""
        return [(site, of_site[0]) for site, of_site in zip(self.sites, self.readings, strict=True) if of_site]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each check is asked of the families that the installed transformers runs, but for those the table excuses."""
    if "subject" in metafunc.fixturenames:
        check = metafunc.function.__name__
        asked = [family for family in FAMILIES if family.runs and check not in family.without]
        metafunc.parametrize("subject", asked, ids=lambda family: family.name, indirect=True, scope="module")


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest) -> Subject:
    family: Family = request.param
    model = family.build()
    inputs = inputs_of(family, model)
    sites = prove_sites(model, find_sites(model), lambda: model(**inputs))
    return Subject(family, model, inputs, sites, recorded(model, sites, lambda: model(**inputs)))


def test_facts(subject: Subject) -> None:
    family = subject.family
    assert tuple(site.facts.label for site in subject.sites) == family.labels
    for site, reading in subject.ran():
        facts, rule = site.facts, family.rule
        assert facts.proof == family.proof
        assert (facts.n_shared_experts, facts.n_zero_experts) == (family.n_shared, family.n_zero)
        assert facts.top_k == family.top_k == reading.ids.shape[1]
        assert (facts.weights_normalized, facts.scale) == (rule.normalized, rule.scale)
        if facts.label in family.tables:
            assert facts.score_function == "hash"
            assert site.rule is None
            continue
        assert facts.score_function == rule.score
        assert (facts.bias is not None, facts.n_groups == 2) == (rule.bias, rule.groups)


def test_ids_and_weights(subject: Subject) -> None:
    for site, reading in subject.ran():
        rows = reading.logits.shape[0]
        assert reading.ids.shape == reading.weights.shape == (rows, site.facts.top_k)
        assert reading.logits.shape == (rows, site.facts.n_experts)
        assert not reading.weights.requires_grad
        assert not reading.logits.requires_grad
        assert len(reading.ids.unique()) > 1, "a router that always says the same proves little"
        if site.rule is None:
            continue
        # The recorded experts are the best by the selection scores, which is what runners-up are taken from.
        scores = site.selection_scores(reading.logits)
        chosen = scores.gather(-1, reading.ids).sort(dim=-1, descending=True).values
        assert torch.equal(chosen, scores.topk(site.facts.top_k, dim=-1).values)


def test_weights_follow_from_logits(subject: Subject) -> None:
    rule = subject.family.rule
    name = "sigmoid" if rule.score == "logits" else rule.score
    for _, reading in subject.ran():
        whole = (reading.weights != 0).all(dim=-1)
        expected = ACTIVATIONS[name](reading.logits)[whole].gather(-1, reading.ids[whole])
        if rule.normalized:
            expected = expected / expected.sum(dim=-1, keepdim=True)
        if rule.scale is not None:
            torch.testing.assert_close(reading.weights[whole], expected * rule.scale, rtol=1e-4, atol=1e-6)


def test_logits_are_the_routers(subject: Subject) -> None:
    """The recorded logits are the product of what the router was given and its matrix, made again here."""
    for site, reading in subject.ran():
        linear = linear_of(site)
        called = calls_of(subject.model, [linear, site.tap.router], subject.forward)
        # LongCat's router uses its classifier's matrix without calling the classifier.
        (args, _) = called[0] or called[1]
        bias = getattr(linear, "bias", None)
        product = functional.linear(
            args[0].float().flatten(0, -2), linear.weight.float(), None if bias is None else bias.float()
        )
        product = product[:, : site.facts.n_experts] * getattr(site.tap.router, "output_multiplier", 1)
        torch.testing.assert_close(reading.logits.float(), product, rtol=1e-4, atol=1e-5)


def linear_of(site: Site) -> nn.Module:
    """The router, or the layer inside it, whose matrix has a row for every expert."""
    fitting = [
        module
        for module in site.tap.router.modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) == 2 and len(module.weight) >= site.facts.n_experts
    ]
    # The last, since a router may have layers before it.
    return fitting[-1]


def test_replay(subject: Subject) -> None:
    witness = Witness(subject.sites)
    handles = attach_taps(subject.model, subject.sites, witness.receive)
    with witness:
        subject.forward()
    for handle in handles:
        handle.remove()
    errors = {subject.sites[number].facts.label: float(each.error) for number, each in witness.replays.items()}
    assert len(errors) == len(subject.ran())
    assert max(errors.values()) < EXACT, errors


def test_poison(subject: Subject) -> None:
    """An expert made of NaN spoils exactly the rows that were recorded as its own."""
    blocks = [site.tap.block for site, _ in subject.ran()]
    calls = calls_of(subject.model, blocks, subject.forward)
    for (site, reading), (args, kwargs) in zip(subject.ran(), calls, strict=True):
        n_real = site.facts.n_experts - site.facts.n_zero_experts
        if site.facts.stack == "encoder":
            # Its cache already holds the tokens that would be written again.
            kwargs = {name: value for name, value in kwargs.items() if name != "past_key_values"}
        for expert in range(n_real):
            with torch.no_grad(), poisoned(site.tap, expert, n_real):
                output = next(tensors_in(site.tap.block(*args, **kwargs)))
            spoiled = output.reshape(reading.ids.shape[0], -1).isnan().any(dim=-1)
            assert torch.equal(spoiled, touched(subject.family, reading, expert, n_real)), (site.facts.label, expert)


def touched(family: Family, reading: Reading, expert: int, n_real: int) -> Tensor:
    if family.name == "zaya" and expert == 0:
        # A skipped token is handed to expert 0 with weight 0.
        return ((reading.ids == 0) | (reading.ids == n_real)).any(dim=-1)
    if family.name == "nllb_moe":
        # The defect: expert 0 runs on every row (with the second weight), expert 1 where there is a first choice.
        return torch.full((len(reading.ids),), expert < 2) & (~reading.dropped[:, 0] if expert == 1 else True)
    return (reading.ids == expert).any(dim=-1)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(subject: Subject, side: str) -> None:
    """A text is routed alike alone and padded, and its rows are where they belong."""
    model, texts = subject.model, text_batch(seed=5)
    together, mask = padded(texts, model, **{side: 3})
    in_batch = recorded(model, subject.sites, lambda: model(**text_inputs(model, together, mask, decoder_ids=texts)))
    alone = texts[:1, :-3] if side == "right" else texts[:1, 3:]
    by_itself = recorded(
        model,
        subject.sites,
        lambda: model(**text_inputs(model, alone, torch.ones_like(alone), decoder_ids=texts[:1])),
    )
    for site, (batch,), (single,) in zip(*_of_those_that_ran(subject.sites, in_batch, by_itself), strict=True):
        real = torch.cat([mask[0].bool(), torch.zeros(mask.shape[1], dtype=torch.bool)])
        if site.facts.label.startswith("dec"):
            real = torch.arange(texts.numel()) < texts.shape[1]
        torch.testing.assert_close(batch.logits[real], single.logits, rtol=1e-3, atol=1e-4)
        assert torch.equal(batch.ids[real], single.ids)
        torch.testing.assert_close(batch.weights[real], single.weights, rtol=1e-3, atol=1e-4)


def _of_those_that_ran(sites: list[Site], *recordings: Readings) -> tuple[list[Any], ...]:
    kept = [number for number in range(len(sites)) if recordings[0][number]]
    return ([sites[number] for number in kept], *([each[number] for number in kept] for each in recordings))


def test_generate(subject: Subject) -> None:
    """With a KV cache, step by step, tokens are routed as when the whole text is given at once."""
    model = subject.model
    ids, mask = padded(text_batch(seed=7), model, left=3)
    sequences: list[Tensor] = []

    def generate() -> None:
        sequences.append(
            model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=4, min_new_tokens=4, do_sample=False, use_cache=True
            )
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps = recorded(model, subject.sites, generate)
    # The last token is never fed back.
    fed = sequences[0][:, :-1]
    if model.config.is_encoder_decoder:
        inputs = text_inputs(model, ids, mask, decoder_ids=fed)
    else:
        grown = torch.cat([mask, torch.ones_like(fed[:, mask.shape[1] :])], dim=1)
        inputs = text_inputs(model, fed, grown)
    whole = recorded(model, subject.sites, lambda: model(**inputs))
    for site, by_step, (forced,) in zip(*_of_those_that_ran(subject.sites, steps, whole), strict=True):
        # (batch × columns) rows a step, joined along the columns.
        joined = torch.cat([each.ids.unflatten(0, (2, -1)) for each in by_step], dim=1)
        real = torch.ones(2, joined.shape[1], dtype=torch.bool)
        if not site.facts.label.startswith("dec"):
            real[:, : mask.shape[1]] = mask.bool()
        assert len(by_step) == (1 if site.facts.label.startswith("enc") else 4)
        assert torch.equal(joined[real].sort(-1).values, forced.ids.unflatten(0, (2, -1))[real].sort(-1).values)


def test_innocence(subject: Subject) -> None:
    """Bit-identical outputs with taps and without, and no hook left, not even after an exception."""
    model, before = subject.model, n_hooks(subject.model)
    plain = list(tensors_in(subject.forward()))
    tapped: list[Tensor] = []
    recorded(model, subject.sites, lambda: tapped.extend(tensors_in(subject.forward())))
    assert len(plain) == len(tapped)
    assert all(torch.equal(one, other) for one, other in zip(plain, tapped, strict=True))
    with pytest.raises(ZeroDivisionError):
        prove_sites(model, subject.sites, lambda: 1 / 0)
    assert n_hooks(model) == before


def test_bfloat16(subject: Subject) -> None:
    model = subject.family.build().to(torch.bfloat16)
    inputs = {name: to_bfloat16(value) for name, value in subject.inputs.items()}
    sites = prove_sites(model, find_sites(model), lambda: model(**inputs))
    ran = [number for number, readings in enumerate(subject.readings) if readings]
    assert {sites[number].facts.proof for number in ran} == {subject.family.proof}
    rules = {(sites[number].facts.score_function, sites[number].facts.n_groups) for number in ran}
    assert rules == {(site.facts.score_function, site.facts.n_groups) for site, _ in subject.ran()}


def to_bfloat16(value: Any) -> Any:
    return value.to(torch.bfloat16) if isinstance(value, Tensor) and value.is_floating_point() else value


def test_nan_in_the_router_is_refused(subject: Subject) -> None:
    site, _ = subject.ran()[0]
    parameter = next(iter(site.tap.router.parameters()))
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.fill_(float("nan"))
        try:
            with pytest.raises(RecordingError, match="not finite"):
                prove_sites(subject.model, subject.sites, subject.forward)
        finally:
            parameter.copy_(kept)
