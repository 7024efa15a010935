"""What one training document is: a real row seen anew, a made-up span question, or a restated fact."""

from collections.abc import Iterable

import numpy as np

from .augmentation import Augmenter, with_words_dropped
from .cloze import cloze, sentences_of
from .corpus import Row, TaskFacts, completion_of, prompt_of, with_text
from .facts import Restater
from .schedule import Schedule

# Running text that made-up questions are asked about: the field that holds it, and how often it is drawn.
_PASSAGE_SHARES = {
    "squad_dev": 0.16,
    "squadshifts_amazon": 0.14,
    "squadshifts_newwiki": 0.16,
    "squadshifts_nyt": 0.16,
    "crossner": 0.06,
    "dbpedia14": 0.06,
    "medquad_answer": 0.05,
    "movie_reviews": 0.04,
    "pubmedqa": 0.04,
    "scitldr": 0.05,
    "wiki_split": 0.04,
    "wikigold_ner": 0.04,
}

# Tasks that need to read closely are drawn more often than their number of rows says.
_DRAW_FACTORS = {
    "squad_dev": 2.2,
    "squadshifts_amazon": 2.0,
    "squadshifts_newwiki": 2.0,
    "squadshifts_nyt": 2.2,
    "btc_ner": 1.5,
    "crossner": 1.8,
    "wikigold_ner": 1.5,
    "wnut17_ner": 1.5,
    "country_facts": 1.3,
    "language_id": 0.5,
    "medquad_answer": 0.7,
    "java_to_csharp": 0.7,
    "scitldr": 0.7,
}


class Documents:
    """Draws training documents.

    Args:
        rows: the train rows.
        facts: what the manifest says of the tasks.
        held_out: normalized dev and test inputs; nothing that equals one is drawn.
        schedule: what is drawn when.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        *,
        facts: dict[str, TaskFacts],
        held_out: frozenset[str],
        schedule: Schedule,
    ) -> None:
        rows = list(rows)
        self._schedule = schedule
        self._types = {task: known.task_type for task, known in facts.items()}
        self._rows: dict[str, list[Row]] = {}
        for row in rows:
            self._rows.setdefault(row.task, []).append(row)
        self._tasks = sorted(self._rows)
        weights = np.array([len(self._rows[t]) ** 0.5 * _DRAW_FACTORS.get(t, 1.0) for t in self._tasks])
        self._task_share = weights / weights.sum()
        self._augmenter = Augmenter(rows)
        self._restater = Restater(rows, held_out=held_out)
        self._passages = _passages(self._rows)
        shares = np.array([_PASSAGE_SHARES[task] for task in self._passages])
        self._passage_share = shares / shares.sum() if len(shares) else shares
        self._passage_tasks = list(self._passages)

    def document(self, step: int, *, random: np.random.Generator) -> Row:
        """Return one document of a step, as a row."""
        cloze_share, fact_share = self._schedule.made_up_share(step)
        draw = random.random()
        made_up = None
        if draw < cloze_share:
            made_up = self._made_up_question(step, random=random)
        elif draw < cloze_share + fact_share and self._restater.kinds:
            made_up = self._restated_fact(random=random)
        return made_up or self._real_row(step, random=random)

    def _real_row(self, step: int, *, random: np.random.Generator) -> Row:
        rows = self._rows[self._tasks[int(random.choice(len(self._tasks), p=self._task_share))]]
        row = rows[int(random.integers(len(rows)))]
        # Late in training rows are seen as they are more often: that is what they look like on dev.
        if random.random() < 0.3 * self._schedule.settled_share(step):
            return row
        row = self._augmenter.variant(row, random=random, ease=self._schedule.ease(step))
        if self._types.get(row.task) == "classification" and row.task != "blimp" and random.random() < 0.4:
            text = with_words_dropped(row.input, share=0.1, random=random)
            return with_text(row, input=text, output=row.output)
        return row

    def _made_up_question(self, step: int, *, random: np.random.Generator) -> Row | None:
        if not self._passage_tasks:
            return None
        task = self._passage_tasks[int(random.choice(len(self._passage_tasks), p=self._passage_share))]
        passages = self._passages[task]
        sentences = passages[int(random.integers(len(passages)))]
        easy = random.random() < self._schedule.ease(step)
        asked = cloze(sentences, random=random, most_sentences=2 if easy else 64)
        if asked is None:
            return None
        text = f"question: {asked.question} context: {asked.context}"
        # In the form of a real span task, so that what is learned here is learned for it.
        return Row(task="squad_dev", input=text, output=asked.answer)

    def _restated_fact(self, *, random: np.random.Generator) -> Row | None:
        kinds = self._restater.kinds
        return self._restater.restatement(kinds[int(random.integers(len(kinds)))], random=random)


def text_of(row: Row) -> tuple[str, str]:
    """Return prompt and completion of a document."""
    return prompt_of(row), completion_of(row.output)


def _passages(rows: dict[str, list[Row]]) -> dict[str, list[list[str]]]:
    """Return the passages of each task that has running text, parted into sentences, each passage once."""
    found = {}
    for task in _PASSAGE_SHARES:
        texts = dict.fromkeys(_running_text(row) for row in rows.get(task, ()))
        parted = [sentences_of(text) for text in texts if len(text.split()) >= 10]
        if parted:
            found[task] = parted
    return found


def _running_text(row: Row) -> str:
    if row.task == "medquad_answer":
        return row.output
    for mark in (" context: ", " text: ", "Text: "):
        if mark in row.input:
            return row.input.split(mark, 1)[1]
    return row.input
