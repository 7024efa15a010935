"""Addresses that ask for another run beside the one that is open, which is not here any more."""

from __future__ import annotations

import pytest

from tests.app.conftest import text_of


@pytest.mark.parametrize(
    ("view", "query"),
    [
        ("compare", {"other": "gone"}),
        ("load", {"base": "gone"}),
        ("map", {"base": "gone", "layout": "pca"}),
        ("tokens", {"base": "gone", "shade": "change"}),
    ],
)
def test_a_run_that_is_gone_is_told(open_app, view, query):
    page = open_app(view, {"run": "even"} | query)
    assert not page.exception
    assert "There is no run named “gone” here to compare with." in text_of(page)
    # The run itself is there, and nothing is said of it where the same name stays in the address.
    kept = {name: "even" if value == "gone" else value for name, value in query.items()}
    assert "There is no run named" not in text_of(open_app(view, {"run": "even"} | kept))


def test_ties_that_no_number_names_leave_those_to_choose_from(open_app):
    page = open_app("unselected", {"run": "even", "tie": "nan"})
    assert not page.exception
    (ties,) = (each for each in page.button_group if each.key == "choice_tie")
    assert [each.content for each in ties.proto.options] == ["0\\.001", "0\\.005", "0\\.01", "0\\.05"]
