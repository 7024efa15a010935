import numpy as np
import pytest

from moe_models.recipes.augmentation import Augmenter
from moe_models.recipes.batches import encoded_documents, packed
from moe_models.recipes.cloze import cloze, sentences_of
from moe_models.recipes.corpus import (
    Row,
    completion_of,
    held_out_inputs,
    normalized_text,
    prompt_of,
    read_manifest,
    read_rows,
    trainable_rows,
)
from moe_models.recipes.documents import Documents
from moe_models.recipes.facts import Restater
from moe_models.recipes.schedule import Schedule
from moe_models.recipes.tokenization import END, PADDING, train_tokenizer
from tests.moe_models.small_corpus import write_corpus


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return read_rows(write_corpus(tmp_path_factory.mktemp("data") / "corpus"))


@pytest.fixture(scope="module")
def tokenizer(rows):
    texts = [prompt_of(row) + completion_of(row.output) for row in rows if row.split == "train"]
    return train_tokenizer(texts, vocab_size=400, context_length=64)


def test_a_made_up_question_is_answered_by_its_context_and_does_not_hold_the_answer():
    passage = (
        "The Great Fire of Lindon broke out in 1672 in a bakery near the bridge. It burned for four days, and the "
        "mayor Thomas Blood was blamed by many people. After the fire, new streets were built of brick and stone."
    )
    random = np.random.default_rng(0)
    made = [cloze(sentences_of(passage), random=random, most_sentences=2) for _ in range(200)]
    made = [question for question in made if question]
    assert len(made) > 150
    assert len({question.question for question in made}) > 100
    for question in made:
        assert question.answer in question.context
        assert question.answer.lower() not in question.question.lower()


def test_sentences_join_to_the_passage():
    passage = "One is here. Two is there! Is three? Yes."
    assert " ".join(sentences_of(passage)) == passage
    assert len(sentences_of(passage)) == 4


def test_swapped_entities_stand_in_the_text_in_the_answers_order():
    rows = [
        Row(task="t", input=f"find: per text: {name} saw {other} .", output=f"{name}; {other}")
        for name, other in [("Ann", "Bob"), ("Cleo Day", "Eve"), ("Finn", "Gus Hill")]
    ]
    augmenter, random = Augmenter(rows), np.random.default_rng(1)
    variants = [augmenter.variant(rows[0], random=random, ease=0.5) for _ in range(100)]
    assert len({variant.output for variant in variants}) > 5
    for variant in variants:
        text, start = variant.input.split(" text: ")[1], 0
        for entity in variant.output.split("; "):
            start = text.index(entity, start) + len(entity)


def test_a_swapped_answer_is_copied_from_the_changed_context(rows):
    spans = [row for row in rows if row.task == "squad_dev" and row.split == "train"]
    augmenter, random = Augmenter(spans), np.random.default_rng(2)
    variants = [augmenter.variant(spans[0], random=random, ease=0.5) for _ in range(100)]
    assert any(variant.output != spans[0].output for variant in variants)
    assert all(variant.output in variant.input.split(" context: ")[1] for variant in variants)


def test_facts_are_restated_from_train_rows_and_never_as_a_held_out_question():
    train = [
        Row(task="country_facts", input="Paris is the capital of which country?", output="France"),
        Row(task="country_facts", input="What is the internet domain of France?", output=".fr"),
        Row(task="country_facts", input="What is the capital of Spain?", output="Madrid"),
    ]
    held_out = frozenset({normalized_text("What is the capital of France?")})
    restater, random = Restater(train, held_out=held_out), np.random.default_rng(3)
    said = [restater.restatement(kind, random=random) for kind in restater.kinds for _ in range(100)]
    pairs = {(row.input, row.output) for row in said if row}
    assert ("Madrid is the capital of which country?", "Spain") in pairs
    assert any(question == "Describe France." and "capital: Paris" in answer for question, answer in pairs)
    assert not any(normalized_text(question) in held_out for question, _ in pairs)


def test_no_document_is_a_dev_or_test_row(rows):
    kept, _ = trainable_rows(rows)
    held_out = held_out_inputs(rows)
    schedule = Schedule(n_steps=100)
    # Facts of a corpus's own manifest are not needed to draw.
    documents = Documents(kept, facts={}, held_out=held_out, schedule=schedule)
    random = np.random.default_rng(4)
    drawn = [documents.document(step, random=random) for step in range(100) for _ in range(20)]
    assert not any(normalized_text(row.input) in held_out for row in drawn)
    held_out_answers = {row.output for row in rows if row.task == "country_facts" and row.split != "train"}
    said = " ".join(row.input + row.output for row in drawn if row.task == "country_facts")
    assert not any(answer in said for answer in held_out_answers)


def test_the_manifest_names_types(tmp_path):
    facts = read_manifest(write_corpus(tmp_path / "corpus", n_rows=5))
    assert facts["squad_dev"].task_type == "extractive"
    assert facts["squad_dev"].licence == "CC0-1.0"


def test_tokens_spell_the_text_and_end_with_the_end_token(tokenizer):
    [(tokens, n_read)] = encoded_documents([("a prompt\nanswer:", " naïve 🙂")], tokenizer, most_tokens=64)
    assert tokenizer.decode(tokens[:n_read]) == "a prompt\nanswer:"
    assert tokenizer.decode(tokens[n_read:]) == f" naïve 🙂{END}"
    assert tokenizer.pad_token == PADDING


def test_a_long_prompt_loses_its_middle_and_keeps_mark_and_completion(tokenizer):
    [(tokens, n_read)] = encoded_documents([("x y " * 200 + "\nanswer:", " z")], tokenizer, most_tokens=64)
    assert len(tokens) == 64
    assert tokenizer.decode(tokens[:n_read]).endswith("\nanswer:")
    assert tokenizer.decode(tokens[n_read:]) == f" z{END}"


def test_packing_by_hand():
    # Rows of 6: the longest document (5) takes row 0; the next (4) row 1; the one of 2 fits behind it, not in row 0.
    pieces = [([1, 2, 3, 4], 2), ([5, 6, 7, 8, 9], 4), ([10, 11], 1)]
    batch = packed(pieces, n_rows=2, row_length=6, read_weight=0.25, padding=0)
    assert batch["tokens"].tolist() == [[5, 6, 7, 8, 9, 0], [1, 2, 3, 4, 10, 11]]
    assert batch["documents"].tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 2, 2]]
    assert batch["positions"].tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 0, 1]]
    # A completion of 1 or 2 tokens weighs 8 / n a token, at most 4; the last token of a document predicts nothing.
    assert batch["weights"].tolist() == [[0.25, 0.25, 0.25, 4, 0, 0], [0.25, 4, 4, 0, 4, 0]]
