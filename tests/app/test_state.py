from __future__ import annotations

from app import state

BEFORE = {"run": "even", "tasks": "spans,facts", "experts": "L02.E3"}


def chips(page) -> list[str]:
    return [button.label for button in page.button if (button.key or "").startswith("chip_")]


def late(page):
    """What the browser sends when it asked for a run before it showed what the last click wrote."""
    page.query_params.clear()
    for name, value in BEFORE.items():
        page.query_params[name] = value
    return page


def test_a_run_with_the_url_of_before_a_click_shows_what_the_click_left(open_app):
    page = open_app("load", BEFORE)
    page.button(key="chip_0").click().run()
    late(page).run()
    assert chips(page) == ["facts ✕", "L02·E3 ✕"]


def test_a_click_with_the_url_of_before_another_counts_from_the_other(open_app):
    page = open_app("load", BEFORE)
    page.button(key="chip_0").click().run()
    late(page).button(key="chip_1").click().run()
    assert chips(page) == ["facts ✕"]
    assert page.query_params["tasks"] == "facts"
    assert "experts" not in page.query_params


def test_undoing_a_click_at_once_is_no_late_run(open_app):
    page = open_app("load", BEFORE)
    page.button(key="chip_0").click().run()
    page.button(key="undo").click().run()
    assert chips(page) == ["spans ✕", "facts ✕", "L02·E3 ✕"]
    assert page.query_params["tasks"] == "spans,facts"


def test_the_url_of_before_is_meant_once_it_can_no_longer_be_late(open_app, monkeypatch):
    page = open_app("load", BEFORE)
    page.button(key="chip_0").click().run()
    monkeypatch.setattr(state, "_STALE_SECONDS", 0.0)
    late(page).run()
    assert chips(page) == ["spans ✕", "facts ✕", "L02·E3 ✕"]
