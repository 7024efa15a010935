"""The order of tasks that the authors' route arrays follow, rebuilt from a split file and the ontology."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moe_models.authors.checkpoint import json_object
from moe_models.authors.errors import AuthorsFileError, listed


@dataclass(frozen=True)
class TaskOrder:
    """Tasks as the rows of a route array, each with its category and sub-category.

    Attributes:
        tasks: category by category, sub-category by sub-category, by name within.
        categories: (category, sub-category) of each task.
        sentences: tasks that were left out, and why.
    """

    tasks: tuple[str, ...]
    categories: tuple[tuple[str, str], ...]
    sentences: tuple[str, ...]


def task_order(split: str | Path, *, ontology: str | Path, part: str = "train") -> TaskOrder:
    """The tasks of one part of a split file in the order of the ontology.

    Args:
        split: JSON, from ``train``, ``dev`` and ``test`` to lists of tasks.
        ontology: JSON, from category to sub-category to a list of tasks; the order of its entries counts.
        part: which part of the split; the authors' arrays hold ``train``.

    Raises:
        AuthorsFileError: a file is not of that form, or the ontology names a task twice.
    """
    parts, tree = json_object(split), json_object(ontology)
    wanted = parts.get(part)
    if not _names(wanted):
        msg = (
            f"{split} has no list of tasks under {part!r}; it has {listed(sorted(parts))}. Give a CrossFit split file."
        )
        raise AuthorsFileError(msg)
    tasks, categories = [], []
    for category, below in tree.items():
        if not isinstance(below, dict) or not all(_names(names) for names in below.values()):
            msg = (
                f"In {ontology}, {category!r} is not a map from sub-categories to lists of tasks. "
                "Give the ontology.json that the authors ship."
            )
            raise AuthorsFileError(msg)
        for subcategory, names in below.items():
            here = sorted(name for name in names if name in wanted)
            tasks += here
            categories += [(category, subcategory)] * len(here)
    if twice := sorted({task for task in tasks if tasks.count(task) > 1}):
        msg = f"{ontology} names {listed(twice)} more than once, so rows cannot be told apart. Name each task once."
        raise AuthorsFileError(msg)
    lost = [task for task in wanted if task not in tasks]
    said = [f"Tasks of the split that the ontology lacks, so that no array has them: {listed(lost)}."] if lost else []
    return TaskOrder(tuple(tasks), tuple(categories), tuple(said))


def _names(held: object) -> bool:
    return isinstance(held, list) and all(isinstance(name, str) for name in held)
