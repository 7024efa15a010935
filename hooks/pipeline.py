"""The way of a pass from the model to the trace: gathered, packed, carried, written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hooks.assembly import assembled
from hooks.beside import Beside
from hooks.courier import Courier
from hooks.ledger import RowLedger
from hooks.packing import ArrayPlan, Lane
from hooks.parcels import Parcel
from hooks.passes import Pass
from hooks.prompt_book import PromptBook
from hooks.prompt_ledger import PromptLedger
from hooks.provenance import now, self_check
from hooks.sinks import CountSink, Sink, TraceSink
from hooks.sites import Site
from hooks.staging import Stager
from hooks.taps import Reading
from hooks.vocabulary import pieces_of
from routing import LayerFacts, Provenance, TraceWriter

__all__ = ["Level", "LogitsPrecision", "Pipeline"]

Level = Literal["full", "assignments", "counts"]
LogitsPrecision = Literal["auto", "bfloat16", "float16", "float32"]

N_BUFFERS = 3  # one being filled, one on its way, one being written
N_ROWS_A_DELIVERY = 8192
N_PASSES_A_DELIVERY = 64
SECONDS_A_DELIVERY = 2.0  # what a kill costs at most, when little is recorded


class Pipeline:
    """Gathers passes and writes them to a trace. Created once every router has been proven.

    Steps of generation are small, so they are packed many at a time: the work that a delivery queues on the device
    is the same for one row as for thousands.

    Args:
        out: folder of the trace.
        sites: routers of the model; those whose number of experts nobody knows have no place in the trace.
        first: the passes so far, from which devices and precisions are learned.
        courier: the writing thread.
        book: the prompt table.
        ledger: follows the texts.
        level: what is kept.
        n_runners_up: unselected experts kept for each decision.
        logits: precision of kept logits; "auto" keeps bfloat16 as it is and anything else as float16.
        provenance: how the trace comes to be.
        beside: adapters and vectors that stand beside the routing.
        unit: what a row is.
        eager: deliver after every pass, since what the taps hold is overwritten by the next.
    """

    def __init__(
        self,
        out: Path,
        *,
        sites: Sequence[Site],
        first: Sequence[Pass],
        courier: Courier,
        book: PromptBook,
        ledger: RowLedger | PromptLedger,
        level: Level,
        n_runners_up: int,
        logits: LogitsPrecision,
        provenance: Provenance,
        beside: Beside,
        unit: Literal["token", "prompt"] = "token",
        eager: bool = False,
    ) -> None:
        self.sites = list(sites)
        self._layers = [number for number, site in enumerate(sites) if site.facts.n_experts and site.facts.top_k]
        readings = _first_readings(first, len(sites))
        self._courier, self._book, self._ledger, self._eager = courier, book, ledger, eager
        silent = [
            each.facts.label
            for each, seen in zip(sites, readings, strict=True)
            if seen is not None and seen.logits is None
        ]
        if level == "full" and silent:
            level = "assignments"
            note = f"The routers of {', '.join(silent)} show no logits, so assignments were kept without."
            provenance = replace(provenance, note=" ".join(filter(None, (provenance.note, note))))
        logits_type = _logits_type(logits, readings) if level == "full" else None
        self.writer = TraceWriter(
            out,
            layer_facts=self.layer_facts,
            level=level,
            n_runners_up=n_runners_up if level != "counts" else 0,
            logits_dtype=None if logits_type is None else str(logits_type).removeprefix("torch."),
            provenance=provenance,
            unit=unit,
            adapter_sites=beside.sites,
        )
        self._beside = beside
        beside.begin(self.writer)
        self.sink: Sink = (
            CountSink(self.writer, book, layer_facts=self.layer_facts)
            if level == "counts"
            else TraceSink(self.writer, book)
        )
        courier.at_rest = self.sink.settle
        self._plan = ArrayPlan(
            n_runners_up=n_runners_up if level != "counts" else 0,
            n_ranks=self.writer.n_ranks,
            id_type=torch.uint8 if self.writer.expert_dtype == np.uint8 else torch.int16,
            logits_type=logits_type,
            with_scores=level != "counts",
            with_dropped=level != "counts" and any(seen is not None and seen.dropped is not None for seen in readings),
        )
        self._stagers = {device: self._stager(device, lanes) for device, lanes in self._lanes(readings).items()}
        self._pending: list[tuple[Pass, dict[str, int]]] = []
        self._n_pending = 0
        self._delivered = time.monotonic()
        self.ids_seen: set[int] = set()

    @property
    def layer_facts(self) -> tuple[LayerFacts, ...]:
        """Facts of the routers along the layer axis."""
        return tuple(self.sites[number].facts for number in self._layers)

    def holds(self, number: int) -> bool:
        """Whether a router has a place in the trace."""
        return number in self._layers

    def add(self, one: Pass, n_rows: dict[str, int]) -> None:
        """Take a pass; now and then this queues a delivery."""
        self._pending.append((one, n_rows))
        self._n_pending += sum(n_rows.values())
        if (
            self._eager
            or self._n_pending >= N_ROWS_A_DELIVERY
            or len(self._pending) >= N_PASSES_A_DELIVERY
            or time.monotonic() - self._delivered > SECONDS_A_DELIVERY
        ):
            self.deliver()

    def deliver(self) -> None:
        """Queue what is pending for the writing thread; waits only if that has fallen behind.

        Raises:
            RecordingError: the writing thread has failed.
        """
        pending, self._pending, self._n_pending = self._pending, [], 0
        self._delivered = time.monotonic()
        if not pending:
            return
        for errand in self._beside.errands(self.writer):
            self._courier.send(errand)
        passes, n_rows = [one for one, _ in pending], [rows for _, rows in pending]
        readings: list[list[Reading | None]] = []
        for one in passes:
            readings.append([one.readings[number] for number in self._layers])
            one.readings = []
        at_once, by_device = _notes(passes)
        parcels: list[Parcel] = []
        try:
            for device in dict.fromkeys((*self._stagers, *by_device)):
                if device not in self._stagers:
                    self._stagers[device] = self._stager(device, [])
                parcels.append(self._stagers[device].packed(readings, n_rows=n_rows, notes=by_device.get(device, [])))
        except BaseException:
            _release(parcels)
            raise
        self._courier.send(lambda: self._write(passes, parcels, at_once), give_up=lambda: _release(parcels))

    def close(self, *, complete: bool, tokenizer: Any, **updates: Any) -> None:
        """Close the trace and let go of the buffers, once the writing thread has ended.

        Args:
            complete: whether the run came to its end.
            tokenizer: gives the pieces of text, or None.
            updates: further facts for the provenance.

        Raises:
            RecordingError: the system would not take what was written.
        """
        for stager in self._stagers.values():
            stager.close()
        try:
            if tokenizer is not None:
                self._book.set_text(lambda ids: tokenizer.decode(ids, skip_special_tokens=False))
                self.writer.set_vocabulary(pieces_of(tokenizer, sorted(self.ids_seen)))
            self.sink.finish()
            self._beside.finish(self.writer)
            if note := self._beside.note:
                given = updates.get("note") or self.writer.provenance.note
                updates["note"] = " ".join(filter(None, (given, note)))
        finally:
            facts = self.writer.layer_facts = self.layer_facts
            checked = self_check(facts, self._beside.sites)
            self.writer.close(complete=complete, finished=now(), self_check=checked, **updates)

    def _write(self, passes: list[Pass], parcels: list[Parcel], notes: dict[tuple[int, str, str], np.ndarray]) -> None:
        """On the writing thread: wait for the copies, tell tokens from padding, keep."""
        try:
            lanes: dict[Lane, dict[str, np.ndarray]] = {}
            for parcel in parcels:
                for key, array in parcel.arrays().items():
                    if isinstance(key, tuple) and isinstance(key[0], Lane):
                        lanes.setdefault(key[0], {})[key[1]] = array
                    elif isinstance(key, tuple):
                        notes[key] = array
            batch = assembled(
                passes,
                notes=notes,
                lanes=lanes,
                ledger=self._ledger,
                layer_facts=self.layer_facts,
                stacks=self.writer.stacks,
                name_of_prompt=self._book.name,
            )
            if batch is not None:
                self.ids_seen.update(np.unique(batch.columns["token_id"]).tolist())
                self._beside.take(batch, name_of_prompt=self._book.name)
                self.sink.take(batch)
        finally:
            _release(parcels)

    def _stager(self, device: torch.device, lanes: Sequence[Lane]) -> Stager:
        return Stager(device, lanes=lanes, plan=self._plan, n_buffers=N_BUFFERS, on_wait=self._courier.check)

    def _lanes(self, readings: Sequence[Reading | None]) -> dict[torch.device, list[Lane]]:
        members: dict[tuple[torch.device, str], list[int]] = {}
        for place, number in enumerate(self._layers):
            site, seen = self.sites[number], readings[number]
            device = seen.ids.device if seen is not None else _device_of(site)
            members.setdefault((device, site.facts.stack), []).append(place)
        lanes: dict[torch.device, list[Lane]] = {}
        for (device, stack), places in members.items():
            numbers = [self._layers[place] for place in places]
            lane = Lane(
                stack=stack,
                layers=tuple(places),
                facts=tuple(self.sites[number].facts for number in numbers),
                # By number: a router that first runs later is proven, and its rule learned, only then.
                scores_of=tuple(
                    lambda logits, number=number: self.sites[number].selection_scores(logits) for number in numbers
                ),
            )
            lanes.setdefault(device, []).append(lane)
        return lanes


def _first_readings(passes: Sequence[Pass], n_sites: int) -> list[Reading | None]:
    return [
        next((one.readings[number] for one in passes if one.readings[number] is not None), None)
        for number in range(n_sites)
    ]


def _logits_type(asked: LogitsPrecision, readings: Sequence[Reading | None]) -> torch.dtype:
    if asked != "auto":
        return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[asked]
    native = {seen.logits.dtype for seen in readings if seen is not None and seen.logits is not None}
    # float16 has the finer steps; logits beyond its range are reported, never clipped.
    return torch.bfloat16 if native == {torch.bfloat16} else torch.float16


def _notes(
    passes: Sequence[Pass],
) -> tuple[dict[tuple[int, str, str], np.ndarray], dict[torch.device, list[tuple[tuple[int, str, str], Tensor]]]]:
    """Ids, masks, positions and nll: those on the host as they are, the others to be carried with the arrays."""
    at_once: dict[tuple[int, str, str], np.ndarray] = {}
    by_device: dict[torch.device, list[tuple[tuple[int, str, str], Tensor]]] = {}
    for number, one in enumerate(passes):
        for stack, seen in one.stacks.items():
            for name in ("ids", "mask", "positions", "nll"):
                value: Tensor | None = getattr(seen, name)
                if value is None:
                    continue
                if value.device.type == "cpu":
                    at_once[number, stack, name] = value.numpy()
                else:
                    by_device.setdefault(value.device, []).append(((number, stack, name), value))
                setattr(seen, name, None)
            for name, value in seen.carried.items():
                if value.device.type == "cpu":
                    at_once[number, stack, name] = value.numpy()
                else:
                    bits = value.view(torch.int32)
                    by_device.setdefault(value.device, []).append(((number, stack, name), bits))
            seen.carried = dict.fromkeys(seen.carried)
    return at_once, by_device


def _device_of(site: Site) -> torch.device:
    for module in (site.tap.router, site.tap.experts, site.tap.block):
        for parameter in module.parameters():
            return parameter.device
    return torch.device("cpu")


def _release(parcels: Sequence[Parcel]) -> None:
    for parcel in parcels:
        parcel.release()
