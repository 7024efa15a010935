"""TraceWriter: a trace that grows in a folder, batch by batch, and survives a kill at any moment."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import numpy as np
import pandas as pd
import xarray as xr

from routing.adapters import MAX_PARAMETERS, AdapterSite
from routing.errors import RecordingError
from routing.facts import LayerFacts, Provenance, stacks_of
from routing.storage import Level, Unit, id_dtype, with_prompt_columns
from routing.store.adapters import CHUNK_ADAPTERS, AdapterAppender
from routing.store.appender import ArrayAppender, finish_array
from routing.store.batch import TokenBatch, require_numbers, stored_arrays
from routing.store.commits import CommitLog
from routing.store.files import full_disk, write_json, write_table
from routing.store.finish import header_of, write_missing_parts
from routing.store.format import CHUNK_TOKENS, ZARR_GROUP, ArraySpec, LogitsType, array_specs, checksum, content_digest
from routing.store.stored import HEADER
from routing.store.tables import PROMPTS, write_counts, write_vocabulary
from routing.store.vectors import vector_checksums, write_vectors
from routing.tasks import TaskSet

__all__ = ["TraceWriter"]

Method = TypeVar("Method", bound=Callable[..., Any])


def _alone(method: Method) -> Method:
    """The method, one thread at a time."""

    @wraps(method)
    def waiting(self: TraceWriter, *args: Any, **options: Any) -> Any:
        with self._lock:
            return method(self, *args, **options)

    return cast(Method, waiting)


class TraceWriter:
    """Writes one trace into one folder.

    Each batch is written to the arrays first, then committed by a line in the log: whatever kills the process,
    the committed prefix is the trace. Leaving the context by an exception closes the trace as incomplete.

    Args:
        path: folder of the trace; it must not hold one.
        layer_facts: facts of the routers, in the order of the layer axis.
        level: "full" (with logits), "assignments" or "counts".
        n_runners_up: ranks kept beyond each layer's top_k, where the layer has that many experts.
        n_ranks: ranks kept in all, where that is known better than by `n_runners_up`.
        unit: what a row is.
        logits_dtype: type of the logits at level "full"; None leaves them out.
        provenance: how the trace comes to be.
        tasks: the tasks and prompts of the run; sets the prompts.
        vocabulary: piece of text of each token id.
        chunk_tokens: rows a chunk of the arrays.
        adapter_sites: where generated adapters are applied, if anywhere; every batch then says which ones.
        adapter_seed: seed of the projection of adapters that are larger than the cap.
        max_adapter_parameters: the cap, numbers kept of an adapter.
        n_batches_a_sync: how often the system is asked to put batches on the disk before they are committed;
            0 leaves that to the system, and then a power loss may cost the last batches.

    Raises:
        RecordingError: the folder holds a trace or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        layer_facts: Sequence[LayerFacts],
        level: Level = "full",
        n_runners_up: int = 4,
        n_ranks: int | None = None,
        unit: Unit = "token",
        logits_dtype: LogitsType | None = "bfloat16",
        provenance: Provenance | None = None,
        tasks: TaskSet | None = None,
        vocabulary: Mapping[int, str] | None = None,
        chunk_tokens: int = CHUNK_TOKENS,
        n_batches_a_sync: int = 0,
        adapter_sites: Sequence[AdapterSite] = (),
        adapter_seed: int = 0,
        max_adapter_parameters: int = MAX_PARAMETERS,
    ) -> None:
        self.path = Path(path)
        self.layer_facts = tuple(layer_facts)
        self.level: Level = level
        self.unit: Unit = unit
        self.provenance = provenance or Provenance()
        self.n_ranks = n_ranks or max(min(facts.n_experts, facts.top_k + n_runners_up) for facts in self.layer_facts)
        self.n_experts = max(facts.n_experts for facts in self.layer_facts)
        self.top_k = max(facts.top_k for facts in self.layer_facts)
        self.expert_dtype = id_dtype(self.n_experts)
        self.absent = int(np.iinfo(self.expert_dtype).max)
        self.stacks = stacks_of(self.layer_facts)
        self.n_tokens = self.n_bytes = 0
        self._logits_dtype = logits_dtype if level == "full" else None
        self._chunk_tokens, self._n_batches_a_sync = chunk_tokens, n_batches_a_sync
        self._specs: dict[str, ArraySpec] = {}
        self._appenders: list[ArrayAppender] = []
        self._adapters: AdapterAppender | None = None
        if adapter_sites:
            self._adapters = AdapterAppender(
                self.path, adapter_sites, seed=adapter_seed, max_parameters=max_adapter_parameters,
                chunk_adapters=min(CHUNK_ADAPTERS, chunk_tokens),
            )  # fmt: skip
        self._vectors: list[str] = []
        self._prompt_ids: list[str] = []
        self._n_prompts_written = self._n_prompts_named = self._n_rows = 0
        self._held: list[tuple[int, int]] = []  # (rows, checksum) of batches that wait for the prompts they name
        self._tasks: list[dict[str, Any]] = []
        self._n_parts = self._n_batches = 0
        self._failed: RecordingError | None = None
        # Scores arrive from the evaluation's thread while batches arrive from the writer's.
        self._lock = threading.RLock()
        self._closed = False
        if (self.path / HEADER).exists():
            msg = f"{self.path} already holds a trace, and a trace is written once. Choose another folder or remove it."
            raise RecordingError(msg)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._log = CommitLog(self.path)
            fcntl.flock(self._log.fileno, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"{self.path} is being written by another process. Choose another folder, or wait."
            raise RecordingError(msg) from error
        except OSError as error:
            raise full_disk(error, self.path, kept="Nothing was recorded.") from error
        self._write_header()
        if vocabulary is not None:
            self.set_vocabulary(vocabulary)
        if tasks is not None:
            self.set_prompts(tasks.table())

    @_alone
    def set_prompts(self, prompts: pd.DataFrame) -> None:
        """Write the prompt table anew: before the first batch, and whenever predictions or scores arrive.

        Raises:
            TraceError: ids are missing or not unique.
            RecordingError: the table is shorter than before, or cannot be written.
        """
        self._require_open()
        table = with_prompt_columns(prompts)
        if len(table) < len(self._prompt_ids):
            msg = (
                f"The new prompt table has {len(table)} rows, but {len(self._prompt_ids)} were set before. "
                "Give all prompts again, in the same order."
            )
            raise RecordingError(msg)
        content = write_table(self.path / PROMPTS, table)
        self._guarded(lambda: self._log.commit_prompts(checksum(content)))
        self._prompt_ids = table["prompt"].tolist()
        self._n_prompts_written = len(table)
        self._guarded(self._commit)
        counted = table.groupby("task", sort=False)["task_type"].agg(["first", "size"])
        tasks = [
            {"name": str(name), "task_type": str(row["first"]), "n_prompts": int(row["size"])}
            for name, row in counted.iterrows()
        ]
        if tasks != self._tasks:
            self._tasks = tasks
            self._write_header()

    @_alone
    def announce_prompts(self, ids: Sequence[str]) -> None:
        """Name the prompts that the next `set_prompts` will add to the table, so that their tokens can be appended now.

        Batches that name an announced prompt are written at once, and committed with that table.
        """
        self._require_open()
        self._prompt_ids.extend(ids)

    @_alone
    def set_vocabulary(self, pieces: Mapping[int, str]) -> None:
        """Write the pieces of text by token id anew."""
        self._require_open()
        write_vocabulary(self.path, pieces)

    @_alone
    def add_adapters(
        self,
        keys: Sequence[tuple[str, str]],
        parameters: np.ndarray,
        *,
        conditioning: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Write adapters into the dictionary, before or after the rows that name them.

        Args:
            keys: (label of the site, key) of each; a pair can be added once.
            parameters: (adapter, parameter), as `routing.flattened_adapter` makes them.
            conditioning: for each name (adapter, feature); the same names every time.

        Returns:
            (adapter,) · number of each new adapter, counted on from those before · 0 and up.

        Raises:
            RecordingError: the adapters do not fit, or cannot be written.
        """
        self._require_open()
        if self._adapters is None:
            msg = "The trace was begun without sites of adapters. Name them when the writer is made."
            raise RecordingError(msg)
        into, named = self._adapters, [(str(site), str(key)) for site, key in keys]
        rows, first = into.checked(named, parameters, conditioning or {}), into.facts["n_adapters"]
        if not into.begun:
            self._guarded(lambda: into.begin(conditioning or {}))
            self._write_header()
        self._guarded(lambda: self._count(into.append(named, rows)))
        return np.arange(first, first + len(named))

    @_alone
    def set_vectors(self, tables: Mapping[str, xr.DataArray]) -> None:
        """Write small tables read off the model or the examples; those of the same name are replaced.

        Raises:
            RecordingError: a table holds no plain numbers, or cannot be written.
        """
        self._require_open()
        write_vectors(self.path, tables)
        names = sorted({*self._vectors, *tables})
        if names != self._vectors:
            self._vectors = names
            self._write_header()

    @_alone
    def set_counts(self, counts: np.ndarray, *, tasks: Sequence[str], n_tokens: int) -> None:
        """Write the counts of a trace of level "counts" anew: (task, layer, expert) and tokens counted so far."""
        self._require_open()
        layers = [facts.label for facts in self.layer_facts]
        expected = (len(tasks), len(layers), self.n_experts)
        if self.level != "counts" or counts.shape != expected:
            msg = (
                f"Counts of shape {counts.shape} were given to a trace of level {self.level!r} that keeps {expected}. "
                "Count along the trace's own tasks, layers and experts, at level 'counts'."
            )
            raise RecordingError(msg)
        write_counts(self.path, counts, tasks=tasks, layers=layers, n_tokens=n_tokens)
        self.n_tokens, self.n_bytes = n_tokens, counts.nbytes

    @_alone
    def append(self, batch: TokenBatch) -> None:
        """Write a batch and commit it; where it names announced prompts, the next `set_prompts` commits it.

        Raises:
            RecordingError: the batch does not fit, holds NaN where a router decided, or cannot be written.
        """
        self._require_open()
        if self.level == "counts":
            msg = "A trace of level 'counts' keeps no tokens. Use set_counts, or record at level 'assignments'."
            raise RecordingError(msg)
        if not self._specs:
            self._guarded(lambda: self._begin(with_dropped=batch.dropped is not None))
        arrays = stored_arrays(batch, self._specs)
        named = dict(zip(self._specs, arrays, strict=True))
        require_numbers(named, layer_facts=self.layer_facts, prompt_ids=self._prompt_ids, specs=self._specs)
        self._n_prompts_named = max(self._n_prompts_named, 1 + int(named["prompt"].max(initial=-1)))
        self._guarded(lambda: self._write_batch(arrays))
        if self.n_tokens // self._chunk_tokens > self._n_parts:
            self._n_parts = write_missing_parts(
                self.path, self.stacks, self._specs, n_tokens=self.n_tokens, whole_only=True
            )

    @_alone
    def close(self, *, complete: bool = True, **updates: Any) -> None:
        """Make the folder whole for every reader and write what is now known into its header.

        Args:
            complete: whether the run came to its end.
            updates: further fields of the provenance.

        Raises:
            RecordingError: the system would not take what was written; the committed prefix stays readable.
        """
        if self._closed:
            return
        self._closed = True
        try:
            for appender in self._appenders:
                appender.close()
            if self._adapters is not None:
                self._adapters.close()
            for spec in self._specs.values():
                finish_array(self.path / ZARR_GROUP, spec, self.n_tokens)
            if self._specs:
                write_missing_parts(self.path, self.stacks, self._specs, n_tokens=self.n_tokens)
            whole = complete and self._failed is None and not self._held
            done = {"complete": whole, "n_tokens": self.n_tokens, "n_bytes": self.n_bytes}
            self.provenance = replace(self.provenance, **(done | updates))
            self._write_header(final=True)
        except OSError as error:
            raise self._no_room(error) from error
        finally:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close(complete=kind is None)
        except RecordingError as also:
            if error is None:
                raise
            error.add_note(f"The trace could not be closed either: {also}")

    def _begin(self, *, with_dropped: bool) -> None:
        self._specs = array_specs(
            self.layer_facts,
            n_ranks=self.n_ranks,
            logits_dtype=self._logits_dtype,
            with_dropped=with_dropped,
            n_sites=0 if self._adapters is None else len(self._adapters.sites),
            chunk_tokens=self._chunk_tokens,
        )
        group = self.path / ZARR_GROUP
        group.mkdir(exist_ok=True)
        facts = {"layers": [each.label for each in self.layer_facts], "stacks": list(self.stacks)}
        write_json(group / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": facts})
        self._appenders = [ArrayAppender(group, spec) for spec in self._specs.values()]
        self._write_header()

    def _write_batch(self, arrays: list[np.ndarray]) -> None:
        crc = 0
        for appender, rows in zip(self._appenders, arrays, strict=True):
            crc = checksum(rows, crc)
            appender.append(rows)
            self.n_bytes += rows.nbytes
        self._n_batches += 1
        if self._n_batches_a_sync and self._n_batches % self._n_batches_a_sync == 0:
            for appender in self._appenders:
                appender.sync()
            self._log.sync()
        self._n_rows += len(arrays[0])
        self._held.append((self._n_rows, crc))
        self._commit()

    def _commit(self) -> None:
        if self._n_prompts_named > self._n_prompts_written:
            return
        held, self._held = self._held, []
        for n_tokens, crc in held:
            self._log.commit_batch(n_tokens, crc)
            self.n_tokens = n_tokens
        for appender in self._appenders if held else ():
            appender.publish()

    def _write_header(self, *, final: bool = False) -> None:
        header = header_of(
            layer_facts=self.layer_facts, level=self.level, unit=self.unit, n_ranks=self.n_ranks,
            arrays=list(self._specs), chunk_tokens=self._chunk_tokens, logits_dtype=self._logits_dtype,
            tasks=self._tasks, provenance=self.provenance, n_tokens=self.n_tokens if final else 0,
            adapters=None if self._adapters is None else self._adapters.facts, vectors=self._vectors,
        )  # fmt: skip
        if final and self.level != "counts":
            said = self._log.said
            beside = {
                "adapters": [] if self._adapters is None else [list(each) for each in self._adapters.batches],
                "vectors": vector_checksums(self.path, self._vectors),
            }
            header["digest"] = content_digest(list(said.batches), said.prompts_crc, header, beside=beside)
        write_json(self.path / HEADER, header, synced=final and self._n_batches_a_sync > 0)

    def _count(self, n_bytes: int) -> None:
        self.n_bytes += n_bytes

    def _guarded(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self._failed = self._no_room(error)
            raise self._failed from error
        except RecordingError as error:
            self._failed = error
            raise

    def _no_room(self, error: OSError) -> RecordingError:
        return full_disk(error, self.path, kept=f"The first {self.n_tokens} tokens are whole and can be opened.")

    def _require_open(self) -> None:
        if self._closed:
            msg = f"The trace {self.path} is closed. Write into a new folder."
            raise RecordingError(msg)
        if self._failed is not None:
            raise self._failed
