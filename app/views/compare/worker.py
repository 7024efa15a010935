"""Compare two runs in a process of its own: `python -m app.views.compare.worker FOLDER BEFORE AFTER SELECTION`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from app.views.compare.answers import leave_answers
from routing import open_trace

__all__ = ["main"]


def main(folder: str, before: str, after: str, selection: str) -> None:
    """Leave all that is asked of two runs, within a selection in JSON, in a folder."""
    # Whoever waits for a click comes first.
    os.nice(5)
    within = {name: tuple(values) for name, values in json.loads(selection).items()}
    leave_answers({"before": open_trace(before), "after": open_trace(after)}, Path(folder), **within)


if __name__ == "__main__":
    main(*sys.argv[1:])
