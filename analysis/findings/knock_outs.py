"""What knock-outs beside the trace say of the experts that stand out: whether a task needs what serves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.findings.finding import Family, Finding, p_text
from analysis.stored_studies import StoredStudy, stored_studies
from routing.selection import Selection
from routing.trace import RoutingTrace

__all__ = ["knocked_out", "with_knock_outs"]

NAME = "knock-out"
MOST_EXPERTS_LINKED = 20


def knocked_out(trace: RoutingTrace, *, seed: int) -> Family | None:  # noqa: ARG001 (families are asked alike)
    """One question a set that is thought to serve a group: does knocking it out cost the group more than others?

    p is the rank among random sets of the same layers, size and load, so that n of them cannot give less than
    1 / (n + 1): with twenty, a study is told beside the expert that it is about (`with_knock_outs`), and seldom alone.
    """
    p_values: list[float] = []
    candidates: list[tuple[int, Finding]] = []
    for study in stored_studies(trace, name=NAME):
        table = study.tables.get("dissociation", pd.DataFrame())
        for row in table.to_dict("records"):
            number = len(p_values)
            p_values.append(float(row["p_value"]))
            if not (row["low"] > 0 and row["inside"] > 0):
                continue
            experts = _experts(study, str(row["set"]))
            finding = Finding(
                kind="knock_out",
                sentence=(
                    f"{row['serves']} needs the experts of “{row['set']}”: without these {len(experts)}, its nll rises "
                    f"by {row['inside']:.2f} nats a token and that of the others by {row['outside']:.2f}, a difference "
                    f"of {row['difference']:.2f} [{row['low']:.2f}, {row['high']:.2f}]."
                ),
                effect=float(row["difference"]),
                effect_low=float(row["low"]),
                effect_high=float(row["high"]),
                unit="nats a token",
                # Of each token's likelihood, the share that goes with the experts.
                strength=float(1 - np.exp(-row["low"])),
                p_value=float(row["p_value"]),
                uncertainty=(
                    f"95 % interval over prompts; p {p_text(float(row['p_value']))} among {int(row['n_random'])} "
                    "random sets of the same layers, size and load"
                ),
                view="causes",
                selection_query=Selection(experts=experts[:MOST_EXPERTS_LINKED]).to_query(),
            )
            candidates.append((number, finding))
    return Family(kind="knock_out", p_values=np.array(p_values), candidates=candidates) if p_values else None


def with_knock_outs(trace: RoutingTrace, found: Sequence[Finding]) -> list[Finding]:
    """The findings, those of an expert that was knocked out with what that cost the task or type that it serves."""
    studies = stored_studies(trace, name=NAME)
    return [replace(each, sentence=each.sentence + _cost(each, studies)) for each in found]


def _cost(finding: Finding, studies: Sequence[StoredStudy]) -> str:
    if finding.kind not in ("specialist", "task_type"):
        return ""
    serves = finding.sentence.split(" serves ", 1)[1]
    expert = finding.selection_query.get("experts", "")
    for study in studies:
        effects = study.tables.get("effects", pd.DataFrame())
        for row in effects.to_dict("records"):
            group = str(row["group"])
            is_it = serves.startswith((f"{group}:", f"{group} tasks:"))
            experts = _experts(study, str(row["set"]))
            if not is_it or expert not in [Selection(experts=(each,)).to_query()["experts"] for each in experts]:
                continue
            alone = "knocking it out" if len(experts) == 1 else f"knocking it out, with {len(experts) - 1} more,"
            random = (
                f", matched random sets {row['random_mean']:.2f} [{row['random_low']:.2f}, {row['random_high']:.2f}]"
                if np.isfinite(row["random_mean"])
                else ""
            )
            change = f"{row['nll_change']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
            return f" {alone[0].upper()}{alone[1:]} costs {group} {change} nats a token{random}."
    return ""


def _experts(study: StoredStudy, name: str) -> tuple[tuple[str, int], ...]:
    table = study.tables.get("sets", pd.DataFrame(columns=["set", "random", "layer", "expert"]))
    chosen = table[(table["set"] == name) & (table["random"] == 0)]
    return tuple((str(layer), int(expert)) for layer, expert in zip(chosen["layer"], chosen["expert"], strict=True))
