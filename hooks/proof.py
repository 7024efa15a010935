"""Proof that a recording is right: what was read explains what the experts returned.

Three things are asked of every site on its first forward. Counts: every row has top-k distinct experts that exist, and
finite numbers. Replay: the recorded ids and weights, fed back to the experts in the order of the ranks, give the output
that they gave. Rule: the logits explain the choice; only then are there runners-up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from hooks.layer_facts import groupings_named
from hooks.selection_rule import learn_selection_rule, learn_weight_rule
from hooks.sites import Site, attach_taps
from hooks.taps import Handle, Reading, Replay
from hooks.taps.tap import sampled_rows
from routing.errors import RecordingError
from routing.facts import LayerFacts

__all__ = ["TOLERANCE", "Witness", "prove_sites"]

N_RULE_ROWS = 512
# Largest distance of a replayed row from the recorded one. A wrong expert gives about 1, a wrong weight its error.
TOLERANCE = {torch.float32: 2e-3, torch.float64: 1e-6, torch.bfloat16: 3e-2, torch.float16: 1e-2}


@dataclass
class _Evidence:
    ids: Tensor
    weights: Tensor
    logits: Tensor | None
    n_rows: int
    top_k: int


@dataclass(eq=False)
class Witness:
    """Watches the first forward of every site while it is recorded, and proves the sites from what it saw.

    Use it as a context around a forward and hand it what `receive` is handed. Sites that did not run (a vision
    tower without images) stay pending and are proven by the first forward in which they run.

    Attributes:
        sites: the sites to prove.
        pending: numbers of the sites that have not run yet.
        replays: by number of the site, how far its recorded routing is from explaining its experts' output.
    """

    sites: list[Site]
    pending: set[int] = field(init=False)
    _evidence: dict[int, _Evidence] = field(default_factory=dict, init=False, repr=False)
    replays: dict[int, Replay] = field(default_factory=dict, init=False, repr=False)
    _blocks_run: set[int] = field(default_factory=set, init=False, repr=False)
    _handles: list[Handle] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self.pending = set(range(len(self.sites)))

    def __enter__(self) -> Self:
        """Attach; taps must already be attached, since a replay reads what they read.

        Compiled parts run eagerly meanwhile, since a replay has no place in a graph.
        """
        if len(self.pending) == len(self.sites):
            self._handles.append(_EagerMeanwhile())
        for number, site in enumerate(self.sites):
            if number not in self.pending:
                continue
            self._watch(number, site)
        return self

    def _watch(self, number: int, site: Site) -> None:
        def ran(module: nn.Module, args: tuple[object, ...]) -> None:
            self._blocks_run.add(number)

        def keep_first(replay: Replay) -> None:
            self.replays.setdefault(number, replay)

        self._handles.append(site.tap.block.register_forward_pre_hook(ran))
        self._handles += site.tap.attach_witness(keep_first)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def receive(self, number: int, reading: Reading) -> None:
        """Keep a sample of a site's first reading; stays on the device."""
        if number not in self.pending:
            return
        self.pending.discard(number)
        rows = sampled_rows(reading.ids.shape[0], reading.ids.device, limit=N_RULE_ROWS)
        self._evidence[number] = _Evidence(
            ids=reading.ids[rows],
            weights=reading.weights[rows],
            logits=None if reading.logits is None else reading.logits[rows],
            n_rows=reading.ids.shape[0],
            top_k=reading.ids.shape[1],
        )

    def proven(self) -> list[Site]:
        """The sites with completed facts, a rule where one was found, and what was proven; synchronizes.

        A site that has not run keeps proof "none".

        Raises:
            RecordingError: no site ran, a block ran whose routing was not seen, or what was seen is wrong.
        """
        for number in sorted(self.pending & self._blocks_run):
            raise _silent(self.sites[number])
        if not self._evidence:
            raise _nothing_ran(self.sites)
        return [self._proven(number, site) for number, site in enumerate(self.sites)]

    def _proven(self, number: int, site: Site) -> Site:
        if number not in self._evidence:
            return site
        seen, replay = self._evidence[number], self.replays.get(number)
        facts = _counted(site.facts, seen)
        _check_counts(facts, seen)
        facts = replace(facts, proof=_proof_of(facts, replay))
        if replay is not None and replay.note is not None:
            facts = replace(facts, note=replay.note)
        return _with_rules(replace(site, facts=facts), seen)


def prove_sites(model: nn.Module, sites: list[Site], forward: Callable[[], object]) -> list[Site]:
    """The sites, proven on one forward of the model.

    Args:
        model: the model in which the sites were found.
        sites: what find_sites gave.
        forward: runs the model once, on a few real tokens; its result is not used.

    Returns:
        (site) · with facts, rule and proof · as many as were given.

    Raises:
        RecordingError: a site's routing was not seen, or does not explain what its experts returned.
    """
    witness = Witness(sites)
    handles = attach_taps(model, sites, witness.receive)
    try:
        with witness, nullcontext() if model.training else torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return witness.proven()


