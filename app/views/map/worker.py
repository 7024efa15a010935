"""Make one map in a process of its own: `python -m app.views.map.worker FOLDER map|groups|instances TRACE QUESTION`.

UMAP compiles for tens of seconds when it is first imported, and would hold up every session of the server.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from app.views.map.kept import make_cloud, make_groups, make_instances, make_map
from routing import open_trace

_MAKERS: dict[str, Callable[..., None]] = {
    "map": make_map,
    "groups": make_groups,
    "instances": make_instances,
    "cloud": make_cloud,
}


def main(folder: str, kind: str, path: str, question: str) -> None:
    """Make what `question` asks for, in JSON; leave it beside the trace, and in `folder`."""
    # Whoever waits for a click comes first.
    os.nice(5)
    _MAKERS[kind](open_trace(path), Path(folder), **json.loads(question))


if __name__ == "__main__":
    main(*sys.argv[1:])
