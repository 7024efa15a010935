"""What the run picker offers: runs that are there, recordings that are under way, models that can be recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.recordings.kept import Standing
from app.recordings.models import Model
from app.runs import Run

__all__ = ["Offer", "offers"]


@dataclass(frozen=True)
class Offer:
    """One line of the picker.

    Attributes:
        name: in the URL.
        run: the trace on disk, None where there is none yet.
        model: what recording it anew would record, None where that is not known.
        standing: of the recording that was asked for here, None where none was.
    """

    name: str
    run: Run | None = None
    model: Model | None = None
    standing: Standing | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether it is being recorded now."""
        return self.standing is not None and self.standing.is_alive

    @property
    def label(self) -> str:
        """The line as the picker writes it."""
        if self.is_under_way:
            return f"{self.name} · being recorded"
        return self.name if self.run is not None else f"{self.name} · not recorded yet"


def offers(runs: Sequence[Run], models: Sequence[Model], standings: Sequence[Standing]) -> tuple[Offer, ...]:
    """Everything that can be opened: finished runs as they come, then what is under way, then models."""
    by_name = {run.name: run for run in runs}
    asked = {standing.name: standing for standing in standings}
    known = {model.name: model for model in models}
    under_way = [name for name, standing in asked.items() if standing.is_alive]
    names = [*(name for name in by_name if name not in under_way), *under_way, *known]
    return tuple(
        Offer(name, run=by_name.get(name), model=known.get(name), standing=asked.get(name))
        for name in dict.fromkeys(names)
    )
