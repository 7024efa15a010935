"""From the inputs of forwards to rows of the token table: which prompt, which place, which phase, or padding.

Runs in the writing thread, on numpy arrays, one pass after the other in the order in which the model ran them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hooks.passes import Generation, Labels
from hooks.prompt_book import PromptBook
from routing import RecordingError

__all__ = ["GENERATED", "PROMPT", "HostStackPass", "RowLedger", "TokenRows"]

PROMPT, GENERATED = 0, 1


@dataclass(kw_only=True)
class HostStackPass:
    """A `StackPass` whose arrays have arrived on the host."""

    stack: str
    n_batch: int
    n_columns: int
    past: int | None
    cache: int | None
    ids: np.ndarray | None
    mask: np.ndarray | None
    positions: np.ndarray | None
    nll: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """The rows of one stack in one pass that are tokens.

    Attributes:
        kept: which of the flattened (batch, column) rows they are; None when all.
        prompt, position, token_id, phase, nll: one value a kept row.
    """

    kept: np.ndarray | None
    prompt: np.ndarray
    position: np.ndarray
    token_id: np.ndarray
    phase: np.ndarray
    nll: np.ndarray


@dataclass(kw_only=True)
class _Session:
    """Texts that are being fed to one stack, one for each row of the batch, over one or more passes."""

    prompts: np.ndarray
    n_seen: np.ndarray
    finished: np.ndarray
    n_columns: int
    cache: int | None
    cached: bool
    serial: int | None
    last_ids: np.ndarray | None = None
    followed: bool = False


class RowLedger:
    """Follows texts through prefill, cached steps and re-read prefixes.

    Args:
        book: the prompt table.
        eos_ids: tokens that end a generated text, outside `generate()`.
        pad_id: padding of decoder inputs that come without a mask.
        first_stack: the stack that reads first; the decoder of two stacks writes to the same prompts.
        generated_stacks: stacks whose every token is written, not read.
    """

    def __init__(
        self,
        book: PromptBook,
        *,
        eos_ids: frozenset[int],
        pad_id: int | None,
        first_stack: str,
        generated_stacks: frozenset[str],
    ) -> None:
        self._book, self._eos_ids, self._pad_id = book, eos_ids, pad_id
        self._first_stack, self._generated_stacks = first_stack, generated_stacks
        self._sessions: dict[str, _Session] = {}
        self._taken: dict[str, set[int]] = {}

    def rows(self, seen: HostStackPass, *, labels: Labels | None, generation: Generation | None) -> TokenRows:
        """The token rows of one stack in one pass.

        Raises:
            RecordingError: the batch does not fit its labels, or the cache went back.
        """
        shape = (seen.n_batch, seen.n_columns)
        kept = np.ones(shape, bool) if seen.mask is None else seen.mask.astype(bool)
        session = self._continued(seen, labels)
        fresh = session is None
        if session is None:
            if labels is not None and labels.n_tokens is not None:
                kept &= np.arange(seen.n_columns) < np.array(labels.n_tokens)[:, None]
            if seen.stack in self._generated_stacks and seen.mask is None and self._pad_id is not None:
                kept &= _up_to_last_token(seen.ids, self._pad_id, shape)
            if (texts := _packed_texts(seen, kept)) is not None:
                return self._packed(seen, kept, texts, labels)
            session = self._begun(seen, kept, labels)
        elif not session.cached:
            # Without a cache a loop reads the whole text again for each new token; only that token is new.
            kept[:, :-1] = False
        if not fresh and (seen.n_columns == 1 or not session.cached) and seen.ids is not None:
            # generate() keeps feeding rows that are done. Their end token is dropped too: the last row to finish
            # never feeds it, and a record must not depend on the company a text was in.
            eos = generation.eos_ids if generation is not None else self._eos_ids
            session.finished |= np.isin(seen.ids[:, -1], list(eos))
            kept &= ~session.finished[:, None]
        elif not fresh:
            session.finished[:] = False
        position = session.n_seen[:, None] + np.cumsum(kept, axis=1) - 1
        session.n_seen = session.n_seen + kept.sum(axis=1)
        phase = self._phase(seen, position, fresh=fresh, session=session, labels=labels, generation=generation)
        session.n_columns = seen.n_columns if not session.cached else session.n_columns + seen.n_columns
        session.last_ids = seen.ids if not session.cached else None
        session.cache = seen.cache
        prompt = np.broadcast_to(session.prompts[:, None], shape)
        return _flat(seen, kept, prompt, position, phase)

    def _continued(self, seen: HostStackPass, labels: Labels | None) -> _Session | None:
        """The session that this pass goes on with, or None where a new text begins."""
        session = self._sessions.get(seen.stack)
        serial = None if labels is None else labels.serial
        if session is None or len(session.prompts) != seen.n_batch or session.serial != serial:
            return None
        if seen.past is None:
            return session if seen.cache == session.cache else None
        if seen.past > 0:
            # A loop that lets the model make the cache hands it in from the second forward on.
            if session.cache not in (None, seen.cache):
                return None
            if session.cached and seen.past < session.n_columns:
                msg = (
                    f"The cache went back from {session.n_columns} to {seen.past} positions, as when drafted tokens "
                    "are rejected, so rows already recorded would be wrong. Generate without drafts (no assistant "
                    "model, no prompt look-up), or record the finished texts in a forward of their own."
                )
                raise RecordingError(msg)
            if seen.past != session.n_columns:
                return None
            session.cached = True
            return session
        reread = (
            not session.cached
            and seen.cache is None
            and session.last_ids is not None
            and seen.ids is not None
            and seen.n_columns == session.n_columns + 1
            and np.array_equal(seen.ids[:, :-1], session.last_ids)
        )
        return session if reread else None

    def _begun(self, seen: HostStackPass, kept: np.ndarray, labels: Labels | None) -> _Session:
        texts = None
        if seen.ids is not None:
            texts = [row[keep] for row, keep in zip(seen.ids, kept, strict=True)]
        session = _Session(
            prompts=self._prompts_of(seen, labels, n_texts=seen.n_batch, texts=texts),
            n_seen=np.zeros(seen.n_batch, np.int64),
            finished=np.zeros(seen.n_batch, bool),
            n_columns=seen.past or 0,
            cache=seen.cache,
            cached=seen.cache is not None,
            serial=None if labels is None else labels.serial,
        )
        if seen.past:
            # A prefix that was put into the cache before recording began: positions go on behind it.
            session.n_seen += seen.past
        self._sessions[seen.stack] = session
        return session

    def _prompts_of(
        self, seen: HostStackPass, labels: Labels | None, *, n_texts: int, texts: list[np.ndarray] | None
    ) -> np.ndarray:
        if labels is not None:
            if len(labels.prompts) != n_texts:
                msg = (
                    f"The model was given a batch of {n_texts} texts, but {len(labels.prompts)} prompts were labelled. "
                    "Label each batch with its own prompts, one a text, in order (and generate one sequence a prompt)."
                )
                raise RecordingError(msg)
            return np.array(self._unmixed(seen.stack, labels.prompts))
        reader = self._sessions.get(self._first_stack)
        if (
            seen.stack != self._first_stack
            and reader is not None
            and not reader.followed
            and len(reader.prompts) == n_texts
        ):
            reader.followed = True
            return reader.prompts
        return np.array(self._book.add_unlabelled(texts if texts is not None else [None] * n_texts))

    def _unmixed(self, stack: str, prompts: tuple[int, ...]) -> list[int]:
        """The prompts themselves, or new rows for those that this stack has read before."""
        taken = self._taken.setdefault(stack, set())
        reader = self._sessions.get(self._first_stack)
        if (
            stack != self._first_stack
            and reader is not None
            and not reader.followed
            and len(reader.prompts) == len(prompts)
        ):
            reader.followed = True
            prompts = tuple(int(each) for each in reader.prompts)
        numbers = [self._book.repeat(each) if each in taken else each for each in prompts]
        taken.update(numbers)
        return numbers

    def _packed(self, seen: HostStackPass, kept: np.ndarray, texts: np.ndarray, labels: Labels | None) -> TokenRows:
        """Rows that hold several texts one after the other, told apart by positions that start again."""
        n_texts = int(texts.max()) + 1
        ids = None if seen.ids is None else [seen.ids[kept & (texts == each)] for each in range(n_texts)]
        prompts = self._prompts_of(seen, labels, n_texts=n_texts, texts=ids)
        self._sessions.pop(seen.stack, None)
        assert seen.positions is not None
        phase = np.full(kept.shape, self._first_phase(seen.stack), np.uint8)
        return _flat(seen, kept, prompts[texts], seen.positions, phase)

    def _phase(
        self,
        seen: HostStackPass,
        position: np.ndarray,
        *,
        fresh: bool,
        session: _Session,
        labels: Labels | None,
        generation: Generation | None,
    ) -> np.ndarray:
        if seen.stack in self._generated_stacks:
            return np.full(position.shape, GENERATED, np.uint8)
        if labels is not None and labels.n_prompt_tokens is not None:
            return (position >= np.array(labels.n_prompt_tokens)[:, None]).astype(np.uint8)
        if generation is not None and generation.prompt_columns is not None:
            first = session.n_columns if session.cached else 0
            columns = first + np.arange(seen.n_columns)
            return np.broadcast_to(columns >= generation.prompt_columns, position.shape).astype(np.uint8)
        stepped = not fresh and (seen.n_columns == 1 or not session.cached)
        return np.full(position.shape, GENERATED if stepped else PROMPT, np.uint8)

    def _first_phase(self, stack: str) -> int:
        return GENERATED if stack in self._generated_stacks else PROMPT


def _up_to_last_token(ids: np.ndarray | None, pad_id: int, shape: tuple[int, int]) -> np.ndarray:
    if ids is None:
        return np.ones(shape, bool)
    there = ids != pad_id
    # The start token is the padding token in the T5 family, so the first column is a token whatever it holds.
    there[:, 0] = True
    return np.flip(np.maximum.accumulate(np.flip(there, 1), axis=1), 1)


def _packed_texts(seen: HostStackPass, kept: np.ndarray) -> np.ndarray | None:
    """Number of the text that each place belongs to, where a row holds several; else None."""
    if seen.positions is None or seen.past:
        return None
    starts = kept & (seen.positions == 0)
    if (starts.sum(axis=1) <= 1).all():
        return None
    before_first = np.cumsum(starts, axis=1) == 0
    if (kept & before_first).any():
        return None
    return np.maximum(np.cumsum(starts.ravel()).reshape(starts.shape) - 1, 0)


def _flat(
    seen: HostStackPass, kept: np.ndarray, prompt: np.ndarray, position: np.ndarray, phase: np.ndarray
) -> TokenRows:
    flat = None if kept.all() else np.flatnonzero(kept)

    def picked(values: np.ndarray, dtype: type) -> np.ndarray:
        values = np.ascontiguousarray(values, dtype=dtype).ravel()
        return values if flat is None else values[flat]

    shape = kept.shape
    return TokenRows(
        kept=flat,
        prompt=picked(prompt, np.int32),
        position=picked(position, np.int32),
        token_id=picked(np.full(shape, -1) if seen.ids is None else seen.ids, np.int32),
        phase=picked(phase, np.uint8),
        nll=picked(np.full(shape, np.nan) if seen.nll is None else seen.nll, np.float32),
    )
