"""The page that a browser gets first: Streamlit's, with our style in it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
import streamlit as st
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.web.server.app_discovery import discover_asgi_app

from app import first_paint
from app.view_list import VIEWS
from tests.app.conftest import MAIN

STATIC = Path(st.__file__).parent / "static"


def page(address: str) -> str:
    return TestClient(Starlette(routes=first_paint.routes())).get(address).text


def test_every_page_begins_with_our_style_and_all_that_streamlit_sends():
    plain = (STATIC / "index.html").read_text("utf-8")
    for address in ("/", *(f"/{view.url}" for view in VIEWS), "/recordings"):
        got = page(address)
        assert MAIN.with_name("shell.css").read_text("utf-8") in got
        # Behind every rule of Streamlit's own, which it writes into the head, and before what it draws.
        assert got.index("</head>") < got.index("<style>") < got.index('id="root"')
        assert [line for line in plain.splitlines() if line.strip() not in got] == []


def test_streamlit_run_finds_what_serves_the_page():
    assert discover_asgi_app(MAIN).import_string == "main:app"


def test_a_server_that_is_told_to_end_ends_as_by_control_c(monkeypatch: pytest.MonkeyPatch):
    told = []
    monkeypatch.setattr(st, "get_option", lambda name: name == "server.headless")
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))

    async def served() -> None:
        async with first_paint.opened(None):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)

    try:
        asyncio.run(served())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [signal.SIGINT]
