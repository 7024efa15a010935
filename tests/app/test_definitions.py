from __future__ import annotations

import ast
from pathlib import Path

import pytest

from app.definitions import definition_of, definitions

APP = Path(__file__).parents[2] / "app"


def names_in_the_app() -> set[str]:
    """Every text that some call passes as `definitions=`, or that a table of definitions holds."""
    found: set[str] = set()
    for source in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            given = None
            if isinstance(node, ast.keyword) and node.arg in ("definitions", "definition"):
                given = node.value
            elif isinstance(node, ast.Assign) and "_DEFINITIONS" in ast.unparse(node.targets[0]):
                given = (
                    ast.Tuple([ast.Tuple([each]) for each in node.value.values])
                    if hasattr(node.value, "values")
                    else None
                )
            if given is not None:
                found |= {
                    each.value
                    for each in ast.walk(given)
                    if isinstance(each, ast.Constant) and isinstance(each.value, str)
                }
    return found


def test_every_definition_that_a_view_asks_for_is_written():
    names = names_in_the_app()
    assert {"lift", "expert_load", "load_balance", "feature_correlation"} <= names
    assert sorted(name for name in names if definition_of(name) is None) == []


def test_a_definition_is_its_section_and_no_more():
    text = definition_of("expert_load")
    assert text.startswith("**expert_load**")
    assert "c_e / (T k)" in text
    assert "activation_rate**" not in text
    assert "\n#" not in text


@pytest.mark.parametrize("name", ["there is no such metric", ""])
def test_what_is_not_defined_has_no_definition(name):
    assert definition_of(name) is None or name == ""


def test_headings_are_found_whatever_their_case():
    assert definition_of("Expert Load") == definition_of("expert_load")
    assert len(definitions()) > 20
