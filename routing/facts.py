"""What a trace knows about its routers and about its own making."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from routing.errors import TraceError

__all__ = ["JsonFacts", "LayerFacts", "Provenance", "stacks_of"]


class JsonFacts:
    """Plain dictionaries in and out; keys of a later minor version are ignored."""

    def to_json(self) -> dict[str, Any]:
        """These facts as a dictionary that `json` can write."""
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Facts from what `to_json` gave.

        Raises:
            TraceError: a fact without a default is missing.
        """
        known = {each.name for each in fields(cls)}  # type: ignore[arg-type]
        try:
            return cls(**{name: value for name, value in stored.items() if name in known})
        except TypeError as error:
            msg = (
                f"{cls.__name__} cannot be read from the keys {sorted(stored)}: {error}. "
                "Restore the header from a copy, or record the trace again."
            )
            raise TraceError(msg) from error


@dataclass(frozen=True, kw_only=True)
class LayerFacts(JsonFacts):
    """One router: where it sits and how it decides.

    Attributes:
        label: name on the layer axis: "L07" in a decoder-only model, "enc03" and "dec03" where there are two
            stacks, with a suffix for a second router in one layer ("L05attn").
        number: number of the layer in the model, as the model counts.
        stack: which stack of the model: "decoder", "encoder", "text", "vision", …
        module: path of the router's block in the model.
        router_class: class name of the router.
        n_experts: routed experts, zero-computation experts included (they come last), shared ones not.
        n_zero_experts: how many of them compute nothing.
        n_shared_experts: experts that are always on; None where the model does not say.
        top_k: experts selected for a token.
        score_function: how logits become scores: "softmax", "sigmoid", "softmax_of_top_k", "unknown", …
        bias: selection bias, one an expert, or None.
        n_groups: groups of experts among which the router first selects, or None.
        top_groups: how many groups it selects, or None.
        weights_normalized: whether the selected weights are divided by their sum; None where unknown.
        scale: factor on the weights, or None.
        capacity: most tokens an expert takes in a batch, or None.
        proof: how the recording of this layer was proven: "replay", "poison", "counts", "none".
        note: what a reader must know, such as that the library does not obey this router.
        selection: how scores become a decision where that is a matter of mode: "softmax", "gumbel_hard", …; or None.
        temperature: by which the logits were divided before that, or None.
        expert_names: what the experts are called where they are more than a number (a prototype has a task), or None.
    """

    label: str
    number: int
    n_experts: int
    top_k: int
    stack: str = "decoder"
    module: str = ""
    router_class: str = ""
    n_zero_experts: int = 0
    n_shared_experts: int | None = None
    score_function: str = "unknown"
    bias: list[float] | None = None
    n_groups: int | None = None
    top_groups: int | None = None
    weights_normalized: bool | None = None
    scale: float | None = None
    capacity: int | None = None
    proof: str = "none"
    note: str | None = None
    selection: str | None = None
    temperature: float | None = None
    expert_names: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance(JsonFacts):
    """How a trace came to be.

    Attributes:
        model: name or folder of the model, as it was asked for.
        revision: revision of the model, or None.
        model_class: class of the model.
        transformers, torch, routescope, python: versions.
        device, dtype: where and in which precision the model ran.
        seed: the run's seed, or None.
        started, finished: times in ISO 8601, UTC.
        tasks: where the tasks came from.
        overhead: what recording cost, as measured, or None if it was not.
        n_tokens, n_bytes: what was written.
        n_dropped_records: records lost on the way; not 0 only if a sink says so.
        self_check: result of the recorder's check on the first batch.
        complete: whether the run came to its end.
        note: what a reader must know.
    """

    model: str = ""
    revision: str | None = None
    model_class: str = ""
    transformers: str = ""
    torch: str = ""
    routescope: str = ""
    python: str = ""
    device: str = ""
    dtype: str = ""
    seed: int | None = None
    started: str = ""
    finished: str = ""
    tasks: str = ""
    overhead: dict[str, Any] | None = None
    n_tokens: int = 0
    n_bytes: int = 0
    n_dropped_records: int = 0
    self_check: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    note: str | None = None


def stacks_of(layer_facts: tuple[LayerFacts, ...]) -> tuple[str, ...]:
    """Names of the stacks, in order of first appearance; a token's stack code counts along these."""
    return tuple(dict.fromkeys(facts.stack for facts in layer_facts))
