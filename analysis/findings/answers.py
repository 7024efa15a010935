"""Experts that prompts answered right choose more, or less, than prompts of the same task answered wrong."""

from __future__ import annotations

import numpy as np

from analysis.correctness import correctness_link
from analysis.findings.finding import Family, Finding, p_text
from routing.selection import Selection, expert_name
from routing.trace import RoutingTrace

__all__ = ["right_answers"]

SMALLEST_RATIO = 1.25
FEWEST = 10


def right_answers(trace: RoutingTrace, *, seed: int) -> Family | None:
    """One question an expert (`correctness_link`): within tasks, does its use go with the score of the answer?

    Only tokens that were read count: what is written differs between right and wrong answers anyway.
    """
    if trace.level == "counts" or not np.isfinite(trace.prompts["score"].to_numpy(dtype=float)).any():
        return None
    table = correctness_link(trace, seed=seed).reset_index(drop=True)
    if table.empty or min(table["n_one"].max(), table["n_other"].max()) < FEWEST:
        return None
    candidates = []
    for number, row in enumerate(table.to_dict("records")):
        right, wrong = float(row["rate_one"]), float(row["rate_other"])
        low, high = float(row["difference_low"]), float(row["difference_high"])
        more, less = max(right, wrong), min(right, wrong)
        # A score that does not go with right and wrong, or an interval that holds none at all, is no finding.
        if not (low > 0 or high < 0) or row["r"] * row["difference"] <= 0 or more < SMALLEST_RATIO * less:
            continue
        label, expert = str(row["layer"]), int(row["expert"])
        sure = low if low > 0 else -high
        finding = Finding(
            kind="answers",
            sentence=(
                f"Within tasks, prompts answered {'right' if low > 0 else 'wrong'} choose "
                f"{expert_name(label, expert, names=trace.expert_names)} more: {more:.1%} of the {trace.unit}s read "
                f"against {less:.1%} of those answered {'wrong' if low > 0 else 'right'}, "
                f"{100 * (more - less):.1f} [{100 * sure:.1f}, {100 * max(abs(low), abs(high)):.1f}] points."
            ),
            effect=float(row["difference"]),
            effect_low=low,
            effect_high=high,
            unit=f"share of {trace.unit}s, right − wrong",
            strength=float(np.clip(sure / more, 0.0, 1.0)),
            p_value=float(row["p_value"]),
            uncertainty=(
                f"95 % interval over prompts; p {p_text(float(row['p_value']))} against scores dealt within tasks"
            ),
            view="tasks",
            selection_query=Selection(experts=((label, expert),)).to_query(),
            options={"part": "answers"},
        )
        candidates.append((number, finding))
    return Family(kind="answers", p_values=table["p_value"].to_numpy(float), candidates=candidates)
