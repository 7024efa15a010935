"""Make one knock-out in a process of its own: `python -m app.studies.worker FOLDER REQUEST`.

FOLDER is told how far it is; the results go beside the trace, pass by pass, so that a study that was stopped goes on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from app.recordings.kept import write_json
from app.studies.asked import PROGRESS, KnockOutRequest
from routing import RoutingError

if TYPE_CHECKING:
    from analysis.interventions import Progress

__all__ = ["main"]


def main(folder: str, written: str) -> int:
    """Make the knock-out that is asked for.

    Returns:
        exit status: 0, or 1 with a sentence on what was wrong.
    """
    # Whoever waits for a click comes first.
    os.nice(5)
    told = Path(folder) / PROGRESS

    def progress(done: Progress) -> None:
        write_json(told, {"n_done": done.n_done, "n_total": done.n_total, "unit": done.unit})

    from app.commands.intervening import knocked_out

    try:
        knocked_out(KnockOutRequest.read(written), progress=progress)
    except RoutingError as error:
        write_json(told, {"problem": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
