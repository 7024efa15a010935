"""docs/families.md says what the table says and what the checks found."""

from __future__ import annotations

import importlib

import transformers

from tests.hooks import test_families
from tests.hooks.families_page import CHECKS, PAGE, page, stored_results
from tests.hooks.family_table import FAMILIES
from tests.hooks.system_rows import SYSTEM_CHECKS, SYSTEM_ROWS


def test_the_page_is_the_one_that_the_table_and_the_results_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(stored_results()), "run python tests/hooks/write_families.py"


def test_every_check_is_explained() -> None:
    assert set(CHECKS) == {name for name in vars(test_families) if name.startswith("test_")}


def test_the_results_are_those_of_this_table_and_this_transformers() -> None:
    """Every family that runs was asked every check it is not excused from, and passed."""
    found = stored_results()[transformers.__version__]["families"]
    expected = {
        family.name: dict.fromkeys((check for check in CHECKS if check not in family.without), "passed")
        for family in FAMILIES
        if family.runs
    }
    assert found == expected


def test_every_check_of_our_systems_is_there() -> None:
    for named in {*SYSTEM_CHECKS, *(test for *_, test in SYSTEM_ROWS)}:
        module, name = named.split(".")
        assert callable(getattr(importlib.import_module(f"tests.hooks.{module}"), name))
