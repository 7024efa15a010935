"""Putting the folder of a killed run in order for readers other than ours."""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace
from pathlib import Path

from routing.errors import TraceError
from routing.facts import stacks_of
from routing.store.adapters import ADAPTERS, adapter_specs
from routing.store.appender import finish_array
from routing.store.commits import LOG
from routing.store.files import write_json
from routing.store.finish import write_missing_parts
from routing.store.format import ZARR_GROUP, array_specs, content_digest
from routing.store.stored import HEADER, StoredStorage, open_trace

__all__ = ["recover_trace"]


def recover_trace(path: str | Path) -> int:
    """Make the folder of a killed run well-formed for readers of Zarr and Parquet; how many tokens it holds.

    Our own readers need no recovery: to them the committed prefix is the trace at any time.

    Raises:
        TraceError: the folder is no raw trace of tokens, or is still being written.
    """
    storage = open_trace(path).storage
    if not isinstance(storage, StoredStorage) or storage.packed or storage.level == "counts":
        msg = f"{path} is packed, counted or in parts; only a raw trace of tokens can need recovery. Open it as it is."
        raise TraceError(msg)
    folder, header = storage.path, dict(storage.header)
    log = os.open(folder / LOG, os.O_RDONLY)
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        said, n_tokens = storage.commits, storage.n_tokens
        specs = array_specs(
            storage.layer_facts,
            n_ranks=storage.n_ranks,
            logits_dtype=header.get("logits_dtype"),
            with_dropped="dropped" in storage.array_names,
            n_sites=len(header.get("adapters", {}).get("sites", ())),
            chunk_tokens=int(header["chunk_tokens"]),
        )
        if storage.array_names:
            for name in specs:
                if n_tokens:
                    storage.stored_rows(name, decoded=False).read(n_tokens - 1, n_tokens)  # not cut off
                finish_array(folder / ZARR_GROUP, specs[name], n_tokens)
            write_missing_parts(folder, stacks_of(storage.layer_facts), specs, n_tokens=n_tokens)
        if (adapters := storage.stored_adapters) is not None:
            for spec in adapter_specs(adapters.facts).values() if adapters.n_adapters else ():
                finish_array(folder / ADAPTERS, spec, adapters.n_adapters)
            header["adapters"] = dict(adapters.facts) | {"n_adapters": adapters.n_adapters}
        header["n_tokens"] = n_tokens
        header["digest"] = content_digest(list(said.batches), said.prompts_crc, header, beside=storage.beside)
        known = storage.provenance
        note = known.note or "The run did not come to its end; what was committed was recovered."
        header["provenance"] = replace(known, n_tokens=n_tokens, note=note).to_json()
        write_json(folder / HEADER, header)
    except BlockingIOError as error:
        msg = f"{folder} is still being written by another process. Wait until that has ended."
        raise TraceError(msg) from error
    finally:
        os.close(log)
    return n_tokens
