"""Answer one question in a process of its own: `python -m app.answer_worker FOLDER FUNCTION TRACE WITHIN OPTIONS`."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from app.slow_answers import leave
from routing import Selection, open_trace

__all__ = ["main"]


def main(folder: str, name: str, path: str, within: str, options: str) -> None:
    """Leave the tables that a function gives of a trace, or of a part of it, in a folder."""
    # Whoever waits for a click comes first.
    os.nice(5)
    module, _, function = name.partition(":")
    trace = open_trace(path)
    if query := json.loads(within):
        trace = trace.select(Selection.from_query(query, trace))
    leave(getattr(importlib.import_module(module), function)(trace, **json.loads(options)), Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
