"""Which findings are said: one false-discovery rate over all that was asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from analysis.findings.finding import Family, Finding
from analysis.nulls import q_values

__all__ = ["LEVEL", "MOST_OF_A_KIND", "ranked"]

LEVEL = 0.05
"""False-discovery rate of the list; the chance that a trace without any effect has a finding at all."""

MOST_OF_A_KIND = 3


def ranked(families: Iterable[Family], *, level: float = LEVEL) -> list[Finding]:
    """The findings that hold up, the strongest first, with their `q_value`.

    Families differ in how much they ask: thousands of cells here, a single question there. Pooled, the few would drown
    in the many, so the control has two steps. A family's own p-value is that of Simes, the least q-value of its
    questions; families are chosen by Benjamini–Hochberg at `level`. Within the R chosen of M families, questions are
    called at `level` × R / M. So a trace in which nothing is true has any finding with probability `level` at most, and
    of what is said about the chosen families a share of `level` is expected to be false.

    What is called and has a sentence is ranked by `strength`; of one kind the three strongest are kept.

    Args:
        families: of questions.
        level: false-discovery rate.

    Returns:
        (finding) · list of Finding · strength descending.

    References:
        Simes 1986; Benjamini & Hochberg 1995; Benjamini & Bogomolov 2014, "Selective inference on multiple families".
    """
    asked = [family for family in families if np.isfinite(family.p_values).any()]
    own_q = [q_values(np.asarray(family.p_values, dtype=float)) for family in asked]
    chosen = q_values(np.array([np.nanmin(each) for each in own_q])) <= level
    penalty = len(asked) / max(1, int(chosen.sum()))
    found = []
    for family, q, is_chosen in zip(asked, own_q, chosen, strict=True):
        if not is_chosen:
            continue
        said = [
            replace(finding, q_value=float(q[number] * penalty))
            for number, finding in family.candidates
            if q[number] * penalty <= level
        ]
        found += sorted(said, key=lambda finding: -finding.strength)[:MOST_OF_A_KIND]
    return sorted(found, key=lambda finding: -finding.strength)
