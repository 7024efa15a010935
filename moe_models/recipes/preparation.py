"""What stands before any training on the corpus: its rows, what is held out, the tokenizer, rows drawn to look at."""

import contextlib
import hashlib
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from .corpus import (
    Row,
    TaskFacts,
    completion_of,
    held_out_inputs,
    label_sets,
    prompt_of,
    read_manifest,
    read_rows,
    trainable_rows,
)
from .tokenization import train_tokenizer


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The rows of a corpus, read once.

    Attributes:
        facts: what the manifest says, by task.
        rows: all rows, all splits.
        trainable: the train rows that give no held-out row away.
        n_dropped: train rows left out for it.
        digest: of manifest and task files.
    """

    facts: dict[str, TaskFacts]
    rows: list[Row]
    trainable: list[Row]
    n_dropped: int
    digest: str

    @cached_property
    def held_out(self) -> frozenset[str]:
        """The inputs of all dev and test rows, normalized."""
        return held_out_inputs(self.rows)

    @cached_property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The sorted labels of each classification task."""
        return label_sets(self.rows, facts=self.facts)

    def drawn(self, *, split: str, n_per_task: int, seed: int) -> list[Row]:
        """Return at most so many rows of each task of a split, drawn with a seed; of train, from the trainable."""
        by_task: dict[str, list[Row]] = {}
        for row in self.trainable if split == "train" else self.rows:
            if row.split == split:
                by_task.setdefault(row.task, []).append(row)
        drawing = random.Random(seed)
        return [
            row
            for its_rows in by_task.values()
            for row in (its_rows if len(its_rows) <= n_per_task else drawing.sample(its_rows, n_per_task))
        ]


def read_corpus(folder: Path) -> Corpus:
    """Return a corpus, its train rows parted from what they would give away."""
    rows = read_rows(folder)
    trainable, n_dropped = trainable_rows(rows)
    files = [folder / "manifest.json", *sorted((folder / "tasks").glob("*.jsonl.gz"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    print(f"{len(trainable)} train rows; {n_dropped} dropped that a held-out row would show in", flush=True)
    return Corpus(facts=read_manifest(folder), rows=rows, trainable=trainable, n_dropped=n_dropped, digest=digest)


def corpus_tokenizer(
    corpus: Corpus, *, vocab_size: int, context_length: int, cache: Path | None
) -> PreTrainedTokenizerFast:
    """Return the tokenizer learned on a corpus's trainable rows, from a cache folder if another run left it there."""
    kept = cache and cache / f"tokenizer-{corpus.digest}-{vocab_size}-{context_length}"
    if kept and kept.is_dir():
        return PreTrainedTokenizerFast.from_pretrained(kept)
    tokenizer = train_tokenizer(
        (prompt_of(row) + completion_of(row.output) for row in corpus.trainable),
        vocab_size=vocab_size,
        context_length=context_length,
    )
    if kept:
        partial = kept.with_name(f"{kept.name}.{os.getpid()}")
        tokenizer.save_pretrained(partial)
        with contextlib.suppress(OSError):  # another run was faster, with the same tokenizer
            partial.rename(kept)
    return tokenizer


def digest_of(parts: Sequence[object]) -> str:
    """Return a short digest of what makes batches, and of the code here that makes them."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(code + repr(parts).encode()).hexdigest()[:16]
