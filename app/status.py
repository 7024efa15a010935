"""One line at the foot of the page that says what is being computed for it, and is gone when that is done.

A page is drawn from top to bottom, and what blocks it blocks the thread that draws. So a second thread looks at what
the first one is at, and says so once a reader would wonder; what is found quickly is never named.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.scriptrunner import add_script_run_ctx, get_script_run_ctx

from app.components.status_line import status_line

__all__ = ["doing", "told", "waiting_for"]

What = str | Callable[[], str]

_KEY = "status"
_LOOK_SECONDS = 0.1
# Said once the page has computed for so long, without a pause of more than the next.
_PATIENCE_SECONDS = 0.4
_PAUSE_SECONDS = 0.25
_LINE: ContextVar[_Line | None] = ContextVar("line", default=None)


class _Line:
    """What the thread that draws one page is at."""

    def __init__(self, place: DeltaGenerator) -> None:
        self.later: list[str] = []
        self._place = place
        self._at: tuple[What, ...] = ()
        self._since = self._rested = float("-inf")
        self._shown = ""
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        add_script_run_ctx(self._watch, get_script_run_ctx())
        self._watch.start()

    def begin(self, what: What) -> None:
        now = time.monotonic()
        if not self._at and now - self._rested > _PAUSE_SECONDS:
            self._since = now
        self._at = (*self._at, what)

    def end(self) -> None:
        self._at = self._at[:-1]
        self._rested = time.monotonic()

    def stop(self) -> None:
        self._over.set()
        self._watch.join()

    def say(self, what: str) -> None:
        if what == self._shown:
            return
        self._shown = what
        if what:
            self._place.html(f"<span>{html.escape(what)}&nbsp;…</span>")
        else:
            self._place.empty()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            now, at = time.monotonic(), self._at
            if at and now - self._since > _PATIENCE_SECONDS:
                # The outermost: what it asks on its way is part of it.
                self.say(at[0] if isinstance(at[0], str) else at[0]())
            elif not at and now - self._rested > _PAUSE_SECONDS:
                self.say("")


@contextmanager
def told() -> Iterator[None]:
    """Draw the line, and say in it what is computed meanwhile and what the page still waits for afterwards."""
    # Below the page even before the rules are loaded that take it out of the flow: nothing moves for it.
    page = st.container()
    with st.container(key=_KEY):
        status_line(key=_KEY)
        line = _Line(st.empty())
    token = _LINE.set(line)
    try:
        with page:
            yield
    except BaseException:
        # The page is drawn again, which begins with an empty line; another word here would come in between.
        line.stop()
        raise
    finally:
        _LINE.reset(token)
    line.stop()
    line.say(" · ".join(dict.fromkeys(line.later)))


@contextmanager
def doing(what: What) -> Iterator[None]:
    """Name what is computed inside.

    Args:
        what: such as "Counting pairs of experts", without a full stop; or what gives it, asked where it is said.
    """
    line = _LINE.get()
    if line is None:
        yield
        return
    line.begin(what)
    try:
        yield
    finally:
        line.end()


def waiting_for(what: str) -> None:
    """Name what is computed elsewhere, and is not there yet when the page is drawn; the page is drawn again once it is.

    Args:
        what: such as "Tasks are being clustered", without a full stop.
    """
    if (line := _LINE.get()) is not None:
        line.later.append(what)
