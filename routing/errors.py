"""The error family of RouteScope.

Every message is two sentences: what was found and what was expected; then what to do.

    RoutingError
    ├── TraceError      (ValueError)    a trace is malformed, unreadable, or of a foreign version
    ├── RecordingError  (RuntimeError)  the model and the recorder disagree, or the record cannot be written
    ├── SelectionError  (LookupError)   asks for what the trace does not hold
    └── TaskError       (ValueError)    a task file is empty, malformed, or lacks a column
"""

from __future__ import annotations

__all__ = ["RecordingError", "RoutingError", "SelectionError", "TaskError", "TraceError"]


class RoutingError(Exception):
    """Base of all errors that a user can act upon."""


class TraceError(RoutingError, ValueError):
    """A trace is malformed, unreadable, or written in a format version that we do not know."""


class RecordingError(RoutingError, RuntimeError):
    """The model and the recorder disagree, or the record cannot be written."""


class SelectionError(RoutingError, LookupError):
    """A selection asks for what the trace does not hold."""


class TaskError(RoutingError, ValueError):
    """A task file is empty, malformed, or lacks what an evaluation needs."""
