"""Scores of answers, and of tasks, whatever model gave the answers."""

import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from .corpus import Row

LONG_TASKS = frozenset(
    {
        "java_to_csharp",
        "medquad_answer",
        "scitldr",
        "sgd_reply",
        "tldr_command",
        "wiki_split",
        "xquad_translate_de",
        "xquad_translate_es",
    }
)
"""Tasks whose answers may take many tokens."""


def scores_by_task(
    rows: Sequence[Row],
    *,
    labels: Mapping[str, Sequence[str]],
    choose: Callable[[list[Row], list[Sequence[str]]], list[str]],
    write: Callable[[list[Row]], list[str]],
) -> dict[str, dict[str, float]]:
    """Return each task's scores on rows, and beside them what always giving the commonest answer scores.

    Tasks with options (their label set, or the row's own) are scored by the option chosen: ``accuracy``. The others by
    the answer written: ``exact_match`` and ``token_f1``, each against the best of the accepted answers.

    Args:
        rows: held-out rows.
        labels: the label set of each task that has one.
        choose: the model's choice for rows of one task, given each row's options.
        write: the model's answers to rows of one task.
    """
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    scores = {}
    for task, its_rows in by_task.items():
        if task in labels or its_rows[0].options:
            chosen = choose(its_rows, [labels.get(task) or row.options for row in its_rows])
            pairs = zip(chosen, its_rows, strict=True)
            scores[task] = {"accuracy": mean([float(answer == row.output) for answer, row in pairs])}
        else:
            pairs = [
                (answer, row.answers or (row.output,)) for answer, row in zip(write(its_rows), its_rows, strict=True)
            ]
            scores[task] = {
                "exact_match": mean([max(exact_match(a, target) for target in targets) for a, targets in pairs]),
                "token_f1": mean([max(token_f1(a, target) for target in targets) for a, targets in pairs]),
            }
        commonest = Counter(row.output for row in its_rows).most_common(1)[0][1]
        scores[task] |= {"majority": commonest / len(its_rows), "n": len(its_rows)}
        if its_rows[0].options:
            scores[task]["chance"] = mean([1 / len(row.options) for row in its_rows])
    return scores


def main_score(scores: Mapping[str, float]) -> float:
    """Return the one number that stands for a task: accuracy, or else token F1."""
    return scores["accuracy"] if "accuracy" in scores else scores["token_f1"]


def exact_match(answer: str, target: str) -> float:
    """Return 1 if answer and target are the same words, case, punctuation and articles aside, else 0."""
    return float(_words(answer) == _words(target))


def token_f1(answer: str, target: str) -> float:
    """Return the harmonic mean of precision and recall of an answer's words, 0 to 1."""
    given, wanted = _words(answer), _words(target)
    shared = sum((Counter(given) & Counter(wanted)).values())
    if not shared:
        return float(given == wanted)
    precision, recall = shared / len(given), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one value."""
    return sum(values) / len(values)


def _words(text: str) -> list[str]:
    plain = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
    # A punctuation-only text keeps its characters: ".de" is an answer, and so is "?".
    return [word for word in plain if word not in {"a", "an", "the"}] or text.lower().split()
