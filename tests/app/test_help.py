"""The help beside every page: a tour in four steps, and the keys."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.components.guide import TOUR_VARIABLE
from app.help import KEYS, tour
from app.view_list import VIEWS
from tests.app.conftest import Opened


def told_to_the_guide(open_app: Opened) -> dict[str, Any]:
    page = open_app()
    assert not page.exception
    (mounted,) = (each for each in page.sidebar.get("bidi_component") if each.proto.component_name.endswith(".guide"))
    return json.loads(mounted.proto.json)


def test_the_tour_says_in_four_steps_what_a_reader_must_know():
    steps = tour()
    assert len(steps) == 4
    record, selection, chance, where = steps
    assert "every token and every layer" in record.text
    assert "holds in every view" in selection.text
    assert "chance" in chance.text
    questions = {f"{view.title}: {view.question}" for view in VIEWS}
    assert set(where.points) <= questions
    assert len(where.points) >= 5


def test_the_tour_opens_by_itself_unless_it_is_told_not_to(open_app, monkeypatch):
    monkeypatch.delenv(TOUR_VARIABLE, raising=False)
    told = told_to_the_guide(open_app)
    assert told["unasked"] is True
    assert len(told["steps"]) == 4
    monkeypatch.setenv(TOUR_VARIABLE, "off")
    assert told_to_the_guide(open_app)["unasked"] is False


@pytest.mark.parametrize("pressed", ["←", "↑", "Home", "Enter", "Esc", "Tab"])
def test_the_keys_are_listed(pressed):
    assert any(pressed in each.keys for each in KEYS)
