"""No family of the installed transformers that routes is forgotten."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import transformers

from hooks.taps.experts import ROUTING_ARGUMENTS
from tests.hooks.family_table import EXCLUDED, FAMILIES

MODELS = Path(transformers.__file__).parent / "models"
# Names that transformers gives to what routes or is routed to, whatever its signature.
ENDINGS = (
    "Experts",
    "Router",
    "Gating",
    "MoE",
    "Moe",
    "MoEBlock",
    "MoeBlock",
    "MoA",
    "MoeMLP",
    "MoELayer",
    "SparseMLP",
)
WORDS = re.compile("|".join((*(ending + r"\(" for ending in ENDINGS), *ROUTING_ARGUMENTS)))


def routes(modeling: Path) -> bool:
    """Whether a modeling file defines a module that is handed experts, or is named like one that routes."""
    text = modeling.read_text(encoding="utf-8")
    # Parsing all of the library takes half a minute; most files can be told by their words.
    if not WORDS.search(text):
        return False
    for each in ast.parse(text).body:
        if not isinstance(each, ast.ClassDef):
            continue
        forward = next(
            (part for part in each.body if isinstance(part, ast.FunctionDef) and part.name == "forward"), None
        )
        if forward is None:
            continue
        names = [argument.arg for argument in forward.args.args]
        if each.name.endswith(ENDINGS) or ROUTING_ARGUMENTS.intersection(names[2:3]):
            return True
    return False


def test_every_family_that_routes_is_in_the_table_or_excluded_with_a_reason() -> None:
    found = {path.parent.name for path in MODELS.glob("*/modeling_*.py") if routes(path)}
    known = {family.module or family.name for family in FAMILIES} | set(EXCLUDED)
    assert sorted(found - known) == []
    assert len(found) > 50, "the search itself finds the families"


def test_every_row_is_a_family_of_this_transformers() -> None:
    absent = [family.name for family in FAMILIES if not family.present]
    broken = [family.name for family in FAMILIES if family.present and not family.runs]
    if transformers.__version__.startswith("5.17"):
        pytest.skip(f"transformers {transformers.__version__} lacks {absent} and cannot run {broken}")
    assert (absent, broken) == ([], [])


def test_rows_are_told_apart_and_every_excuse_has_a_reason() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    assert all(reason for family in FAMILIES for reason in family.without.values())
