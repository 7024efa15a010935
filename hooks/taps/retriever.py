"""PHA: the retriever, recorded as a router of texts whose experts are the prototypes.

B text, T task, z width of instance vectors and prototypes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hooks.selection_rule import SelectionRule
from hooks.taps.reading import Emit, Reading
from hooks.taps.tap import Handle, Replay, ReportReplay, Tap
from routing.facts import LayerFacts

__all__ = ["CosineRule", "RetrieverTap", "nearest"]

NOTES = {
    "prototype": "Recorded is the prototype that the retriever finds nearest; the adapters that were applied are those "
    "of the text's own task, where the model knows it.",
    "instance": "Recorded is the prototype that the retriever finds nearest; the adapters that were applied were made "
    "from the text's own vector.",
    "shared": "Recorded is the prototype that the retriever finds nearest; the decoder's adapters are the same for all "
    "texts, and none is generated.",
    "task": "Recorded is the prototype that the retriever finds nearest; every task has learned adapters of its own, "
    "and none is generated.",
}


@dataclass(frozen=True, eq=False)
class CosineRule(SelectionRule):
    """The cosines themselves: the largest is retrieved."""

    def scores(self, logits: Tensor) -> Tensor:
        """(row, prototype) · cosine · -1 to 1."""
        return logits.float()


def nearest(vectors: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine of each vector (B, z) to each prototype (T, z), and the nearest prototype (B, 1)."""
    cosines = functional.normalize(vectors.float(), dim=-1) @ functional.normalize(prototypes.float(), dim=-1).T
    return cosines, cosines.argmax(dim=-1, keepdim=True)


@dataclass(eq=False)
class RetrieverTap(Tap):
    """The retriever's output, compared with the prototypes as the model's own retrieval does."""

    unit: str = "prompt"
    owner: nn.Module | None = field(default=None, repr=False)

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> RetrieverTap | None:
        """The tap of a retriever, or None where no model with prototypes is around."""
        owner = next((each for each in ancestors if hasattr(each, "prototypes") and hasattr(each, "adapted")), None)
        if owner is None:
            return None
        note = NOTES[owner.config.adapter_source]
        return cls(experts=module, router=module, block=module, owner=owner, note=note)

    @property
    def prototypes(self) -> Tensor:
        """(T, z), as the model holds them now."""
        return self.owner.prototypes.weight.detach()  # type: ignore[union-attr]

    def completed(self, facts: LayerFacts) -> LayerFacts:
        """One layer, whose experts are the prototypes, by the names of their tasks."""
        names = [str(each) for each in self.owner.config.tasks]  # type: ignore[union-attr]
        return replace(
            facts,
            label="retriever",
            number=0,
            stack="model",
            n_experts=len(names),
            n_shared_experts=0,
            top_k=1,
            score_function="cosine",
            weights_normalized=False,
            scale=1.0,
            expert_names=names,
        )

    def known_rule(self) -> SelectionRule:
        """The cosines themselves."""
        return CosineRule("cosine")

    def attach(self, emit: Emit) -> list[Handle]:
        """One hook, on the retriever."""

        def read(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if self.must_look_away():
                return
            vectors = output.detach()
            cosines, found = nearest(vectors, self.prototypes)
            ones = torch.ones_like(found, dtype=torch.float32)
            self.deliver(emit, Reading(ids=found, weights=ones, logits=cosines, vector=vectors))

        return [self.router.register_forward_hook(read)]

    def attach_witness(self, report: ReportReplay) -> list[Handle]:
        """One hook: instance vectors made again from the encoder's output, and their retrieval in double precision."""
        kept: dict[str, Reading] = {}

        def keep_reading(reading: Reading) -> None:
            kept["reading"] = reading

        def replay(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if self.must_look_away() or "reading" not in kept:
                return
            encoded, mask = (each.detach() for each in args[:2])
            with self.replay_quietly():
                report(self.compared(kept.pop("reading"), encoded, mask))

        return [*self.watch(keep_reading), self.router.register_forward_hook(replay)]

    def compared(self, reading: Reading, encoded: Tensor, mask: Tensor) -> Replay:
        """How far vectors and retrieval are from what the recorded ones say.

        Compared are the vectors, text by text without their padding, the cosines of the recorded vectors, and whether
        the recorded prototype is as near as the nearest.
        """
        assert reading.vector is not None
        assert reading.logits is not None
        texts = [text[real.bool()].mean(dim=0) for text, real in zip(encoded, mask, strict=True)]
        made = self.router.process(torch.stack(texts)).double()
        recorded, prototypes = reading.vector.double(), self.prototypes.double()
        # Divided by hand, with the sums written out: no library function that the recording used as well.
        cosines = torch.einsum("bz,tz->bt", recorded, prototypes)
        cosines = cosines / recorded.norm(dim=1)[:, None] / prototypes.norm(dim=1)[None]
        length = recorded.norm(dim=1).mean() + torch.finfo(torch.float32).tiny
        off = [
            (made - recorded).norm(dim=1).max() / length,
            (cosines - reading.logits).abs().max(),
            (cosines.amax(dim=1) - cosines.gather(1, reading.ids)[:, 0]).max(),
        ]
        return Replay(torch.stack([each.float() for each in off]).max(), encoded.dtype)
