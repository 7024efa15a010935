"""Keep the garbage collector from walking through the libraries at every click.

Streamlit has all objects looked through after each run of the page, and Python does so itself now and then in the midst
of one. Nearly all of them belong to imported modules, which stay: 300,000 objects, 150 ms in which nothing else runs.
"""

from __future__ import annotations

import gc
import sys

__all__ = ["leave_out_libraries"]

# Fewer are not worth looking through everything once more.
_FEWEST_MODULES = 20

_n_left_out = 0


def leave_out_libraries() -> None:
    """Have what is in memory now left out of further collections, if modules were imported since the last time.

    What other sessions are at in this moment is left out along with it: it is freed as before once nothing refers to
    it, and stays only where it is part of a cycle. Imports come to an end, and so does that.
    """
    global _n_left_out
    if len(sys.modules) - _n_left_out < _FEWEST_MODULES:
        return
    _n_left_out = len(sys.modules)
    gc.collect()
    gc.freeze()
