"""From texts that were routed as a whole to rows of the trace: one row a prompt."""

from __future__ import annotations

import numpy as np

from hooks.ledger import PROMPT, HostStackPass, TokenRows
from hooks.passes import Generation, Labels
from hooks.prompt_book import PromptBook
from routing import RecordingError

__all__ = ["PromptLedger"]


class PromptLedger:
    """Gives each text of a batch its row of the prompt table.

    Args:
        book: the prompt table.
    """

    def __init__(self, book: PromptBook) -> None:
        self._book = book
        self._taken: set[int] = set()

    def rows(self, seen: HostStackPass, *, labels: Labels | None, generation: Generation | None) -> TokenRows:
        """One row a text of the batch.

        Raises:
            RecordingError: the batch does not fit its labels.
        """
        n = seen.n_batch
        if labels is None:
            texts: list[np.ndarray | None] = [None] * n
            if seen.ids is not None:
                kept = np.ones(seen.ids.shape, bool) if seen.mask is None else seen.mask.astype(bool)
                texts = [row[keep] for row, keep in zip(seen.ids, kept, strict=True)]
            prompts = self._book.add_unlabelled(texts)
        elif len(labels.prompts) != n:
            msg = (
                f"The model was given a batch of {n} texts, but {len(labels.prompts)} prompts were labelled. "
                "Label each batch with its own prompts, one a text, in order (and generate one sequence a prompt)."
            )
            raise RecordingError(msg)
        else:
            prompts = [self._book.repeat(each) if each in self._taken else each for each in labels.prompts]
        self._taken.update(prompts)
        nll = np.full(n, np.nan, np.float32) if seen.nll is None else seen.nll.reshape(n)
        return TokenRows(
            kept=None,
            prompt=np.array(prompts, np.int32),
            position=np.zeros(n, np.int32),
            token_id=np.full(n, -1, np.int32),
            phase=np.full(n, PROMPT, np.uint8),
            nll=nll.astype(np.float32),
        )
