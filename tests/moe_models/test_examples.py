import pytest
import torch

from moe_models.recipes.corpus import Row
from moe_models.recipes.examples import IGNORED, MixedBatches, encoded_examples, even_copies, few_of_each
from moe_models.recipes.tokenization import train_text_to_text_tokenizer

ROWS = [Row(task="subjectivity", input=f"film {n}", output="objective") for n in range(6)]
ROWS += [Row(task="blimp", input=f"tree {n}", output="sentence 1") for n in range(2)]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer():
    return train_text_to_text_tokenizer([row.input for row in ROWS], vocab_size=320, context_length=64, n_sentinels=4)


def encoded(tokenizer, rows=ROWS, **options):
    told = {"tasks": ("subjectivity", "blimp"), "source_length": 96, "target_length": 16, "device": CPU} | options
    return encoded_examples(rows, tokenizer, **told)


def test_an_example_is_prompt_and_answer(tokenizer):
    examples = encoded(tokenizer)
    batch = examples.batch(torch.tensor([0, 6]))
    for row, number in enumerate((0, 6)):
        source = batch["input_ids"][row, : batch["attention_mask"][row].sum()]
        rest = batch["input_ids"][row, batch["attention_mask"][row].sum() :]
        instruction = ("Is the sentence subjective or objective?", "Which sentence is grammatical?")[row]
        assert tokenizer.decode(source) == f"{instruction}\n{ROWS[number].input}\nanswer:"
        assert (rest == tokenizer.pad_token_id).all()
        written = batch["labels"][row][batch["labels"][row] != IGNORED]
        assert tokenizer.decode(written) == f" {ROWS[number].output}{tokenizer.eos_token}"
    assert batch["task_ids"].tolist() == [0, 1]


def test_without_its_instruction_a_prompt_is_the_input(tokenizer):
    examples = encoded(tokenizer, instruction=False)
    source = examples.source[0, : examples.source_length[0]]
    assert tokenizer.decode(source) == "film 0\nanswer:"


def test_a_long_source_keeps_its_mark_and_a_lost_answer_leaves_the_row_out(tokenizer):
    text = "word " * 40
    early = Row(task="blimp", input=f"apple {text}", output="apple")
    late = Row(task="blimp", input=f"{text} apple", output="apple")
    label = Row(task="blimp", input=text, output="sentence 2")
    examples = encoded(tokenizer, [early, late, label])
    assert [row.output for row in examples.rows] == ["apple", "sentence 2"]
    assert tokenizer.decode(examples.source[0, : examples.source_length[0]]).endswith("\nanswer:")
    assert examples.source_length.max() == 96


def test_smaller_draws_begin_larger_ones_whatever_other_tasks_there_are():
    small, large = few_of_each(ROWS, n=2, seed=3), few_of_each(ROWS, n=4, seed=3)
    its = [row for row in large if row.task == "subjectivity"]
    assert [row for row in small if row.task == "subjectivity"] == its[:2]
    alone = few_of_each([row for row in ROWS if row.task == "subjectivity"], n=4, seed=3)
    assert alone == its
    assert few_of_each(ROWS, n=4, seed=4) != large
    assert len(few_of_each(ROWS, n=None, seed=0)) == 8


def test_an_epoch_has_every_example_and_a_step_is_always_the_same(tokenizer):
    examples = encoded(tokenizer)
    batches = MixedBatches(examples, n_examples=4, seed=0)
    lengths = [batches[step]["input_ids"].tolist() for step in range(2)]
    assert sorted(sum(lengths, [])) == sorted(examples.source.tolist())
    again = MixedBatches(examples, n_examples=4, seed=0)
    assert torch.equal(again[5]["input_ids"], batches[5]["input_ids"])
    assert torch.equal(batches[0]["input_ids"], again[0]["input_ids"])


def test_copies_even_out_tasks(tokenizer):
    examples = encoded(tokenizer)
    # 6 rows and 2: to the power 0 both have 6 an epoch; to the power 1 they stay.
    assert even_copies(examples, power=0.0) == [1] * 6 + [3] * 2
    assert even_copies(examples, power=1.0) == [1] * 8
    assert (
        MixedBatches(examples, n_examples=12, seed=0, copies=even_copies(examples, power=0.0))[0]["task_ids"].sum() == 6
    )
