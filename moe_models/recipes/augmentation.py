"""Train rows seen differently each time, so that a small model has to learn the task and not the rows.

The copying tasks gain most: when the span to copy is replaced by another of its kind, in the text and in the answer
alike, knowing the row by heart is of no use and reading it is.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from .cloze import sentences_of
from .corpus import Row, with_text

_ENTITY_SEPARATOR = "; "


class Augmenter:
    """Draws variants of train rows, with spans to swap in taken from the same rows.

    Args:
        rows: the train rows; mentions, answers and distracting sentences come from them alone.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._mentions: dict[str, list[str]] = {}
        self._partners: dict[str, list[Row]] = {}
        self._answers: dict[str, list[str]] = {}
        self._sentences: list[str] = []
        for row in rows:
            if _is_entity_row(row):
                wanted = _entity_parts(row)[0]
                self._mentions.setdefault(wanted, []).extend(row.output.split(_ENTITY_SEPARATOR))
                self._partners.setdefault(f"{row.task} {wanted}", []).append(row)
            elif _is_question_row(row):
                self._answers.setdefault(_looks(row.output), []).append(row.output)
                self._sentences.extend(sentences_of(_question_parts(row)[1]))

    def variant(self, row: Row, *, random: np.random.Generator, ease: float) -> Row:
        """Return a row, or a variant of it that has the same task and a right answer.

        Args:
            row: a train row.
            random: draws what is done.
            ease: chance, from 0 to 1, that a span question comes with a few sentences instead of its whole context.
        """
        if _is_entity_row(row):
            return self._entity_variant(row, random=random)
        if _is_question_row(row):
            return self._question_variant(row, random=random, ease=ease)
        if row.options:
            return replace(row, options=tuple(random.permutation(row.options).tolist()))
        return row

    def _entity_variant(self, row: Row, *, random: np.random.Generator) -> Row:
        wanted, text = _entity_parts(row)
        entities = row.output.split(_ENTITY_SEPARATOR)
        draw = random.random()
        if draw < 0.5:
            text, entities = self._swapped(wanted, text, entities, random=random)
        if random.random() < 0.2:
            others = self._partners[f"{row.task} {wanted}"]
            other = others[int(random.integers(len(others)))]
            # Two texts of one task and one wanted type: the entities of both, in order.
            text = f"{text} {_entity_parts(other)[1]}"
            entities = [*entities, *other.output.split(_ENTITY_SEPARATOR)]
        return with_text(row, input=f"find: {wanted} text: {text}", output=_ENTITY_SEPARATOR.join(entities))

    def _swapped(
        self, wanted: str, text: str, entities: list[str], *, random: np.random.Generator
    ) -> tuple[str, list[str]]:
        """Return text and entities with each entity replaced by another mention of the wanted type."""
        distinct = list(dict.fromkeys(entities))
        overlapping = any(a != b and a in b for a in distinct for b in distinct)
        padded = f" {text} "
        if overlapping or any(padded.count(f" {entity} ") < entities.count(entity) for entity in distinct):
            return text, entities
        pool = self._mentions[wanted]
        renamed = {}
        for n, entity in enumerate(distinct):
            mention = pool[int(random.integers(len(pool)))]
            if random.random() < 0.8 and mention not in padded and mention not in renamed.values():
                renamed[entity] = mention
                # Placeholders first: a mention that is put in must not be found as the next entity.
                padded = padded.replace(f" {entity} ", f" \0{n}\0 ")
        for n, entity in enumerate(distinct):
            if entity in renamed:
                padded = padded.replace(f"\0{n}\0", renamed[entity])
        return padded[1:-1], [renamed.get(entity, entity) for entity in entities]

    def _question_variant(self, row: Row, *, random: np.random.Generator, ease: float) -> Row:
        question, context = _question_parts(row)
        answer = row.output
        sentences = sentences_of(context)
        holding = [n for n, sentence in enumerate(sentences) if answer in sentence]
        if len(sentences) > 1 and holding:
            draw = random.random()
            if draw < ease:
                around = holding[0]
                first = int(random.integers(max(0, around - 2), around + 1))
                sentences = sentences[first : int(random.integers(around, around + 3)) + 1]
            elif draw < ease + 0.25:
                other = self._sentences[int(random.integers(len(self._sentences)))]
                sentences.insert(int(random.integers(len(sentences) + 1)), other)
            if random.random() < 0.3:
                sentences = random.permutation(np.array(sentences, dtype=object)).tolist()
            context = " ".join(sentences)
        if random.random() < 0.5 and answer.lower() not in question.lower():
            pool = self._answers[_looks(answer)]
            other = pool[int(random.integers(len(pool)))]
            if other not in context:
                context, answer = context.replace(answer, other), other
        if random.random() < 0.3:
            question = _thinned(question, random=random)
        return with_text(row, input=f"question: {question} context: {context}", output=answer)


def with_words_dropped(text: str, *, share: float, random: np.random.Generator) -> str:
    """Return a text without a drawn share of its words, line breaks and spacing kept."""
    words = text.split(" ")
    kept = random.random(len(words)) >= share
    return " ".join(word for word, keep in zip(words, kept, strict=True) if keep) or text


def _thinned(question: str, *, random: np.random.Generator) -> str:
    words = question.split()
    kept = [word for word in words[1:] if random.random() > 0.12]
    return " ".join([words[0], *kept]) if words else question


def _is_entity_row(row: Row) -> bool:
    return row.input.startswith("find: ") and " text: " in row.input


def _is_question_row(row: Row) -> bool:
    return row.input.startswith("question: ") and " context: " in row.input and row.output in row.input


def _entity_parts(row: Row) -> tuple[str, str]:
    head, text = row.input.split(" text: ", 1)
    return head.removeprefix("find: "), text


def _question_parts(row: Row) -> tuple[str, str]:
    head, context = row.input.split(" context: ", 1)
    return head.removeprefix("question: ").strip(), context


def _looks(answer: str) -> str:
    """Return the kind of answer by its looks: what can stand in for it without the question showing."""
    if any(letter.isdigit() for letter in answer):
        return "number"
    if answer[:1].isupper():
        return "name"
    return "words" if len(answer.split()) > 2 else "word"
