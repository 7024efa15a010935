"""Scores by hand."""

from __future__ import annotations

import math

import pytest

from hooks.scoring import answer_score, exact_match, first_line, normalized_answer, token_f1


def test_normalization_is_that_of_squad() -> None:
    assert normalized_answer("  The  Eiffel-Tower, in a park! ") == "eiffeltower in park"


@pytest.mark.parametrize(
    "prediction, answers, expected",
    [
        (" Paris", ("paris",), 1),
        ("the Paris.", ("Lyon", "Paris"), 1),
        ("Paris, France", ("Paris",), 0),
        ("", ("Paris",), 0),
    ],
)
def test_exact_match_is_of_any_answer_once_normalized(prediction: str, answers: tuple[str, ...], expected: int) -> None:
    assert exact_match(prediction, answers) == expected


def test_what_normalization_would_erase_is_compared_as_it_is() -> None:
    assert exact_match("the", ("the",)) == 1
    assert exact_match("the", ("a",)) == 0  # both are articles, and not the same
    assert exact_match("?", ("!",)) == 0


def test_f1_counts_words_in_common() -> None:
    # predicted {river, nile, long}, wanted {nile, river}: 2 in common, precision 2/3, recall 2/2 → F1 = 4/5
    assert token_f1("the river Nile long", ("Nile river",)) == pytest.approx(4 / 5)
    # a word counts as often as it stands in both: common = 1, precision 1/3, recall 1 → 1/2
    assert token_f1("no no no", ("no",)) == pytest.approx(1 / 2)
    assert token_f1("nothing", ("alike",)) == 0
    assert token_f1("Nile", ("Amazon river", "Nile")) == 1  # the best answer counts


def test_a_task_without_metric_or_answer_has_no_score() -> None:
    assert math.isnan(answer_score("none", "x", ("x",)))
    assert math.isnan(answer_score("exact_match", "x", ()))
    assert answer_score("accuracy", "Yes", ("yes",)) == 1
    assert answer_score("token_f1", "a b c", ("b d",)) == pytest.approx(1 / 2)  # "a" is an article: {b, c} and {b, d}


def test_the_first_line_that_holds_anything_is_the_answer() -> None:
    assert first_line("\n\n  Paris \nQuestion: and then?") == "Paris"
    assert first_line("") == ""
