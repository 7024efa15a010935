"""Questions about a passage, made from the passage itself.

A sentence is taken, a span of it is asked for, and what is left of the sentence, thinned and worn down as questions
are, becomes the question. Answering such a question needs what a real span question needs: find the place that the
question's words point to, then copy from beside it. Nobody has to write them, so there are as many as there is text.
"""

import re
from dataclasses import dataclass

import numpy as np

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+(?=\S)")
_EDGE = re.compile(r"^[\"'“”‘’(\[]+|[\"'“”‘’)\].,;:!?]+$")
_BREAK = re.compile(r"[.,;:!?)\]\"”]$")
_SUFFIX = re.compile(r"(ing|ies|ied|ed|es|s)$")
_YEAR = re.compile(r"^(1[0-9]|20)\d\d$")

_FUNCTION_WORD_LIST = (
    "a an and are as at be been but by can could did do does for from had has have he her his how i if in into is it "
    "its just me more most my no not of on or our out s she so some such than that the their them then there these "
    "they this to up was we were what when where which who will with would you your also about after before between "
    "during over under while because through only very all any both each other same may might must being am"
)
_FUNCTION_WORDS = frozenset(_FUNCTION_WORD_LIST.split())

_NUMBER_WORDS = ("how many", "how much", "what number", "when", "what", "how long")
_YEAR_WORDS = ("when", "in what year", "what year", "when")
_NAME_WORDS = ("who", "what", "which", "where", "whose", "what", "who", "where")
_OTHER_WORDS = ("what", "what kind of", "how", "what", "why", "what type of", "which")


@dataclass(frozen=True, kw_only=True)
class Cloze:
    """A made-up question, the passage it is about, and the span of the passage that answers it."""

    question: str
    context: str
    answer: str


def sentences_of(passage: str) -> list[str]:
    """Return the sentences of a passage in order; joined by single spaces they give the passage back."""
    return [piece for piece in _SENTENCE_END.split(passage.strip()) if piece]


def cloze(
    sentences: list[str], *, random: np.random.Generator, most_sentences: int = 64, most_words: int = 6
) -> Cloze | None:
    """Return one question about a passage, or None when the drawn sentence has no span worth asking for.

    Args:
        sentences: the passage, as `sentences_of` parts it.
        random: draws sentence, span and wording.
        most_sentences: the longest context in sentences; shorter ones make the first steps easier.
        most_words: the longest answer in words.
    """
    asked = int(random.integers(len(sentences)))
    words = sentences[asked].split()
    if len(words) < 5:
        return None
    span = _span(words, random=random, most_words=most_words)
    if span is None:
        return None
    start, stop = span
    answer = _trimmed(" ".join(words[start:stop]))
    context = " ".join(_window(sentences, around=asked, most=most_sentences, random=random))
    question = _question(words, start=start, stop=stop, random=random)
    if not answer or answer not in context or answer.lower() in question.lower():
        return None
    return Cloze(question=question, context=context, answer=answer)


def question_word(answer: str, *, random: np.random.Generator) -> str:
    """Return a question word that fits the looks of an answer: a year, a number, a name, or anything else."""
    if _YEAR.match(answer):
        words = _YEAR_WORDS
    elif any(letter.isdigit() for letter in answer):
        words = _NUMBER_WORDS
    elif answer[:1].isupper():
        words = _NAME_WORDS
    else:
        words = _OTHER_WORDS
    return words[int(random.integers(len(words)))]


def _span(words: list[str], *, random: np.random.Generator, most_words: int) -> tuple[int, int] | None:
    """Return where a span that could be an answer starts and stops, function words kept off its edges."""
    named = [n for n, word in enumerate(words) if n and (word[:1].isupper() or word[:1].isdigit())]
    for _ in range(4):
        # Questions ask for names and numbers more often than a span drawn anywhere would.
        if named and random.random() < 0.55:
            start = named[int(random.integers(len(named)))]
        else:
            start = int(random.integers(len(words)))
        if _is_function_word(words[start]):
            continue
        length = 1 + min(int(random.geometric(0.42)) - 1, most_words - 1)
        stop = start + 1
        while stop < len(words) and stop - start < length and not _BREAK.search(words[stop - 1]):
            stop += 1
        # A run of capitalized words is one name: never ask for half of it.
        if words[start][:1].isupper():
            while start > 0 and words[start - 1][:1].isupper() and not _BREAK.search(words[start - 1]):
                start -= 1
            while stop < len(words) and words[stop][:1].isupper() and not _BREAK.search(words[stop - 1]):
                stop += 1
        while stop - start > 1 and _is_function_word(words[stop - 1]):
            stop -= 1
        while stop - start > 1 and _is_function_word(words[start]):
            start += 1
        if stop - start <= most_words + 2 and stop - start < len(words) - 2:
            return start, stop
    return None


def _question(words: list[str], *, start: int, stop: int, random: np.random.Generator) -> str:
    """Return the words around a span as a question: thinned, worn down, its question word where one would put it."""
    asked = question_word(_trimmed(" ".join(words[start:stop])), random=random)
    reach = int(random.integers(3, 12))
    left, right = words[max(0, start - reach) : start], words[stop : stop + reach]
    thinned = random.random() * 0.6
    left, right = _worn(left, share=thinned, random=random), _worn(right, share=thinned, random=random)
    if not left and not right:
        left = _worn(words[max(0, start - 4) : start] or words[stop : stop + 4], share=0.0, random=random)
    form = random.random()
    if form < 0.35:
        question = [asked, *left, *right]
    elif form < 0.6:
        question = [asked, *right, *left]
    elif form < 0.8:
        question = [*left, asked, *right]
    else:
        bag = [*left, *right]
        random.shuffle(bag)
        question = [asked, *bag]
    text = " ".join(question).rstrip(".,;:!? ")
    if random.random() < 0.7:
        text = text[:1].upper() + text[1:]
    return text if random.random() < 0.1 else f"{text}?"


def _worn(words: list[str], *, share: float, random: np.random.Generator) -> list[str]:
    """Return words with some left out (function words more readily) and some cut to their stem."""
    draws = random.random((len(words), 2))
    kept = []
    for word, (leave_out, cut) in zip(words, draws, strict=True):
        if leave_out < share * (1.3 if _is_function_word(word) else 0.8):
            continue
        plain = _trimmed(word)
        if cut < 0.2 and len(plain) > 5 and plain[:1].islower():
            plain = _SUFFIX.sub("", plain)
        if plain:
            kept.append(plain)
    return kept


def _window(sentences: list[str], *, around: int, most: int, random: np.random.Generator) -> list[str]:
    """Return a run of sentences that holds one of them, its length and place drawn."""
    most = min(most, len(sentences))
    # Whole passages as often as windows: the real questions come with whole passages.
    n = most if random.random() < 0.5 else int(random.integers(1, most + 1))
    first = int(random.integers(max(0, around - n + 1), min(around, len(sentences) - n) + 1))
    return sentences[first : first + n]


def _trimmed(text: str) -> str:
    return _EDGE.sub("", text)


def _is_function_word(word: str) -> bool:
    return _trimmed(word).lower() in _FUNCTION_WORDS
