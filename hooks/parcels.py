"""Parcels: bytes on their way from a device to the host, in buffers that are used again."""

from __future__ import annotations

import queue
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["BufferPool", "Layout", "Parcel"]

_ALIGNMENT = 256  # bytes; typed views of a buffer start at multiples
_HOST_TYPES = {
    torch.uint8: np.dtype(np.uint8),
    torch.bool: np.dtype(bool),
    torch.int16: np.dtype(np.uint16),
    torch.int32: np.dtype(np.int32),
    torch.float16: np.dtype(np.float16),
    torch.float32: np.dtype(np.float32),
    torch.bfloat16: np.dtype(np.uint16),  # numpy has no bfloat16: the bits
}


class Layout:
    """Where each array lies in a buffer."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self._places: dict[Hashable, tuple[int, tuple[int, ...], torch.dtype]] = {}

    def add(self, key: Hashable, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Give an array the next place."""
        self._places[key] = (self.n_bytes, shape, dtype)
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        self.n_bytes += -(-n_bytes // _ALIGNMENT) * _ALIGNMENT

    def add_inside(self, key: Hashable, outer: Hashable, shape: tuple[int, ...], *, begin: int) -> None:
        """Name a part of a flat array, from its element `begin` on."""
        offset, _, dtype = self._places[outer]
        self._places[key] = (offset + begin * dtype.itemsize, shape, dtype)

    def on_device(self, memory: Tensor, key: Hashable) -> Tensor:
        """An array as a view of device memory."""
        offset, shape, dtype = self._places[key]
        return memory[offset : offset + int(np.prod(shape)) * dtype.itemsize].view(dtype).view(shape)

    def on_host(self, memory: Tensor) -> dict[Any, np.ndarray]:
        """Every array as a view of host memory."""
        flat = memory.numpy()
        return {
            key: flat[offset : offset + int(np.prod(shape)) * dtype.itemsize].view(_HOST_TYPES[dtype]).reshape(shape)
            for key, (offset, shape, dtype) in self._places.items()
        }


@dataclass(kw_only=True)
class Parcel:
    """What is on its way from one device: wait for it, read its arrays, give its buffer back.

    Attributes:
        layout: where each array lies.
        host: the buffer.
        event: tells when the copy has arrived; None where nothing was copied.
        kept_alive: tensors that the device still reads.
        give_back: takes the buffer back.
    """

    layout: Layout
    host: Tensor
    event: Any
    kept_alive: list[Any]
    give_back: Callable[[], None]
    _given: bool = field(default=False)

    def arrays(self) -> dict[Any, np.ndarray]:
        """The arrays by their keys, as views of the buffer; waits until they have arrived."""
        if self.event is not None:
            self.event.synchronize()
        # The device has done its work, so the model's tensors may go back to its allocator.
        self.kept_alive.clear()
        return self.layout.on_host(self.host)

    def release(self) -> None:
        """Give the buffer back; its arrays are overwritten from now on."""
        if not self._given:
            self._given = True
            self.kept_alive.clear()
            self.give_back()


class BufferPool:
    """A few pieces of host memory of one size, pinned where a GPU copies into them.

    Args:
        n_buffers: how many.
        pinned: whether they are pinned.
        on_wait: called now and then while waiting for one; it raises if the writer has failed.
    """

    def __init__(self, n_buffers: int, *, pinned: bool, on_wait: Callable[[], None]) -> None:
        self._pinned, self._on_wait = pinned, on_wait
        self._size = 0
        self._free: queue.SimpleQueue[Tensor] = queue.SimpleQueue()
        for _ in range(n_buffers):
            self._free.put(torch.empty(0, dtype=torch.uint8))

    def take(self, n_bytes: int) -> Tensor:
        """A free buffer of at least that size; waits for one if all are under way.

        Raises:
            RecordingError: the writer has failed.
        """
        if n_bytes > self._size:
            # Half as much again, for batches that slowly grow longer.
            self._size = n_bytes + n_bytes // 2
            self._grow_all()
        while True:
            try:
                return self._grown(self._free.get(timeout=0.5))
            except queue.Empty:
                self._on_wait()

    def give(self, buffer: Tensor) -> None:
        """Take a buffer back."""
        self._free.put(buffer)

    def close(self) -> None:
        """Let go of the memory."""
        while not self._free.empty():
            self._free.get()

    def _grow_all(self) -> None:
        # Pinning stops the device, so it is done for all that are free at once, not again at the next deliveries.
        waiting = []
        while not self._free.empty():
            waiting.append(self._grown(self._free.get()))
        for buffer in waiting:
            self._free.put(buffer)

    def _grown(self, buffer: Tensor) -> Tensor:
        if buffer.numel() >= self._size:
            return buffer
        return torch.empty(self._size, dtype=torch.uint8, pin_memory=self._pinned)
