"""Taps: the readers of routers. A rule that must prove itself, and a small table of exceptions."""

from hooks.taps.reading import Emit, Reading
from hooks.taps.table import EXCEPTIONS, tap_for
from hooks.taps.tap import Handle, Replay, Tap, in_backward

__all__ = ["EXCEPTIONS", "Emit", "Handle", "Reading", "Replay", "Tap", "in_backward", "tap_for"]
