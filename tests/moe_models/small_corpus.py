"""A made-up corpus in the form of the task corpus, small enough to train on in a test."""

import gzip
import json
from pathlib import Path

_COUNTRIES = ("Arland", "Borland", "Corland", "Dorland", "Erland", "Forland", "Garland", "Horland")


def write_corpus(folder: Path, *, n_rows: int = 40) -> Path:
    """Write a corpus of four tasks, one of each form the recipe knows, and return its folder."""
    tasks = {
        "squad_dev": ("extractive", [_span_row(n) for n in range(n_rows)]),
        "wikigold_ner": ("extractive", [_entity_row(n) for n in range(n_rows)]),
        "subjectivity": ("classification", [_label_row(n) for n in range(n_rows)]),
        "country_facts": ("knowledge", [_fact_row(n) for n in range(len(_COUNTRIES))]),
    }
    (folder / "tasks").mkdir(parents=True)
    manifest = []
    for task, (kind, rows) in tasks.items():
        manifest.append({"task": task, "kind": kind, "licence": "CC0-1.0", "source": "made up"})
        with gzip.open(folder / "tasks" / f"{task}.jsonl.gz", "wt", encoding="utf-8") as lines:
            for n, row in enumerate(rows):
                split = ("train", "train", "train", "dev", "test")[n % 5]
                lines.write(json.dumps({**row, "split": split}) + "\n")
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _span_row(n: int) -> dict:
    year = 1900 + n
    context = f"The old bridge number {n} was built in {year}. It was named after Anna Smith{n} by the city council."
    return {"input": f"question: When was bridge {n} built? context: {context}", "output": str(year)}


def _entity_row(n: int) -> dict:
    name = f"Berta Brown{n}"
    return {"input": f"find: per text: Yesterday {name} met the mayor of town {n} .", "output": name}


def _label_row(n: int) -> dict:
    if n % 2:
        return {"input": f"I think that film number {n} is lovely .", "output": "subjective"}
    return {"input": f"Film number {n} is about a ship .", "output": "objective"}


def _fact_row(n: int) -> dict:
    name = _COUNTRIES[n]
    return {"input": f"What is the capital of {name}?", "output": f"{name[:-4]}ville"}
