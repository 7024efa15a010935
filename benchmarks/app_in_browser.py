"""The interactions of `app_latency` as a reader waits for them: in chromium, from the click to the drawn page.

    python -m benchmarks.app_latency --browser

A reader's click changes the address, and the page runs again. Here the addresses are laid into the browser's history
and gone back through, which makes it run again in the same way, without a new page. Measured is the time from there
until the script has ended and the page has nothing left to draw: server, network of this machine, and browser.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.app_latency import MAIN, RUN, Interaction

__all__ = ["measure_in_browser"]

_FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
_PATIENCE_MS = 300_000
_WAITING = "main :text-matches('for \\\\d+ s so far|after another computation')"
# Goes back once, and gives the milliseconds until the script has run and the page is idle again.
_BACK = """
() => new Promise((resolve) => {
  const app = document.querySelector('[data-testid=stApp]');
  const start = performance.now();
  let ran = false;
  const look = () => {
    const state = app.getAttribute('data-test-script-state');
    ran ||= state !== 'notRunning';
    if (!ran || state !== 'notRunning') return;
    watch.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() =>
      requestIdleCallback(() => resolve(performance.now() - start), { timeout: 10000 })));
  };
  const watch = new MutationObserver(look);
  watch.observe(app, { attributes: true });
  history.back();
})
"""


def measure_in_browser(asked: Sequence[Interaction], *, rounds: int) -> None:
    """Print a row for each interaction: how long a reader waits.

    Args:
        asked: the baseline first.
        rounds: addresses each.
    """
    print("| interaction | median | p95 | ÷ baseline |")
    print("|---|---|---|---|")
    baseline = None
    with _server() as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(_FLAGS))
        for each in asked:
            page = browser.new_page(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
            page.set_default_timeout(_PATIENCE_MS)
            times = np.array(list(_waits(page, base, each, rounds=rounds)))
            page.close()
            median, p95 = np.median(times), np.quantile(times, 0.95)
            baseline = median if baseline is None else baseline
            print(f"| {each.name} | {median:.0f} ms | {p95:.0f} ms | {median / baseline:.1f} |", flush=True)
        browser.close()


def _waits(page: Page, base: str, asked: Interaction, *, rounds: int) -> Iterator[float]:
    addresses = [
        f"{base}/{asked.view}?{urlencode({'run': RUN} | query)}"
        for query in itertools.islice(asked.addresses, rounds + 2)
    ]
    page.goto(addresses[0])
    _settle(page)
    # Two addresses that are the same make no step: each gets a number that nobody reads.
    for number, address in enumerate(addresses):
        page.evaluate("address => history.pushState(null, '', address)", f"{address}&step={number}")
    for number in range(rounds + 1):
        took = page.evaluate(_BACK)
        if number:
            yield float(took)
        _settle(page)


def _settle(page: Page) -> None:
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    expect(page.get_by_test_id("stException")).to_have_count(0)
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
