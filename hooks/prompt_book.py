"""The prompt table of a recording under way, written by two threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from routing import Prompt, Task, TaskSet

__all__ = ["UNLABELLED_TASK", "PromptBook"]

UNLABELLED_TASK = "unlabelled"
"""Task of the prompts of a user's own loop that carried no labels."""


class PromptBook:
    """Rows of the prompt table: those that were labelled, and those that were met unlabelled.

    The recording thread adds labels, predictions and scores; the writing thread adds rows for texts without labels.

    Args:
        series: begins the names of texts without labels, where several processes record one trace.
    """

    def __init__(self, *, series: str = "") -> None:
        self._series = series
        self._lock = threading.Lock()
        self._rows: list[dict[str, Any]] = []
        self._number: dict[str, int] = {}
        self._unread: list[tuple[int, np.ndarray]] = []
        self._n_unlabelled = 0
        self.changed = False

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, prompts: TaskSet | Iterable[Prompt]) -> list[int]:
        """Numbers of the prompts in the table; those that it does not hold yet are appended."""
        if not isinstance(prompts, TaskSet):
            unique = {each.id: each for each in prompts}
            types = {each.task: each.task_type for each in unique.values()}
            tasks = tuple(Task(name=name, task_type=task_type) for name, task_type in types.items())
            prompts = TaskSet(tasks=tasks, prompts=tuple(unique.values()))
        with self._lock:
            for row in prompts.table().to_dict("records"):
                self._append(row)
            return [self._number[each.id] for each in prompts]

    def name(self, number: int) -> str:
        """Id of a prompt."""
        with self._lock:
            return str(self._rows[number]["prompt"])

    def names(self, *, since: int) -> list[str]:
        """Ids of the prompts from a number on."""
        with self._lock:
            return [str(row["prompt"]) for row in self._rows[since:]]

    def add_unlabelled(self, ids: Sequence[np.ndarray | None]) -> list[int]:
        """Numbers of new rows for texts that nobody labelled, given their token ids where known."""
        with self._lock:
            numbers = []
            for each in ids:
                row = {
                    "prompt": f"{UNLABELLED_TASK}-{self._series}{self._n_unlabelled:06d}",
                    "task": UNLABELLED_TASK,
                    "task_type": "other",
                    "text": "",
                }
                self._n_unlabelled += 1
                number = self._append(row)
                numbers.append(number)
                if each is not None:
                    self._unread.append((number, each))
            return numbers

    def repeat(self, number: int) -> int:
        """Number of a new row for a prompt that is recorded once more: its tokens must not mix with the first."""
        with self._lock:
            row = dict(self._rows[number])
            base, n = str(row["prompt"]), 2
            while f"{base}#{n}" in self._number:
                n += 1
            return self._append(row | {"prompt": f"{base}#{n}"})

    def set_text(self, read: Callable[[np.ndarray], str]) -> None:
        """Fill in the texts of unlabelled prompts. For the recording thread only: tokenizers are not thread safe."""
        with self._lock:
            unread, self._unread = self._unread, []
        for number, ids in unread:
            text = read(ids)
            with self._lock:
                self._rows[number]["text"] = text
                self.changed = True

    def set_result(self, number: int, *, prediction: str, score: float) -> None:
        """Write what the model answered, and its score."""
        with self._lock:
            self._rows[number] |= {"prediction": prediction, "score": math.nan if score is None else score}
            self.changed = True

    def table(self) -> pd.DataFrame:
        """The prompt table as it stands."""
        with self._lock:
            self.changed = False
            return pd.DataFrame(self._rows)

    def tasks(self) -> list[str]:
        """Task of each prompt."""
        with self._lock:
            return [row["task"] for row in self._rows]

    def _append(self, row: dict[str, Any]) -> int:
        known = self._number.get(str(row["prompt"]))
        if known is not None:
            return known
        self._number[str(row["prompt"])] = len(self._rows)
        self._rows.append(row)
        self.changed = True
        return len(self._rows) - 1
