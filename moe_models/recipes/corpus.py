"""The task corpus as prompts and completions: reading, instructions, and what may be trained on.

A corpus is a folder with ``manifest.json`` and ``tasks/<task>.jsonl.gz``; a row holds ``input``, ``output``, ``split``
and, where a task has them, ``answers`` and ``options``.
"""

import gzip
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

INSTRUCTIONS: dict[str, str] = {
    "analogy_morphology": "Complete the analogy.",
    "analogy_world": "Complete the analogy.",
    "banking77": "Name the banking request.",
    "blimp": "Which sentence is grammatical?",
    "btc_ner": "Copy the named entities from the text.",
    "clinc_domain": "Name the domain of the request.",
    "clinc_intent": "Name the intent of the request.",
    "country_facts": "Answer the question about a country.",
    "crossner": "Copy the named entities from the text.",
    "dbpedia14": "Name the class of the entity.",
    "email_spam": "Is this e-mail spam or ham?",
    "goemotions_ekman": "Name the emotion of the comment.",
    "gsm8k_answer": "Solve the problem.",
    "java_to_csharp": "Translate the Java method to C#.",
    "language_id": "Name the language of the text.",
    "medquad_answer": "Answer the medical question.",
    "medquad_qtype": "Name the type of the medical question.",
    "movie_reviews": "Is the review positive or negative?",
    "movie_sentence_polarity": "Is the sentence positive or negative?",
    "nq_open": "Answer the question from memory.",
    "opentrivia": "Answer the trivia question.",
    "opentrivia_category": "Name the category of the trivia question.",
    "product_pros_cons": "Is this a pro or a con?",
    "pubmedqa": "Answer yes, no or maybe from the abstract.",
    "restaurant8k_slot": "Copy the slot value from the utterance.",
    "scitldr": "Summarize the abstract.",
    "sgd_domain": "Name the service of the request.",
    "sgd_reply": "Write the assistant's reply.",
    "squad_dev": "Copy the answer from the context.",
    "squadshifts_amazon": "Copy the answer from the context.",
    "squadshifts_newwiki": "Copy the answer from the context.",
    "squadshifts_nyt": "Copy the answer from the context.",
    "subjectivity": "Is the sentence subjective or objective?",
    "svamp": "Solve the problem.",
    "tldr_command": "Write the shell command.",
    "wiki_split": "Split the sentence in two.",
    "wikigold_ner": "Copy the named entities from the text.",
    "wnut17_ner": "Copy the named entities from the text.",
    "wordnet_reverse": "Name the word that is defined.",
    "xquad_translate_de": "Translate to German.",
    "xquad_translate_es": "Translate to Spanish.",
}

SPLITS = ("train", "dev", "test")

# A completion this long that equals a held-out input is that input given away (a translation of it, the answer it
# was cut from); a shorter one is a label that happens to read like a request.
_TELLING_CHARACTERS = 25


@dataclass(frozen=True, kw_only=True)
class Row:
    """One example of one task."""

    task: str
    input: str
    output: str
    split: str = "train"
    answers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What the manifest says of one task."""

    task: str
    task_type: str
    licence: str
    source: str


def prompt_of(row: Row, *, options: Sequence[str] | None = None) -> str:
    """Return the text the model reads for a row, up to and with ``answer:``.

    Args:
        row: the example.
        options: the options in the order to show them; the row's own order if None. Tasks whose rows carry options
            of their own show them; label sets are never shown.
    """
    shown = row.options if options is None else options
    listed = f"\noptions: {' | '.join(shown)}" if shown else ""
    return f"{instruction_of(row.task)}\n{row.input}{listed}\nanswer:"


def completion_of(answer: str) -> str:
    """Return an answer as the model writes it, with the space that parts it from ``answer:``."""
    return f" {answer}"


def instruction_of(task: str) -> str:
    """Return the one-line instruction of a task, or a plain one for a task the table does not know."""
    return INSTRUCTIONS.get(task, f"Do the task: {task}.")


def read_manifest(folder: Path) -> dict[str, TaskFacts]:
    """Return what the corpus says of its tasks, by task, in the manifest's order.

    Raises:
        FileNotFoundError: the folder holds no manifest.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        message = (
            f"{folder} holds no manifest.json, so it is no task corpus. "
            "Pass the folder that has manifest.json and tasks/."
        )
        raise FileNotFoundError(message)
    entries = json.loads(path.read_text(encoding="utf-8"))
    return {
        entry["task"]: TaskFacts(
            task=entry["task"],
            task_type=entry["kind"],
            licence=entry.get("licence", "unknown"),
            source=entry.get("source", "unknown"),
        )
        for entry in entries
    }


def read_rows(folder: Path) -> list[Row]:
    """Return every row of the corpus, task by task, all splits.

    Raises:
        FileNotFoundError: a task of the manifest has no file.
        ValueError: a row has a split that is none of train, dev and test.
    """
    rows = []
    for task in read_manifest(folder):
        with gzip.open(folder / "tasks" / f"{task}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows.extend(_row(task, json.loads(line)) for line in lines)
    return rows


def trainable_rows(rows: Iterable[Row]) -> tuple[list[Row], int]:
    """Return the train rows that give no held-out example away, and how many train rows were dropped for it.

    Dropped is a train row whose input is a held-out input of any task, or whose completion is one (a translation
    whose source sentence another task holds out, an answer that another task asks to classify).
    """
    rows = list(rows)
    held_out = held_out_inputs(rows)
    kept, n_dropped = [], 0
    for row in rows:
        if row.split != "train":
            continue
        telling = len(row.output) >= _TELLING_CHARACTERS and normalized_text(row.output) in held_out
        if telling or normalized_text(row.input) in held_out:
            n_dropped += 1
        else:
            kept.append(row)
    return kept, n_dropped


def held_out_inputs(rows: Iterable[Row]) -> frozenset[str]:
    """Return the inputs of all dev and test rows, normalized."""
    return frozenset(normalized_text(row.input) for row in rows if row.split != "train")


def label_sets(rows: Iterable[Row], *, facts: dict[str, TaskFacts]) -> dict[str, tuple[str, ...]]:
    """Return the sorted labels of each classification task, read off its train rows."""
    labels: dict[str, set[str]] = {}
    for row in rows:
        if row.split == "train" and facts[row.task].task_type == "classification":
            labels.setdefault(row.task, set()).add(row.output)
    return {task: tuple(sorted(found)) for task, found in labels.items()}


def normalized_text(text: str) -> str:
    """Return a text lower-cased with single spaces: the form in which overlap between splits is judged."""
    return re.sub(r"\s+", " ", text.lower()).strip()


def with_text(row: Row, *, input: str, output: str) -> Row:
    """Return a row with new text; its other accepted answers no longer hold and are dropped."""
    return replace(row, input=input, output=output, answers=())


def _row(task: str, fields: dict) -> Row:
    if fields.get("split") not in SPLITS:
        message = (
            f"A row of task {task} has split {fields.get('split')!r}, expected one of {', '.join(SPLITS)}. "
            "Correct the row; an unknown split could put held-out rows into training."
        )
        raise ValueError(message)
    return Row(
        task=task,
        input=fields["input"],
        output=str(fields["output"]),
        split=fields["split"],
        answers=tuple(str(answer) for answer in fields.get("answers") or ()),
        options=tuple(str(option) for option in fields.get("options") or ()),
    )
