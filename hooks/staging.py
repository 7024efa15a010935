"""From the device to the host: readings of some passes ranked, packed, and copied beside the model's work.

On CUDA everything here runs on a stream of its own, into pinned memory, so the model's stream never waits: kernels are
queued, one copy follows them, an event says when it has arrived. On a CPU the same code packs in place.

T token, L layer, R rank, K selected rank, E expert.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hooks.kernels import fused_ranking, trusted
from hooks.ranking import ranking
from hooks.taps import Reading
from routing import LayerFacts

__all__ = ["ArrayPlan", "Lane", "Parcel", "Stager"]

_ALIGNMENT = 256  # bytes; typed views of the buffer start at multiples
_HOST_TYPES = {
    torch.uint8: np.dtype(np.uint8),
    torch.bool: np.dtype(bool),
    torch.int16: np.dtype(np.uint16),
    torch.int32: np.dtype(np.int32),
    torch.float16: np.dtype(np.float16),
    torch.float32: np.dtype(np.float32),
    torch.bfloat16: np.dtype(np.uint16),  # numpy has no bfloat16: the bits
}
ScoresOf = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lane:
    """The routers of one stack that run on one device; they see the same tokens, so they share arrays.

    Attributes:
        stack: name of the stack.
        layers: their numbers along the layer axis of the trace.
        facts: their facts.
        scores_of: for each, logits to selection scores (or None where the rule is unknown).
    """

    stack: str
    layers: tuple[int, ...]
    facts: tuple[LayerFacts, ...]
    scores_of: tuple[ScoresOf, ...]


@dataclass(frozen=True, kw_only=True)
class ArrayPlan:
    """What is kept of each reading.

    Attributes:
        n_runners_up: ranks after the selected ones.
        n_ranks: ranks that are stored in every layer; a layer with fewer experts leaves some absent.
        id_type: torch.uint8, or torch.int16 for more experts than that holds.
        logits_type: precision of stored logits; None leaves them out.
        with_scores: whether scores and weights are kept, not ids alone.
        with_dropped: whether any router drops by capacity.
    """

    n_runners_up: int
    n_ranks: int
    id_type: torch.dtype
    logits_type: torch.dtype | None
    with_scores: bool
    with_dropped: bool


@dataclass(kw_only=True)
class Parcel:
    """What is on its way from one device: wait for it, then read its arrays, then give its buffer back."""

    layout: dict[Any, tuple[int, tuple[int, ...], torch.dtype]]
    host: Tensor
    event: Any
    kept_alive: list[Any]
    give_back: Callable[[], None]
    _given: bool = field(default=False)

    def arrays(self) -> dict[Any, np.ndarray]:
        """The arrays by their keys, as views of the host buffer; waits until they have arrived."""
        if self.event is not None:
            self.event.synchronize()
        # The device has done its work, so the model's tensors may go back to its allocator.
        self.kept_alive.clear()
        flat = self.host.numpy()
        found = {}
        for key, (offset, shape, dtype) in self.layout.items():
            n_bytes = int(np.prod(shape)) * dtype.itemsize
            found[key] = flat[offset : offset + n_bytes].view(_HOST_TYPES[dtype]).reshape(shape)
        return found

    def release(self) -> None:
        """Give the buffer back; its arrays are overwritten from now on."""
        if not self._given:
            self._given = True
            self.kept_alive.clear()
            self.give_back()


class _HostBuffer:
    """A reused piece of host memory, pinned where a GPU copies into it."""

    def __init__(self, *, pinned: bool) -> None:
        self._pinned = pinned
        self._memory = torch.empty(0, dtype=torch.uint8)

    def of_size(self, n_bytes: int) -> Tensor:
        if self._memory.numel() < n_bytes:
            # Half as much again: batches of slowly growing length must not pin memory anew each time.
            self._memory = torch.empty(n_bytes + n_bytes // 2, dtype=torch.uint8, pin_memory=self._pinned)
        return self._memory[:n_bytes]


class Stager:
    """Packs what one device recorded.

    Args:
        device: the device.
        lanes: its routers, by stack.
        plan: what is kept.
        n_buffers: parcels that may be under way; a further one waits until the writer has caught up.
        on_wait: called now and then while waiting; it raises if the writer has failed.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        lanes: Sequence[Lane],
        plan: ArrayPlan,
        n_buffers: int,
        on_wait: Callable[[], None],
    ) -> None:
        self._device, self._lanes, self._plan, self._on_wait = device, tuple(lanes), plan, on_wait
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._free: queue.SimpleQueue[_HostBuffer] = queue.SimpleQueue()
        for _ in range(n_buffers):
            self._free.put(_HostBuffer(pinned=self._stream is not None))

    def packed(
        self,
        readings: Sequence[Sequence[Reading | None]],
        *,
        n_rows: Sequence[Mapping[str, int]],
        notes: Sequence[tuple[Any, Tensor]],
    ) -> Parcel:
        """A parcel of what some passes left on this device.

        Args:
            readings: (pass, layer); layers of other devices are passed over.
            n_rows: rows of each stack in each pass.
            notes: small int32 tensors by key.

        Raises:
            RecordingError: the writer has failed.
        """
        buffer = self._free_buffer()
        try:
            if self._stream is None:
                return self._packed(readings, n_rows, notes, buffer)
            with torch.cuda.device(self._device):
                self._stream.wait_stream(torch.cuda.current_stream(self._device))
                with torch.cuda.stream(self._stream):
                    return self._packed(readings, n_rows, notes, buffer)
        except BaseException:
            self._free.put(buffer)
            raise

    def _free_buffer(self) -> _HostBuffer:
        while True:
            try:
                return self._free.get(timeout=0.5)
            except queue.Empty:
                self._on_wait()

    def _packed(
        self,
        readings: Sequence[Sequence[Reading | None]],
        n_rows: Sequence[Mapping[str, int]],
        notes: Sequence[tuple[Any, Tensor]],
        buffer: _HostBuffer,
    ) -> Parcel:
        layout: dict[Any, tuple[int, tuple[int, ...], torch.dtype]] = {}
        size = 0

        def planned(key: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
            nonlocal size
            layout[key] = (size, shape, dtype)
            n_bytes = int(np.prod(shape)) * dtype.itemsize
            size += -(-n_bytes // _ALIGNMENT) * _ALIGNMENT

        n_notes = sum(note.numel() for _, note in notes)
        planned("notes", (n_notes,), torch.int32)
        begin = 0
        for key, note in notes:
            layout[key] = (4 * begin, tuple(note.shape), torch.int32)
            begin += note.numel()
        sizes = [sum(of_pass.get(lane.stack, 0) for of_pass in n_rows) for lane in self._lanes]
        for lane, size_of_lane in zip(self._lanes, sizes, strict=True):
            for name, width, dtype in self._arrays_of(lane):
                planned((lane, name), (size_of_lane, len(lane.layers), *width), dtype)

        host = buffer.of_size(size)
        packed = host if self._device.type == "cpu" else torch.empty(size, dtype=torch.uint8, device=self._device)

        def view(key: Any) -> Tensor:
            offset, shape, dtype = layout[key]
            n_bytes = int(np.prod(shape)) * dtype.itemsize
            return packed[offset : offset + n_bytes].view(dtype).view(shape)

        if n_notes:
            torch.cat([note.reshape(-1) for _, note in notes], out=view("notes"))
        for lane, size_of_lane in zip(self._lanes, sizes, strict=True):
            if size_of_lane:
                arrays = {name: view((lane, name)) for name, _, _ in self._arrays_of(lane)}
                self._fill(lane, _by_layer(lane, readings, n_rows), arrays)
        event = None
        if packed is not host:
            host.copy_(packed, non_blocking=self._stream is not None)
        if self._stream is not None:
            # One that lets the waiting thread sleep: a spinning one would cost a core.
            event = torch.cuda.Event(blocking=True)
            event.record(self._stream)
        return Parcel(
            layout=layout,
            host=host,
            event=event,
            kept_alive=[readings, notes, packed],
            give_back=lambda: self._free.put(buffer),
        )

    def _arrays_of(self, lane: Lane) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
        plan = self._plan
        top_k = max(facts.top_k for facts in lane.facts)
        arrays: list[tuple[str, tuple[int, ...], torch.dtype]] = [
            ("experts", (plan.n_ranks,), plan.id_type),
            ("finite", (), torch.bool),
        ]
        if plan.with_scores:
            arrays.append(("scores", (plan.n_ranks,), torch.float16))
            arrays.append(("weights", (top_k,), torch.float16))
        if plan.with_dropped:
            arrays.append(("dropped", (top_k,), torch.bool))
        if plan.logits_type is not None:
            arrays.append(("logits", (max(facts.n_experts for facts in lane.facts),), plan.logits_type))
        return arrays

    def _fill(self, lane: Lane, by_layer: list[list[tuple[int, Reading]]], arrays: dict[str, Tensor]) -> None:
        # float16 and int16 alike: what is absent is -1 in ids (the largest unsigned) and NaN elsewhere.
        widths = {
            (min(facts.n_experts, facts.top_k + self._plan.n_runners_up), facts.n_experts) for facts in lane.facts
        }
        uneven = len(widths) > 1 or max(widths)[0] < self._plan.n_ranks
        sparse = any(reading.rows is not None for of_layer in by_layer for _, reading in of_layer)
        if uneven or sparse or any(reading.logits is None for of_layer in by_layer for _, reading in of_layer):
            for name, array in arrays.items():
                blank: float = {"experts": -1, "finite": 1, "dropped": 0}.get(name, torch.nan)
                array.fill_(255 if blank == -1 and array.dtype == torch.uint8 else blank)
        elif "dropped" in arrays and any(reading.dropped is None for of_layer in by_layer for _, reading in of_layer):
            arrays["dropped"].fill_(0)
        for place, of_layer in enumerate(by_layer):
            if of_layer:
                self._fill_layer(lane, place, of_layer, arrays)

    def _width(self, name: str, facts: LayerFacts) -> int:
        """How many of an array's columns belong to a router."""
        if name == "logits":
            return facts.n_experts
        return facts.top_k if name == "weights" else min(facts.n_experts, facts.top_k + self._plan.n_runners_up)

    def _fill_layer(
        self, lane: Lane, place: int, of_layer: list[tuple[int, Reading]], arrays: dict[str, Tensor]
    ) -> None:
        plan = self._plan
        ids_TK = _joined([reading.ids for _, reading in of_layer])
        weights_TK = _joined([reading.weights for _, reading in of_layer])
        logits = [reading.logits for _, reading in of_layer]
        dropped = [reading.dropped for _, reading in of_layer]
        logits_TE = None if any(each is None for each in logits) else _joined(logits)
        dropped_TK = None if any(each is None for each in dropped) else _joined(dropped)
        scores_TE = None
        if logits_TE is not None and (plan.with_scores or plan.n_runners_up):
            scores_TE = lane.scores_of[place](logits_TE)
        if ids_TK.is_cuda and logits_TE is not None and dropped_TK is None and all(r.rows is None for _, r in of_layer):
            into = {
                name: array[:, place] if array.dim() == 2 else array[:, place, : self._width(name, lane.facts[place])]
                for name, array in arrays.items()
                if name != "dropped"
            }
            if _fused_is_right(ids_TK, weights_TK, logits_TE, scores_TE, into):
                fused_ranking(ids_TK, weights_TK, logits_TE, scores_TE=scores_TE, into=into)
                return
        ranked = ranking(ids_TK, weights_TK, scores_TE=scores_TE, dropped_TK=dropped_TK, n_runners_up=plan.n_runners_up)
        rows = None
        if any(reading.rows is not None for _, reading in of_layer):
            rows = torch.cat(
                [
                    begin
                    + (torch.arange(len(reading.ids), device=ids_TK.device) if reading.rows is None else reading.rows)
                    for begin, reading in of_layer
                ]
            )

        def put(name: str, values: Tensor) -> None:
            target = arrays[name][:, place]
            if target.dim() == 2:
                # Ranks beyond a layer's own experts are absent; they are cut off or left as they were filled.
                width = min(target.shape[1], values.shape[1])
                target, values = target[:, :width], values[:, :width]
            if rows is None:
                target.copy_(values)
            else:
                target.index_copy_(0, rows, values.to(target.dtype))

        put("experts", ranked.experts)
        if plan.with_scores:
            put("scores", ranked.scores)
            put("weights", ranked.weights)
        if "dropped" in arrays and ranked.dropped is not None:
            put("dropped", ranked.dropped)
        if "logits" in arrays and logits_TE is not None:
            put("logits", logits_TE)
            # Of what is stored: a logit beyond float16 is as wrong there as a NaN.
            put(
                "finite",
                _finite_rows(logits_TE.to(arrays["logits"].dtype) if plan.logits_type == torch.float16 else logits_TE),
            )
        else:
            put("finite", _finite_rows(weights_TK if logits_TE is None else logits_TE))


def _fused_is_right(
    ids_TK: Tensor, weights_TK: Tensor, logits_TE: Tensor, scores_TE: Tensor | None, into: dict[str, Tensor]
) -> bool:
    """Whether the fused kernel gives what `ranking` gives; found out once for each kind of router."""
    n_runners_up = into["experts"].shape[1] - ids_TK.shape[1]
    key = ("ranking", ids_TK.device, ids_TK.dtype, weights_TK.dtype, logits_TE.dtype, scores_TE is None)
    key += (*ids_TK.shape[1:], *logits_TE.shape[1:], n_runners_up, *((name, each.dtype) for name, each in into.items()))

    def agrees() -> bool:
        tried = {name: torch.empty_like(each) for name, each in into.items()}
        fused_ranking(ids_TK, weights_TK, logits_TE, scores_TE=scores_TE, into=tried)
        expected = ranking(ids_TK, weights_TK, scores_TE=scores_TE, dropped_TK=None, n_runners_up=n_runners_up)
        right = torch.equal(
            tried["experts"][:, : ids_TK.shape[1]], expected.experts[:, : ids_TK.shape[1]].to(into["experts"].dtype)
        )
        right &= torch.equal(tried["finite"], _finite_rows(logits_TE))
        if "scores" in into:
            # Equal scores may name their experts in another order, so scores are compared, not runners-up.
            right &= torch.equal(tried["weights"], expected.weights.half())
            right &= torch.allclose(tried["scores"], expected.scores.half(), rtol=2e-3, atol=1e-7, equal_nan=True)
        if "logits" in into:
            right &= torch.equal(tried["logits"], logits_TE.to(into["logits"].dtype))
        return right

    return trusted(key, agrees)


def _by_layer(
    lane: Lane, readings: Sequence[Sequence[Reading | None]], n_rows: Sequence[Mapping[str, int]]
) -> list[list[tuple[int, Reading]]]:
    """For each layer of the lane its readings, each with the row at which it begins."""
    by_layer: list[list[tuple[int, Reading]]] = [[] for _ in lane.layers]
    begin = 0
    for of_pass, size in zip(readings, n_rows, strict=True):
        for place, layer in enumerate(lane.layers):
            if (reading := of_pass[layer]) is not None:
                by_layer[place].append((begin, reading))
        begin += size.get(lane.stack, 0)
    return by_layer


def _joined(tensors: list[Any]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _finite_rows(values: Tensor) -> Tensor:
    # One sum tells: NaN and infinity survive addition, and finite logits do not overflow float32.
    return values.sum(dim=1, dtype=torch.float32).isfinite()
