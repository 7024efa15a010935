"""From the device to the host: readings ranked, packed, and copied beside the model's work.

On CUDA everything here runs on a stream of its own, into pinned memory, so the model's stream never waits: kernels are
queued, one copy follows them, an event says when it has arrived. On a CPU the same code packs in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hooks.packing import ArrayPlan, Lane, fill, planned_arrays
from hooks.parcels import BufferPool, Layout, Parcel
from hooks.taps import Reading

__all__ = ["Stager"]

Notes = Sequence[tuple[Any, Tensor]]


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
        self._device, self._lanes, self._plan = device, tuple(lanes), plan
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._pool = BufferPool(n_buffers, pinned=self._stream is not None, on_wait=on_wait)

    def packed(
        self,
        readings: Sequence[Sequence[Reading | None]],
        *,
        n_rows: Sequence[Mapping[str, int]],
        notes: Notes,
    ) -> Parcel:
        """A parcel of what some passes left on this device.

        Args:
            readings: (pass, layer); layers of other devices are passed over.
            n_rows: rows of each stack in each pass.
            notes: small int32 tensors by key.

        Raises:
            RecordingError: the writer has failed.
        """
        layout = self._layout(n_rows, notes)
        buffer = self._pool.take(layout.n_bytes)
        try:
            if self._stream is None:
                return self._queued(readings, n_rows, notes, layout=layout, buffer=buffer)
            with torch.cuda.device(self._device):
                self._stream.wait_stream(torch.cuda.current_stream(self._device))
                with torch.cuda.stream(self._stream):
                    return self._queued(readings, n_rows, notes, layout=layout, buffer=buffer)
        except BaseException:
            self._pool.give(buffer)
            raise

    def close(self) -> None:
        """Let go of the host memory."""
        self._pool.close()

    def _layout(self, n_rows: Sequence[Mapping[str, int]], notes: Notes) -> Layout:
        layout = Layout()
        layout.add("notes", (sum(note.numel() for _, note in notes),), torch.int32)
        begin = 0
        for key, note in notes:
            layout.add_inside(key, "notes", tuple(note.shape), begin=begin)
            begin += note.numel()
        for lane in self._lanes:
            size = sum(of_pass.get(lane.stack, 0) for of_pass in n_rows)
            for name, tail, dtype in planned_arrays(lane, self._plan):
                layout.add((lane, name), (size, len(lane.layers), *tail), dtype)
        return layout

    def _queued(
        self,
        readings: Sequence[Sequence[Reading | None]],
        n_rows: Sequence[Mapping[str, int]],
        notes: Notes,
        *,
        layout: Layout,
        buffer: Tensor,
    ) -> Parcel:
        host = buffer[: layout.n_bytes]
        in_place = self._device.type == "cpu"
        memory = host if in_place else torch.empty(layout.n_bytes, dtype=torch.uint8, device=self._device)
        if notes:
            torch.cat([note.reshape(-1) for _, note in notes], out=layout.on_device(memory, "notes"))
        for lane in self._lanes:
            if any(of_pass.get(lane.stack) for of_pass in n_rows):
                names = [name for name, _, _ in planned_arrays(lane, self._plan)]
                arrays = {name: layout.on_device(memory, (lane, name)) for name in names}
                fill(lane, self._plan, readings, n_rows=n_rows, arrays=arrays)
        event = None
        if not in_place:
            host.copy_(memory, non_blocking=self._stream is not None)
        if self._stream is not None:
            # One that lets the waiting thread sleep: a spinning one would cost a core.
            event = torch.cuda.Event(blocking=True)
            event.record(self._stream)
        return Parcel(
            layout=layout,
            host=host,
            event=event,
            kept_alive=[readings, notes, memory],
            give_back=lambda: self._pool.give(buffer),
        )
