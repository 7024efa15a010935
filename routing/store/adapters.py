"""The dictionary of adapters in a folder: it grows while the model runs, and what was committed survives a kill."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from routing.adapters import MAX_PARAMETERS, MISSING_ADAPTER, Adapters, AdapterSite, stored_parameters
from routing.errors import RecordingError, TraceError
from routing.rows import MemoryRows, Rows
from routing.store.appender import ArrayAppender, finish_array
from routing.store.commits import LOG, CommitLog
from routing.store.files import write_json
from routing.store.format import ArraySpec, checksum, chunk_rows_of
from routing.store.rawrows import RawRows

__all__ = [
    "ADAPTERS",
    "CHUNK_ADAPTERS",
    "AdapterAppender",
    "KnownRows",
    "StoredAdapters",
    "adapter_facts",
    "adapter_specs",
]

ADAPTERS = "adapters"
CHUNK_ADAPTERS = 1024


def adapter_facts(
    sites: Sequence[AdapterSite],
    *,
    seed: int,
    max_parameters: int,
    conditioning: Mapping[str, int],
    n_adapters: int,
    chunk_adapters: int = CHUNK_ADAPTERS,
) -> dict[str, Any]:
    """What the header says of the adapters."""
    n_full = max(site.n_parameters for site in sites)
    return {
        "sites": [site.to_json() for site in sites],
        "n_parameters": min(n_full, max_parameters),
        "n_parameters_full": n_full,
        "projected": n_full > max_parameters,
        "seed": seed,
        "conditioning": dict(conditioning),
        "n_adapters": n_adapters,
        "chunk_adapters": chunk_adapters,
    }


def adapter_specs(facts: Mapping[str, Any]) -> dict[str, ArraySpec]:
    """The arrays of the group of adapters, in the order in which a batch is checksummed."""
    sizes = {"parameters": int(facts["n_parameters"])} | {name: int(n) for name, n in facts["conditioning"].items()}
    return {
        name: ArraySpec(
            name=name,
            dtype=np.dtype(np.float32),
            tail=(size,),
            dims=("adapter", "parameter" if name == "parameters" else f"{name}_feature"),
            fill="NaN",
            chunk_rows=chunk_rows_of(int(facts["chunk_adapters"]), 4 * size),
        )
        for name, size in sizes.items()
    }


class AdapterAppender:
    """Writes the adapters of a trace, in the order in which they are added.

    Args:
        folder: the trace's folder.
        sites: where adapters are applied.
        seed: seed of the projection of adapters above the cap.
        max_parameters: numbers kept of an adapter.
        chunk_adapters: adapters a chunk.
    """

    def __init__(
        self,
        folder: Path,
        sites: Sequence[AdapterSite],
        *,
        seed: int = 0,
        max_parameters: int = MAX_PARAMETERS,
        chunk_adapters: int = CHUNK_ADAPTERS,
    ) -> None:
        self.sites = tuple(sites)
        self.batches: list[tuple[int, int]] = []
        self._folder = folder / ADAPTERS
        self._seed, self._max_parameters, self._chunk_adapters = seed, max_parameters, chunk_adapters
        self._known: set[tuple[str, str]] = set()
        self._conditioning: dict[str, int] | None = None
        self._appenders: list[ArrayAppender] = []
        self._log: CommitLog | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What the header says of the adapters."""
        return adapter_facts(
            self.sites,
            seed=self._seed,
            max_parameters=self._max_parameters,
            conditioning=self._conditioning or {},
            n_adapters=len(self._known),
            chunk_adapters=self._chunk_adapters,
        )

    @property
    def begun(self) -> bool:
        """Whether an adapter was added."""
        return self._conditioning is not None

    def begin(self, conditioning: Mapping[str, np.ndarray]) -> None:
        """Fix what adapters are made from and make the files; the header has to be written after this."""
        if wrong := [name for name in conditioning if not re.fullmatch(r"(?!parameters$)[A-Za-z0-9_]+", name)]:
            msg = f"{wrong} cannot name what adapters are made from. Use letters, digits and '_'."
            raise RecordingError(msg)
        self._conditioning = {name: int(values.shape[1]) for name, values in conditioning.items()}
        self._folder.mkdir(exist_ok=True)
        write_json(self._folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {}})
        self._appenders = [ArrayAppender(self._folder, spec) for spec in adapter_specs(self.facts).values()]
        self._log = CommitLog(self._folder)

    def checked(
        self, keys: Sequence[tuple[str, str]], parameters: np.ndarray, conditioning: Mapping[str, np.ndarray]
    ) -> list[np.ndarray]:
        """The rows to be written, in the order of the arrays.

        Raises:
            RecordingError: the adapters do not fit the sites or each other, are there already, or are not numbers.
        """
        labels = [site.label for site in self.sites]
        for site, key in keys:
            if site not in labels or (site, key) in self._known:
                why = "is there already" if site in labels else f"is of none of the sites {labels}"
                msg = f"The adapter {key!r} of {site!r} {why}. Add each adapter of a declared site once."
                raise RecordingError(msg)
        if len(set(keys)) != len(keys):
            msg = "Two adapters of one batch have the same site and key. Add each adapter once."
            raise RecordingError(msg)
        facts = self.facts
        widths = {"parameters": facts["n_parameters_full"]} | {name: v.shape[-1] for name, v in conditioning.items()}
        if self._conditioning is not None:
            widths = {"parameters": facts["n_parameters_full"]} | self._conditioning
        given = {"parameters": np.asarray(parameters, dtype=np.float32)}
        given |= {name: np.asarray(values, dtype=np.float32) for name, values in conditioning.items()}
        already_projected = facts["projected"] and given["parameters"].shape[-1] == facts["n_parameters"]
        if already_projected:
            widths["parameters"] = facts["n_parameters"]
        shapes = {name: values.shape for name, values in given.items()}
        if shapes != {name: (len(keys), width) for name, width in widths.items()}:
            msg = (
                f"{len(keys)} adapters came with arrays of shape {shapes}, but (adapter, number) with the widths "
                f"{widths} were expected. Give one row an adapter, and every time the same arrays."
            )
            raise RecordingError(msg)
        ends = {site.label: site.n_parameters for site in self.sites}
        size = np.array([ends[site] for site, _ in keys])
        there = np.ones(shapes["parameters"], dtype=bool)
        if not already_projected:
            there = np.arange(shapes["parameters"][1]) < size[:, None]
        if (bad := (there & ~np.isfinite(given["parameters"])).any(axis=1)).any():
            site, key = keys[int(np.argmax(bad))]
            msg = f"The adapter {key!r} of {site} holds numbers that are not finite. Check the checkpoint."
            raise RecordingError(msg)
        if not already_projected:
            kept = stored_parameters(given["parameters"], max_parameters=self._max_parameters, seed=self._seed)
            given["parameters"] = kept
        return [np.ascontiguousarray(given[name]) for name in widths]

    def append(self, keys: Sequence[tuple[str, str]], rows: Sequence[np.ndarray]) -> int:
        """Write checked rows and commit them; gives back how many bytes that were."""
        assert self._log is not None
        crc = 0
        for appender, values in zip(self._appenders, rows, strict=True):
            crc = checksum(values, crc)
            appender.append(values)
        n_adapters = len(self._known) + len(keys)
        self._log.commit_batch(n_adapters, crc, keys=[list(key) for key in keys])
        self._known.update(keys)
        self.batches.append((n_adapters, crc))
        for appender in self._appenders:
            appender.publish()
        return sum(values.nbytes for values in rows)

    def close(self) -> None:
        """Make the arrays whole for every reader."""
        for appender in self._appenders:
            appender.close()
            finish_array(self._folder, appender.spec, len(self._known))
        if self._log is not None:
            self._log.close()


