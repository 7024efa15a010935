"""The evaluation set in sample_tasks/ keeps its promises: forms, counts, balance, spans and matched controls."""

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "sample_tasks"
HEADER = json.loads((FOLDER / "tasks.json").read_text(encoding="utf-8"))
TASKS = {task["name"]: task for task in HEADER["tasks"]}
ROWS = {
    name: [json.loads(line) for line in (FOLDER / task["file"]).read_text(encoding="utf-8").splitlines()]
    for name, task in TASKS.items()
}
FEATURES = {"domain", "input_form", "answer_form", "needs", "answer_in_input"}
NAMED = {"entities_news", "entities_social"}
SPAN_QA = ["span_qa_encyclopedia", "span_qa_reviews"]


def of_type(*types: str) -> list[str]:
    return [name for name, task in TASKS.items() if task["task_type"] in types]


def occurrences(span: str, text: str) -> int:
    return len(re.findall(r"(?<!\w)" + re.escape(span) + r"(?!\w)", text))


def test_enough_tasks_of_every_type():
    assert len(TASKS) >= 12
    counts = Counter(task["task_type"] for task in TASKS.values())
    for task_type in ("extractive", "classification", "knowledge"):
        assert counts[task_type] >= 4
    assert {"other", "maths"} <= counts.keys()


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_described_and_has_enough_rows(name):
    task = TASKS[name]
    assert task.keys() == {
        "name", "task_type", "metric", "instruction", "description", "max_new_tokens", "features", "file",
    }  # fmt: skip
    assert task["features"].keys() == FEATURES
    assert all(isinstance(value, str) and value for value in task["features"].values())
    assert 40 <= len(ROWS[name]) <= 48
    assert [row["id"] for row in ROWS[name]] == [f"{name}-{n:02d}" for n in range(1, len(ROWS[name]) + 1)]


@pytest.mark.parametrize("name", TASKS)
def test_rows_hold_clean_text(name):
    for row in ROWS[name]:
        assert row.keys() <= {"id", "input", "output", "answers", "options", "subtask"}
        for text in (row["input"], row["output"], *row.get("answers", ()), *row.get("options", ())):
            assert text
            assert text == text.strip()
            assert unicodedata.is_normalized("NFC", text)
            assert not any(unicodedata.category(char) == "Cc" for char in text.replace("\n", ""))


@pytest.mark.parametrize("name", TASKS)
def test_no_input_occurs_twice(name):
    inputs = [" ".join(row["input"].casefold().split()) for row in ROWS[name]]
    assert len(set(inputs)) == len(inputs)


@pytest.mark.parametrize("name", of_type("extractive"))
def test_what_is_to_be_copied_occurs_exactly_once(name):
    assert TASKS[name]["features"]["answer_in_input"] == "yes"
    for row in ROWS[name]:
        text = re.split(" (?:context|text|utterance): ", row["input"], maxsplit=1)[1]
        spans = row["output"].split("; ") if name in NAMED else [row["output"]]
        assert [occurrences(span, text) for span in spans] == [1] * len(spans), row["id"]
        assert [text.index(span) for span in spans] == sorted(text.index(span) for span in spans)


@pytest.mark.parametrize("name", TASKS)
def test_answers_begin_with_the_output(name):
    for row in ROWS[name]:
        if "answers" in row:
            assert row["answers"][0] == row["output"]
            assert len(set(row["answers"])) == len(row["answers"]) > 1


@pytest.mark.parametrize("name", of_type("classification"))
def test_labels_are_balanced_and_offered_in_every_row(name):
    options = ROWS[name][0]["options"]
    assert 2 <= len(options) == len(set(options)) <= 16
    assert all(row["options"] == options for row in ROWS[name])
    counts = Counter(row["output"] for row in ROWS[name])
    assert counts.keys() == set(options)
    assert len(set(counts.values())) == 1


def test_accuracy_is_the_metric_exactly_where_there_are_options():
    for name, task in TASKS.items():
        assert all(("options" in row) == (task["metric"] == "accuracy") for row in ROWS[name])
        assert task["metric"] in {"accuracy", "exact_match", "token_f1"}


def test_trivia_lists_its_options_and_spreads_the_right_ones():
    places = Counter()
    for row in ROWS["trivia_choice"]:
        assert len(row["options"]) == len(set(row["options"])) == 4
        assert row["input"].split("\noptions: ")[1] == " | ".join(row["options"])
        places[row["options"].index(row["output"])] += 1
    assert min(places[place] for place in range(4)) >= 7


def test_same_task_in_two_domains_is_matched():
    first, second = (TASKS[name] for name in SPAN_QA)
    assert first["instruction"] == second["instruction"]
    assert {key for key in FEATURES if first["features"][key] != second["features"][key]} == {"domain"}
    assert len(ROWS[SPAN_QA[0]]) == len(ROWS[SPAN_QA[1]])
    words = [[len(row["input"].split(" context: ")[1].split()) for row in ROWS[name]] for name in SPAN_QA]
    assert all(max(lengths) <= 90 for lengths in words)
    assert abs(sum(words[0]) - sum(words[1])) / len(words[0]) < 5


def test_same_texts_under_two_tasks_are_matched_and_their_labels_crossed():
    sentiment, subjectivity = ROWS["movie_sentiment"], ROWS["movie_subjectivity"]
    assert [row["input"] for row in sentiment] == [row["input"] for row in subjectivity]
    cells = Counter((one["output"], two["output"]) for one, two in zip(sentiment, subjectivity, strict=True))
    assert len(cells) == 4
    assert len(set(cells.values())) == 1


def test_word_problems_end_in_whole_numbers():
    assert all(re.fullmatch(r"\d+", row["output"]) for row in ROWS["word_problems"])


def test_analogies_have_their_form():
    for name in ("analogy_world", "analogy_morphology"):
        for row in ROWS[name]:
            a, b, c = re.fullmatch(r"(\S+) is to (\S+) as (\S+) is to", row["input"]).groups()
            assert len({a, b, c, row["output"]}) == 4


def test_texts_reach_beyond_ascii():
    scripts = {unicodedata.name(char).split()[0] for row in ROWS["language_id"] for char in row["input"]
               if char.isalpha()}  # fmt: skip
    assert {"LATIN", "GREEK", "CYRILLIC", "ARABIC", "DEVANAGARI", "THAI", "CJK"} <= scripts
    assert any(unicodedata.category(char) == "So" for row in ROWS["entities_social"] for char in row["input"])


def test_the_card_lists_every_task_with_its_count():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name, task in TASKS.items():
        assert f"| {name} | {task['task_type']} | {len(ROWS[name])} | {task['metric']} |" in card
    assert f"{len(TASKS)} tasks, {sum(map(len, ROWS.values()))} prompts" in card
