"""The page that a browser gets before anything else, with our style in it already.

Streamlit sends style like any other part of a page: once a session has begun, by way of a module that the browser then
still has to fetch. What was drawn until then jumps. So the addresses of our pages are answered here, with Streamlit's
own page and the style in it; Streamlit answers every other address.
"""

from __future__ import annotations

import asyncio
import signal
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import streamlit as st
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from app.recordings import PAGE
from app.view_list import VIEWS

__all__ = ["SIDEBAR", "opened", "routes"]

# Width of the sidebar, in pixels.
SIDEBAR = 230
_HERE = Path(__file__).parent
_INDEX = Path(st.__file__).parent / "static" / "index.html"
# Streamlit remembers how wide a reader made the sidebar.
_WIDTH = f"""
const width = parseInt(localStorage.getItem("sidebarWidth"), 10) || {SIDEBAR};
document.documentElement.style.setProperty("--sidebar", `${{width}}px`);
"""
_START_SECONDS = 0.5


def routes() -> list[Route]:
    """The addresses of our pages."""
    base = st.get_option("server.baseUrlPath").strip("/")
    below = f"/{base}/" if base else "/"
    return [Route(below + url, _first) for url in ("", *(view.url for view in VIEWS), PAGE)]


async def _first(request: Request) -> Response:
    # Read again each time: both are small, and whoever changes the style sees it.
    style = "".join((_HERE / name).read_text("utf-8") for name in ("shell.css", "first_paint.css"))
    # Not in the head: there Streamlit's own rules would come later, and of two as good as each other the later holds.
    ours = f"<body><style>{style}</style><script>{_WIDTH}</script>"
    index = _INDEX.read_text("utf-8").replace("<body>", ours, 1)
    return HTMLResponse(index, headers={"Cache-Control": "no-cache"})


@asynccontextmanager
async def opened(app: object) -> AsyncIterator[None]:
    """Do what Streamlit leaves to an app with its own addresses: open the reader's browser, and end in good order."""
    ended = signal.getsignal(signal.SIGTERM)
    if callable(ended):
        # Of SIGTERM the server would die at once, and leave behind the processes that are ended when Python exits.
        signal.signal(signal.SIGTERM, lambda _, frame: ended(signal.SIGINT, frame))
    if not st.get_option("server.headless"):
        address = st.get_option("server.address")
        host = "localhost" if address in (None, "0.0.0.0", "::") else address
        scheme = "https" if st.get_option("server.sslCertFile") else "http"
        where = "/".join((f"{scheme}://{host}:{st.get_option('server.port')}", st.get_option("server.baseUrlPath")))
        asyncio.get_running_loop().call_later(_START_SECONDS, webbrowser.open, where)
    yield