class _EagerMeanwhile:
    def __init__(self) -> None:
        # Where nothing was compiled, dynamo is not even loaded, and loading it takes seconds.
        loaded = "torch._dynamo" in sys.modules
        self._stance = torch.compiler.set_stance("force_eager") if loaded else nullcontext()

    def remove(self) -> None:
        self._stance.__exit__(None, None, None)


def _counted(facts: LayerFacts, seen: _Evidence) -> LayerFacts:
    # The logits' width is the truth: under expert parallelism a module knows its own share of the experts only.
    n_experts = facts.n_experts if seen.logits is None else seen.logits.shape[-1]
    return replace(facts, n_experts=n_experts, top_k=seen.top_k)


def _check_counts(facts: LayerFacts, seen: _Evidence) -> None:
    ids = seen.ids
    named = f"{facts.label} ({facts.router_class} at {facts.module})"
    if seen.logits is not None and not bool(seen.logits.isfinite().all()):
        msg = (
            f"The router of {named} gave logits that are not finite on the first batch, so no expert can be ranked. "
            "Look for NaN in the checkpoint's weights, or run the model in bfloat16 or float32."
        )
        raise RecordingError(msg)
    if not bool(seen.weights.isfinite().all()):
        msg = (
            f"The router of {named} gave weights that are not finite on the first batch. "
            "Look for NaN in the checkpoint's weights, or run the model in bfloat16 or float32."
        )
        raise RecordingError(msg)
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < facts.n_experts:
        msg = (
            f"{named} was handed experts {int(ids.min())} to {int(ids.max())}, but it has {facts.n_experts}. "
            "A parallel plan may have renumbered them: record without expert parallelism."
        )
        raise RecordingError(msg)
    if ids.shape[-1] > 1 and bool((ids.sort(dim=-1).values.diff(dim=-1) == 0).any()):
        msg = (
            f"{named} was handed the same expert twice for one token, which top-{facts.top_k} of "
            f"{facts.n_experts} cannot give. A parallel plan may have renumbered them: record without it."
        )
        raise RecordingError(msg)


def _proof_of(facts: LayerFacts, replay: Replay | None) -> str:
    if replay is None:
        return "counts"
    error = float(replay.error)
    tolerance = TOLERANCE.get(replay.dtype, 3e-2)
    if error <= tolerance:
        return replay.kind
    msg = (
        f"What was read from {facts.label} ({facts.router_class} at {facts.module}) does not explain its experts' "
        f"output: replayed, a row is off by {error:.2g} of its length, where {tolerance:g} is allowed for "
        f"{str(replay.dtype).removeprefix('torch.')}. "
        "This kernel or parallel plan is not supported: load the model with eager experts and without quantized ones."
    )
    raise RecordingError(msg)


def _with_rules(site: Site, seen: _Evidence) -> Site:
    if seen.logits is None:
        return site
    logits, ids, weights = seen.logits.cpu(), seen.ids.cpu().long(), seen.weights.cpu()
    weight_rule = learn_weight_rule(*_whole(logits, ids, weights))
    rule = site.tap.known_rule()
    if rule is not None:
        rule = rule if rule.reproduces(logits, ids) else None
        return replace(site, rule=rule)
    if site.tap.score_function is None:
        rule = learn_selection_rule(
            logits,
            ids,
            biases=list(site.tap.bias_candidates(logits.shape[-1])),
            groupings=groupings_named(site.tap, site.config),
            prefer=[] if weight_rule is None else [weight_rule.score_function],
        )
    facts = site.facts
    if rule is not None:
        facts = replace(
            facts,
            score_function=rule.score_function,
            bias=None if rule.bias is None else [float(each) for each in rule.bias],
            n_groups=None if rule.grouping is None else rule.grouping.n_groups,
            top_groups=None if rule.grouping is None else rule.grouping.top_groups,
        )
    else:
        facts = replace(facts, score_function=site.tap.score_function or "unknown")
    if weight_rule is not None:
        facts = replace(facts, weights_normalized=weight_rule.normalized, scale=weight_rule.scale)
        if rule is not None and rule.score_function != weight_rule.score_function and facts.note is None:
            facts = replace(facts, note=f"The weights are the {weight_rule.score_function} of the logits.")
    return replace(site, facts=facts, rule=rule)


def _whole(logits: Tensor, ids: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows in which nothing was dropped or skipped: there a weight is what the score made it."""
    whole = (weights != 0).all(dim=-1)
    return logits[whole], ids[whole], weights[whole]


def _silent(site: Site) -> RecordingError:
    facts = site.facts
    msg = (
        f"{type(site.tap.block).__name__} at {facts.module} ran without handing its routing to "
        f"{type(site.tap.experts).__name__}: a fused kernel or a compiled graph took its place. "
        "Load the model without that kernel (use_kernels=False, dequantized weights), or attach before compiling."
    )
    return RecordingError(msg)


def _nothing_ran(sites: list[Site]) -> RecordingError:
    msg = (
        f"None of the {len(sites)} routers ({sites[0].facts.module}, …) ran in the forward that was to prove them. "
        "Give a forward of this very model with at least one token."
    )
    return RecordingError(msg)
