"""Whether a stored trace is what was written: every checksum, then every invariant."""

from __future__ import annotations

from pathlib import Path

from routing.errors import TraceError
from routing.invariants import violations
from routing.store.commits import read_commits
from routing.store.format import checksum
from routing.store.stored import StoredStorage, batch_checksum, open_trace
from routing.store.tables import PROMPTS

__all__ = ["verify_trace"]

N_TOKENS_A_READ = 1 << 18


def verify_trace(path: str | Path, *, limit: int = 20) -> list[str]:
    """What is wrong with the trace in a folder: one sentence a finding, none if it is sound.

    Reads everything: batches against the checksums of the commit log, then the invariants.

    Raises:
        TraceError: the folder is no trace, or is of a format version that we do not know.
    """
    trace = open_trace(path)
    found: list[str] = []
    for storage in getattr(trace.storage, "parts", [trace.storage]):
        if isinstance(storage, StoredStorage) and not storage.packed and storage.level != "counts":
            found += _checksum_failures(storage)
    if not trace.provenance.complete:
        found.append("The run did not come to its end; what was committed is the trace.")
    try:
        found += violations(trace, limit=limit)
        len(trace.vocabulary)
    except TraceError as error:
        found.append(str(error))
    return found[:limit]


def _checksum_failures(storage: StoredStorage) -> list[str]:
    found = []
    said = read_commits(storage.path)
    start = 0
    for stop, crc in said.batches:
        try:
            if batch_checksum(storage.path, storage.array_names, start=start, stop=stop) != crc:
                found.append(f"Tokens {start} to {stop} are not what was written: their checksum differs.")
        except TraceError as error:
            found.append(str(error))
            break
        start = stop
    if (adapters := storage.stored_adapters) is not None:
        found += adapters.failures(adapters.batches)
        found += _lost_adapters(storage, adapters.n_adapters)
    prompts = storage.path / PROMPTS
    complete = storage.provenance.complete and said.prompts_crc is not None
    if complete and prompts.exists() and checksum(prompts.read_bytes()) != said.prompts_crc:
        found.append(f"{prompts} is not what was written: its checksum differs.")
    return found


def _lost_adapters(storage: StoredStorage, n_adapters: int) -> list[str]:
    """Rows whose adapter was never written; a recorder that leaves one out on purpose marks its rows itself."""
    if "adapter_index" not in storage.array_names:
        return []
    rows = storage.stored_rows("adapter_index", decoded=False)
    n_lost = 0
    for start in range(0, storage.n_tokens, N_TOKENS_A_READ):
        n_lost += int((rows.read(start, min(start + N_TOKENS_A_READ, storage.n_tokens)) >= n_adapters).sum())
    return [f"{n_lost} times an adapter was applied that the trace does not hold."] if n_lost else []
