import pytest

from moe_models.recipes.corpus import (
    INSTRUCTIONS,
    Row,
    completion_of,
    held_out_inputs,
    label_sets,
    normalized_text,
    prompt_of,
    read_manifest,
    read_rows,
    trainable_rows,
)
from tests.moe_models.small_corpus import write_corpus


def test_a_prompt_is_instruction_input_and_answer_mark():
    row = Row(task="banking77", input="Where is my card?", output="card arrival")
    assert prompt_of(row) == "Name the banking request.\nWhere is my card?\nanswer:"
    assert completion_of(row.output) == " card arrival"


def test_options_of_the_row_are_shown_in_the_prompt():
    row = Row(task="opentrivia", input="Which is a fruit?", output="fig", options=("fig", "fog"))
    assert prompt_of(row) == "Answer the trivia question.\nWhich is a fruit?\noptions: fig | fog\nanswer:"


def test_every_instruction_is_one_line():
    assert all("\n" not in text and text[-1] in ".?" for text in INSTRUCTIONS.values())


def test_rows_that_give_a_held_out_row_away_are_not_trained_on():
    rows = [
        Row(task="a", input="Held out  TEXT", output="x", split="dev"),
        Row(task="a", input="held out text", output="y"),  # the same input, train
        Row(task="b", input="something else", output="A sentence that b translates to German", split="train"),
        Row(task="c", input="A sentence that b translates to German", output="English", split="test"),
        Row(task="d", input="free", output="held out text"),  # a short label may read like an input
        Row(task="d", input="free too", output="x"),
    ]
    kept, n_dropped = trainable_rows(rows)
    assert [row.input for row in kept] == ["free", "free too"]
    assert n_dropped == 2


def test_reading_keeps_splits_apart(tmp_path):
    folder = write_corpus(tmp_path / "corpus")
    rows, facts = read_rows(folder), read_manifest(folder)
    assert {row.split for row in rows} == {"train", "dev", "test"}
    assert label_sets(rows, facts=facts) == {"subjectivity": ("objective", "subjective")}
    held_out = held_out_inputs(rows)
    kept, _ = trainable_rows(rows)
    assert not any(normalized_text(row.input) in held_out for row in kept)


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no task corpus\. Pass the folder"):
        read_rows(tmp_path)


def test_an_unknown_split_is_refused(tmp_path):
    folder = write_corpus(tmp_path / "corpus", n_rows=5)
    import gzip

    path = folder / "tasks" / "subjectivity.jsonl.gz"
    with gzip.open(path, "wt") as lines:
        lines.write('{"input": "a", "output": "b", "split": "trian"}\n')
    with pytest.raises(ValueError, match=r"split 'trian'.*Correct the row"):
        read_rows(folder)