@dataclass(frozen=True)
class StoredAdapters:
    """The dictionary in a folder, as far as it is whole.

    Attributes:
        folder: the trace's folder.
        facts: what the header says of the adapters.
        packed: whether the arrays are compressed.
        complete: whether the run came to its end.
    """

    folder: Path
    facts: Mapping[str, Any]
    packed: bool
    complete: bool

    @cached_property
    def batches(self) -> list[tuple[int, int, list[list[str]]]]:
        """(adapters whole after the batch, its checksum, its keys), as far as the log makes sense."""
        try:
            content = (self.folder / ADAPTERS / LOG).read_bytes()
        except OSError:
            content = b""
        found: list[tuple[int, int, list[list[str]]]] = []
        for line in content.splitlines(keepends=True):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else {}
                n_adapters, crc, keys = int(entry["n"]), int(entry["crc32"], 16), entry["keys"]
            except (ValueError, TypeError, KeyError):
                break
            if n_adapters != (found[-1][0] if found else 0) + len(keys):
                break
            found.append((n_adapters, crc, keys))
        while not self.complete and found and self.failures(found[-1:], start=found[-1][0] - len(found[-1][2])):
            found.pop()
        promised = int(self.facts["n_adapters"])
        if self.complete and (found[-1][0] if found else 0) < promised:
            msg = (
                f"{self.folder / ADAPTERS / LOG} names fewer adapters than the {promised} of the header. "
                "Restore the folder from a copy."
            )
            raise TraceError(msg)
        return found

    @property
    def n_adapters(self) -> int:
        """Adapters that are whole."""
        return self.batches[-1][0] if self.batches else 0

    def read(self) -> Adapters:
        """The adapters; their parameters are read when they are asked for."""
        keys = [key for _, _, each in self.batches for key in each]
        rows = {name: self.rows(name) for name in adapter_specs(self.facts)}
        return Adapters(
            sites=tuple(AdapterSite.from_json(each) for each in self.facts["sites"]),
            keys=pd.DataFrame(keys, columns=["site", "key"], dtype="str"),
            parameter_rows=rows.pop("parameters"),
            conditioning_rows=rows,
            n_parameters_full=int(self.facts["n_parameters_full"]),
            projected=bool(self.facts["projected"]),
            seed=int(self.facts["seed"]),
        )

    def rows(self, name: str) -> Rows:
        """An array of the group."""
        spec = adapter_specs(self.facts)[name]
        if self.n_adapters == 0:
            return MemoryRows(np.zeros((0, *spec.tail), dtype=spec.dtype))
        folder = self.folder / ADAPTERS / name
        if self.packed:
            from routing.store.packedrows import PackedRows

            return PackedRows(folder, self.n_adapters)
        return RawRows(folder, self.n_adapters)

    def failures(self, batches: Sequence[tuple[int, int, list[list[str]]]], *, start: int = 0) -> list[str]:
        """Batches whose checksum differs, one sentence each; a packed dictionary has checksums of its own."""
        found: list[str] = []
        if self.packed:
            return found
        for stop, crc, _ in batches:
            now = 0
            try:
                for name in adapter_specs(self.facts):
                    now = checksum(RawRows(self.folder / ADAPTERS / name, stop).read(start, stop), now)
                if now != crc:
                    found.append(f"Adapters {start} to {stop} are not what was written: their checksum differs.")
            except TraceError as error:
                found.append(str(error))
            start = stop
        return found


class KnownRows:
    """An index of adapters in which those that a trace does not hold are said to be missing."""

    def __init__(self, base: Rows, n_adapters: int) -> None:
        self._base, self._n_adapters = base, n_adapters

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return self._base.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self._base.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop."""
        return self._known(self._base.read(start, stop))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The given rows, in the given order; a copy."""
        return self._known(self._base.take(rows))

    def _known(self, values: np.ndarray) -> np.ndarray:
        return np.where(values >= self._n_adapters, values.dtype.type(MISSING_ADAPTER), values)
