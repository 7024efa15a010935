"""Whether a record can be trusted: what was checked when it was made, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.sentences import and_list, count, escaped
from routing import LayerFacts, TraceSummary

__all__ = ["Check", "checks"]

Verdict = Literal["good", "doubt", "unknown"]

_PROOFS = {
    "replay": ("good", "proven by replay: recorded experts and weights reproduce what the layer returned"),
    "weights": ("good", "proven by their weights: recorded experts and weights reproduce what the router applied"),
    "poison": ("good", "proven by poisoning: changing an expert changed exactly the tokens recorded for it"),
    "counts": ("doubt", "checked by counts only: every token has its experts, but the output was not reproduced"),
    "none": ("doubt", "not proven"),
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        verdict: "good", "doubt", or "unknown" where it was not looked at.
        sentence: what was found, as Markdown.
    """

    verdict: Verdict
    sentence: str


def checks(found: TraceSummary) -> list[Check]:
    """What speaks for a record, and what does not; doubts first."""
    listed = [_complete(found), *_proofs(found), *_self_check(found), _lost(found), *_notes(found), _overhead(found)]
    order: list[Verdict] = ["doubt", "good", "unknown"]
    return sorted(listed, key=lambda check: order.index(check.verdict))


def _complete(found: TraceSummary) -> Check:
    size = count(found.n_prompts, "prompt")
    if found.unit == "token":
        size = f"{count(found.n_tokens, 'token')} of {size}"
    if found.provenance.complete:
        return Check("good", f"The run came to its end; {size} are here.")
    # The prompts are listed before the first is read: those that were not reached have no token.
    return Check(
        "doubt",
        "The run did not come to its end; what was committed until then is here: "
        f"{count(found.n_tokens, found.unit)}, of {count(found.n_prompts, 'prompt')} that were asked for.",
    )


def _proofs(found: TraceSummary) -> list[Check]:
    by_proof: dict[str, list[LayerFacts]] = {}
    for facts in found.layers:
        by_proof.setdefault(facts.proof, []).append(facts)
    listed = []
    for proof, layers in by_proof.items():
        verdict, words = _PROOFS.get(proof, ("doubt", f"checked by {escaped(proof)}"))
        whole = len(layers) == found.n_layers
        which = (
            f"All {count(found.n_layers, 'layer')}"
            if whole and found.n_layers > 1
            else f"{count(len(layers), 'layer')} ({and_list([escaped(each.label) for each in layers])})"
        )
        verb = "was" if len(layers) == 1 else "were"
        listed.append(Check("good" if verdict == "good" else "doubt", f"{which} {verb} {words}."))
    return listed


def _self_check(found: TraceSummary) -> list[Check]:
    stored = {name: str(value) for name, value in found.provenance.self_check.items()}
    if not stored:
        return [Check("unknown", "No self-check of the first batch was stored.")]
    passed = [name for name, value in stored.items() if value in ("passed", "True", "ok")]
    listed = []
    if passed:
        listed.append(
            Check("good", f"The first batch passed the self-check of {and_list([escaped(p) for p in passed])}.")
        )
    for name, value in stored.items():
        if name not in passed:
            listed.append(Check("doubt", f"Self-check of {escaped(name)}: {escaped(value)}."))
    return listed


def _lost(found: TraceSummary) -> Check:
    lost = found.provenance.n_dropped_records
    if lost:
        return Check("doubt", f"{count(lost, 'record')} were lost on the way.")
    return Check("good", "No record was lost on the way.")


def _notes(found: TraceSummary) -> list[Check]:
    by_note: dict[str, list[str]] = {}
    for facts in found.layers:
        if facts.note:
            by_note.setdefault(facts.note, []).append(facts.label)
    return [
        Check("doubt", f"{and_list([escaped(each) for each in names])}: {escaped(note)}")
        for note, names in by_note.items()
    ]


def _overhead(found: TraceSummary) -> Check:
    cost = found.provenance.overhead
    if not cost or "ratio" not in cost:
        return Check("unknown", "What recording cost was not measured (`routescope record … --measure-overhead` does).")
    interval = _interval_of(cost, names=("low", "high"))
    return Check(
        "good",
        f"Recording took {float(cost['ratio']):.3f}\N{NO-BREAK SPACE}× the time without{interval}, measured here.",
    )


def _interval_of(cost: dict[str, object], *, names: Sequence[str]) -> str:
    bounds = [cost.get(name) for name in names]
    if any(bound is None for bound in bounds):
        return ""
    low, high = (float(str(bound)) for bound in bounds)
    return f" (90\N{NO-BREAK SPACE}%: {low:.3f} to {high:.3f})"
