"""The interactions of `app_latency` as a reader waits for them: in chromium, from the click to the drawn picture.

    python -m benchmarks.app_latency --browser

A reader's click changes the address, and the page runs again. Here the addresses are laid into the browser's history
and gone back through, which makes it run again in the same way, without a new page. Measured is the time from there
until the last change of the page that follows from it is painted: server, network of this machine, and browser.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.app_latency import MAIN, RUN, Interaction

__all__ = ["Waits", "clicks_in_browser"]

_FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
_PATIENCE_MS = 300_000
_WAITING = "main :text-matches('for \\\\d+ s so far|after another computation')"
# So long nothing may have changed before the picture counts as drawn; this is not part of the time.
_STILL_MS = 400
# Goes back once, and gives the milliseconds until the last change that follows from it is on the screen.
_BACK = """
(still) => new Promise((resolve) => {
  const app = document.querySelector('[data-testid=stApp]');
  const start = performance.now();
  let ran = false, ended = 0, drawn = 0;
  const look = () => {
    const runs = app.getAttribute('data-test-script-state') !== 'notRunning';
    ran ||= runs;
    ended = !ran || runs ? 0 : ended || performance.now();
  };
  const states = new MutationObserver(look);
  states.observe(app, { attributes: true });
  // A change is on the screen once the frame after it began.
  const changes = new MutationObserver(() =>
    requestAnimationFrame(() => requestAnimationFrame(() => { drawn = performance.now(); })));
  const all = { subtree: true, childList: true, characterData: true, attributes: true };
  changes.observe(document.querySelector('[data-testid=stMain]'), all);
  for (const each of document.querySelectorAll('*')) if (each.shadowRoot) changes.observe(each.shadowRoot, all);
  const wait = () => {
    const last = Math.max(ended, drawn);
    if (!ended || performance.now() - last < still) return setTimeout(wait, 20);
    states.disconnect();
    changes.disconnect();
    resolve(last - start);
  };
  history.back();
  wait();
})
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Waits:
    """How long a reader waits in the browser.

    Attributes:
        milliseconds: of each click, until the picture is drawn.
        sent: bytes that the server sent for it.
    """

    milliseconds: np.ndarray
    sent: np.ndarray


@contextmanager
def clicks_in_browser() -> Iterator[Callable[[Interaction, int], Waits]]:
    """A chromium on a server of its own; called with an interaction and a number of clicks, it makes them."""
    with _server() as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(_FLAGS))

        def clicked(asked: Interaction, rounds: int) -> Waits:
            page = browser.new_page(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
            page.set_default_timeout(_PATIENCE_MS)
            try:
                times = np.array(list(_waits(page, base, asked, rounds=rounds)))
            finally:
                page.close()
            return Waits(milliseconds=times[:, 0], sent=times[:, 1])

        yield clicked
        browser.close()


def _waits(page: Page, base: str, asked: Interaction, *, rounds: int) -> Iterator[tuple[float, int]]:
    addresses = [
        f"{base}/{asked.view}?{urlencode({'run': RUN} | query)}"
        for query in itertools.islice(asked.addresses, rounds + 2)
    ]
    received: list[int] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame))))
    page.goto(addresses[0])
    _settle(page)
    # Two addresses that are the same make no step: each gets a number that nobody reads.
    for number, address in enumerate(addresses):
        page.evaluate("address => history.pushState(null, '', address)", f"{address}&step={number}")
    for number in range(rounds + 1):
        received.clear()
        took = page.evaluate(_BACK, _STILL_MS)
        if number:
            yield float(took), sum(received)
        _settle(page)


def _settle(page: Page) -> None:
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    if (error := page.get_by_test_id("stException")).count():
        raise RuntimeError(error.first.inner_text())
    page.locator("h1").first.wait_for()
    expect(page.locator(_WAITING)).to_have_count(0, timeout=_PATIENCE_MS)


@contextmanager
def _server() -> Iterator[str]:
    """Address of the app, on the runs that the environment names."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [f"--server.port={port}", "--server.address=127.0.0.1", "--server.headless=true"]
    with tempfile.TemporaryDirectory() as elsewhere, (Path(elsewhere) / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", str(MAIN), *options],
            cwd=elsewhere,
            env=dict(os.environ),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        base = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 120
            while not _is_up(f"{base}/_stcore/health"):
                if process.poll() is not None or time.monotonic() > deadline:
                    msg = f"The app did not start: {(Path(elsewhere) / 'log.txt').read_text()}"
                    raise RuntimeError(msg)
                time.sleep(0.2)
            yield base
        finally:
            process.terminate()
            process.wait(timeout=20)


def _is_up(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1):
            return True
    except OSError:
        return False
