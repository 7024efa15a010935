"""The commit log: one line a batch, written after its data."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from routing.errors import TraceError

__all__ = ["CommitLog", "Commits", "last_committed", "read_commits"]

LOG = "commits.jsonl"
TAIL_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Commits:
    """What a log says.

    Attributes:
        batches: (rows whole after the batch, checksum of the batch), in order.
        prompts_crc: checksum of the prompt table as last written, or None.
    """

    batches: tuple[tuple[int, int], ...] = ()
    prompts_crc: int | None = None

    @property
    def n_rows(self) -> int:
        """Rows that are whole."""
        return self.batches[-1][0] if self.batches else 0

    def without_last(self) -> Commits:
        """The same log before its last batch."""
        return Commits(batches=self.batches[:-1], prompts_crc=self.prompts_crc)


class CommitLog:
    """Appends lines to a log and remembers what it said."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._batches: list[tuple[int, int]] = []
        self._prompts_crc: int | None = None

    @property
    def fileno(self) -> int:
        """Descriptor of the log."""
        return self._fd

    @property
    def said(self) -> Commits:
        """What the log says so far."""
        return Commits(batches=tuple(self._batches), prompts_crc=self._prompts_crc)

    def commit_batch(self, n_rows: int, crc: int, **about: object) -> None:
        """Say that `n_rows` rows are whole now, and what else is known of the new ones."""
        self._write({"n": n_rows, "crc32": f"{crc:08x}", **about, "time": round(time.time(), 3)})
        self._batches.append((n_rows, crc))

    def commit_prompts(self, crc: int) -> None:
        """Say that the prompt table was rewritten."""
        self._write({"prompts_crc32": f"{crc:08x}", "time": round(time.time(), 3)})
        self._prompts_crc = crc

    def sync(self) -> None:
        """Have the system put the log on the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file; the log can be closed twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, line: dict[str, object]) -> None:
        # One write a line: a kill leaves a whole line or none, a full disk a torn one, which readers ignore.
        content = (json.dumps(line) + "\n").encode()
        if os.write(self._fd, content) != len(content):
            raise OSError(28, "No space left on device")


def read_commits(folder: Path) -> Commits:
    """What the log of a folder says, up to the first line that is torn or makes no sense.

    Raises:
        TraceError: there is no log.
    """
    try:
        content = (folder / LOG).read_bytes()
    except OSError as error:
        msg = (
            f"{folder / LOG} cannot be read ({error.strerror}), so nobody knows how much of the trace is whole. "
            "Restore the file from a copy, or record again."
        )
        raise TraceError(msg) from error
    batches: list[tuple[int, int]] = []
    prompts_crc: int | None = None
    for line in content.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n"):
                break
            entry = json.loads(line)
            if "prompts_crc32" in entry:
                prompts_crc = int(entry["prompts_crc32"], 16)
            elif "n" in entry:
                n_rows, crc = int(entry["n"]), int(entry["crc32"], 16)
                if n_rows < (batches[-1][0] if batches else 0):
                    break
                batches.append((n_rows, crc))
        except (ValueError, TypeError, KeyError):
            break
    return Commits(batches=tuple(batches), prompts_crc=prompts_crc)


def last_committed(folder: Path) -> int | None:
    """Rows that the end of a log calls whole, without reading the rest; None if the end does not say."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(-min(TAIL_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
            tail = file.read()
    except OSError:
        return None
    for line in reversed(tail[: tail.rfind(b"\n") + 1].splitlines()):
        try:
            entry = json.loads(line)
            if "n" in entry:
                return int(entry["n"])
        except (ValueError, TypeError):
            return None
    return None
