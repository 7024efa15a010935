"""The text of docs/families.md, from the family table and from what the checks found in each version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.hooks.families import Family
from tests.hooks.families_remarks import CASES, DEFECTS
from tests.hooks.family_table import EXCLUDED, FAMILIES
from tests.hooks.system_rows import SYSTEM_CHECKS, SYSTEM_ROWS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "families.md"
RESULTS = Path(__file__).with_name("family_results.json")

CHECKS = {
    "test_facts": "the learned rule, shared experts, zero experts and labels are those of the library's source",
    "test_ids_and_weights": "shapes; the recorded experts are the best by the selection scores",
    "test_weights_follow_from_logits": "the recorded weights follow from the recorded logits",
    "test_logits_are_the_routers": "the recorded logits are the product of the router's input and weight",
    "test_replay": "recorded ids and weights, one expert at a time, give the experts' output to 2e-5",
    "test_poison": "an expert made of NaN spoils exactly the rows that were recorded as its own",
    "test_padding": "a text is routed alike alone, padded on the left and padded on the right",
    "test_generate": "generate() with a KV cache routes like teacher forcing",
    "test_innocence": "outputs are bit-identical with taps and without; no hook is left after an exception",
    "test_bfloat16": "the same proof in bfloat16",
    "test_nan_in_the_router_is_refused": "NaN logits are refused by name",
}

HEAD = """# Families

<!-- Written by `python tests/hooks/write_families.py`, which runs tests/hooks/test_families.py with both versions of
transformers and renders tests/hooks/family_table.py with what they found. Do not edit: a test compares. -->

Every family of Mixture-of-Experts models that transformers ships, on a tiny model of its class (hidden 32, 3 layers,
8 experts, top-2, 2 groups, random weights and biases), with torch on a CPU. A family that is not here is refused, and
one that is here is proven again on your own model's first batch: what cannot be proven is refused by name.

Recorded of every router: the experts applied, their weights as the experts were handed them, the whole row of logits.
A forward pre-hook on the experts module gives the first two and a forward hook on the router the last; *reading* says
where it is otherwise. Runners-up come from the selection scores, `rule`, which is learned from the recorded choices.

"""

AFTER = """
## What the checks are

{checks}

Proof is *replay* where the recorded ids and weights explain what the experts returned, and *weights* where the library
does not run the experts that its router names. It is made in every recording, on the first batch, to 2e-3 of a row's
length in float32, 1e-2 in float16 and 3e-2 in bfloat16 (a wrong expert gives about 1).

## Our own systems

The models of `moe_models/`, loaded by `routescope record` from the folders that `save_pretrained` writes. What a layer
generates is never kept row by row: the trace has each distinct adapter once, and the rows name it.

{systems}

Shown on tiny models (hidden 32), from what is on the disk and the modules' own inputs and outputs:

{system_checks}

The first batch of every recording is proven in the same way and to the same tolerance.
Refused by name: an overridden selection embedding, weights that change while adapters are recorded, adapters set before
the recording began, a compiled PHA or Task-level model, a task without a route.

## Kernels, wrappers, modes

{cases}

## Defects of the library, reproduced

{defects}

## Not routing

{excluded}
"""


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    versions = sorted(results, reverse=True)
    lines = [HEAD, _counts(results, versions)]
    lines.append(
        "| family | class | rule | " + " | ".join(f"proven in {version}" for version in versions) + " | reading |\n"
    )
    lines.append("|---" * (4 + len(versions)) + "|\n")
    for family in FAMILIES:
        cells = [family.name, f"`{family.model}`", str(family.rule)]
        cells += [_proven(family, results[version]) for version in versions]
        cells.append(_reading(family))
        lines.append("| " + " | ".join(cells) + " |\n")
    checks = "\n".join(f"- `{name}`: {meaning}." for name, meaning in CHECKS.items())
    excluded = "\n".join(f"- `{name}`: {reason}" for name, reason in EXCLUDED.items())
    cases = _table(("case", "what happens", "shown by"), CASES)
    defects = _table(("family", "version", "defect"), DEFECTS)
    systems = _table(
        ("system", "class", "recorded", "shown by"), [(*row, f"`{_short(test)}`") for *row, test in SYSTEM_ROWS]
    )
    system_checks = "\n".join(f"- `{_short(name)}`: {meaning}." for name, meaning in SYSTEM_CHECKS.items())
    return "".join(lines) + AFTER.format(
        checks=checks,
        cases=cases,
        defects=defects,
        excluded=excluded,
        systems=systems,
        system_checks=system_checks,
    )


def _short(test: str) -> str:
    """File and name of a test, without what all of them begin with."""
    module, name = test.split(".")
    return f"{module}.py::{name}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _counts(results: dict[str, Any], versions: list[str]) -> str:
    lines = []
    for version in versions:
        found = results[version]["families"]
        replayed = [family for family in FAMILIES if family.name in found and family.proof == "replay"]
        poisoned = [family for family in replayed if "test_poison" in found[family.name]]
        weights = [family.name for family in FAMILIES if family.name in found and family.proof == "weights"]
        lines.append(
            f"- transformers {version}: {len(found)} rows run; {len(replayed)} proven by replay, {len(poisoned)} of "
            f"them by poison as well; by weights alone: {', '.join(weights)}.\n"
        )
    return "".join(lines) + "\n"


def _proven(family: Family, result: dict[str, Any]) -> str:
    outcomes = result["families"].get(family.name)
    if outcomes is None:
        reason = next(
            (why for version, why in family.broken.items() if result["transformers"].startswith(version)), None
        )
        return "absent" if reason is None else f"cannot run: {reason}"
    failed = [name for name, outcome in outcomes.items() if outcome != "passed"]
    if failed:
        return "**failed**: " + ", ".join(failed)
    words = [family.proof] + (["poison"] if "test_poison" in outcomes and family.proof == "replay" else [])
    return f"{', '.join(words)} ({len(outcomes)}/{len(CHECKS)})"


def _reading(family: Family) -> str:
    parts = [family.note] if family.note else []
    if family.without:
        excuses = "; ".join(f"`{check}`: {reason}" for check, reason in family.without.items())
        parts.append(f"Not asked: {excuses}.")
    return " ".join(parts)


def stored_results() -> dict[str, Any]:
    """What the checks found when they were last run with each version."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))
