"""Scores of an answer against what was wanted."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

__all__ = ["answer_score", "exact_match", "first_line", "normalized_answer", "token_f1"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized_answer(text: str) -> str:
    """The text in lower case, without punctuation, English articles and surplus white space.

    References:
        Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (its evaluation script).
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Whether the prediction equals any of the answers once both are normalized.

    Returns:
        scalar · hit or miss · 0 or 1.
    """
    return float(any(_kept(prediction) == _kept(answer) for answer in answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Harmonic mean of the precision and recall of normalized words; the best over the answers.

    Returns:
        scalar · share · 0 to 1.

    References:
        Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (its evaluation script).
    """
    return max((_f1(_kept(prediction).split(), _kept(answer).split()) for answer in answers), default=0.0)


def answer_score(metric: str, prediction: str, answers: Sequence[str]) -> float:
    """The prediction's score by a task's metric; NaN where the metric is "none" or no answer is known.

    Returns:
        scalar · share · 0 to 1, or NaN.
    """
    if metric == "none" or not answers:
        return float("nan")
    return token_f1(prediction, answers) if metric == "token_f1" else exact_match(prediction, answers)


def first_line(text: str) -> str:
    """The first line that holds anything: base models go on writing after they have answered."""
    return text.strip().split("\n", 1)[0].strip()


def _kept(text: str) -> str:
    # Normalization may leave nothing ("the", "?!"); then the text itself is compared.
    return normalized_answer(text) or " ".join(text.lower().split())


def _f1(predicted: list[str], wanted: list[str]) -> float:
    if not predicted or not wanted:
        return float(predicted == wanted)
    n_common = sum((Counter(predicted) & Counter(wanted)).values())
    if not n_common:
        return 0.0
    precision, recall = n_common / len(predicted), n_common / len(wanted)
    return 2 * precision * recall / (precision + recall)
