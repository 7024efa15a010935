"""Maps kept beside a trace: written once, read as they were."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.projection import Projection
from analysis.quality import MapQuality
from routing.store.derived import load_derived, save_derived
from routing.trace import RoutingTrace

__all__ = ["keep_map", "kept_map"]


def keep_map(trace: RoutingTrace, made: Projection, *, name: str, params: dict[str, Any]) -> None:
    """Keep a map beside a trace, under a name and what it depends on."""
    facts = {
        "method": made.method,
        "options": _without_nan(made.options),
        "quality": _without_nan(vars(made.quality)),
        "note": made.note,
    }
    save_derived(trace, name, {"points": made.points, "facts": facts}, params=params)


def kept_map(trace: RoutingTrace, *, name: str, params: dict[str, Any]) -> Projection | None:
    """The map that was kept under this name with these parameters; None where there is none.

    Returns:
        (item) · Projection of positions without unit · any.
    """
    kept = load_derived(trace, name, params=params)
    if kept is None:
        return None
    points, facts = kept["points"], kept["facts"]
    if not isinstance(points, pd.DataFrame):
        return None
    return Projection(
        points=points,
        method=facts["method"],
        options=_with_nan(facts["options"]),
        quality=MapQuality(**_with_nan(facts["quality"])),
        note=facts["note"],
    )


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """For JSON, which has no NaN."""
    return {name: None if value != value else value for name, value in values.items()}


def _with_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {name: float("nan") if value is None else value for name, value in values.items()}
