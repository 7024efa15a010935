"""How large maps and heatmaps behave in a real browser: first picture, bytes, pan, zoom, lasso, the text of a point.

    python -m benchmarks.browser_latency                       # maps of 10,000, 100,000 and 1,000,000 tokens
    python -m benchmarks.browser_latency --tokens 10000
    python -m benchmarks.browser_latency --heatmap             # 160 tasks x 14,848 experts, too: takes minutes
    python -m benchmarks.browser_latency --tokens --heatmap --runs /tmp/runs    # only that, on a run that is kept

Starts the app on synthetic runs, opens it in the `chromium` on PATH without a graphics card, and prints tables. The
first picture is timed from the request to the painted canvas, with the layout found before; bytes are those of the
socket between server and browser. Pan and zoom of a map are timed from a step of the mouse to the frame after the
next; beside it what drawing took in the page. Those of a heatmap are timed from the end of the drag, or from the click,
to the frame that shows the last change of the page.
"""

from __future__ import annotations

import argparse
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
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.app_latency import WIDE, wide_trace
from benchmarks.count_scan import synthetic_trace
from routing import save_trace

MAIN = Path(__file__).resolve().parents[1] / "app" / "main.py"
PATIENCE_MS = 600_000
STEPS = 40
# What point_map.js makes of a pixel of the wheel.
ZOOM_A_PIXEL = 0.0016
# The map lives in a shadow root.
MAP = """() => [...document.querySelectorAll('*')].map(each => each.shadowRoot?.querySelector('.map')).find(Boolean)"""
STAGE = f"({MAP})().querySelector('.stage').getBoundingClientRect()"
BOX = f"() => (({{ x, y, width, height }}) => [x, y, width, height])({STAGE})"
FRAME = f"() => Number(({MAP})().dataset.ms)"
MAP_COLUMNS = ["points", "placed and drawn", "first picture", "sent", "pan, median / p95 (drawing)", "zoom"]
MAP_COLUMNS += ["whole, drawn", "text of a point", "lasso", "heap"]
HEATMAP_COLUMNS = ["heatmap", "first picture", "sent", "into a part, median (least to most)", "out to the whole"]
ZOOMS = 5
# Begins to keep when the reader let go of the mouse, and when the last change since then was on the screen.
WATCH = """() => {
  const told = (window.told = { began: 0, drawn: 0 });
  document.addEventListener('mouseup', () => (told.began = performance.now()), { once: true, capture: true });
  const changed = () => requestAnimationFrame(() => requestAnimationFrame(() => (told.drawn = performance.now())));
  window.watch?.disconnect();
  window.watch = new MutationObserver(changed);
  const all = { subtree: true, childList: true, characterData: true, attributes: true };
  window.watch.observe(document.querySelector('[data-testid=stMain]'), all);
}"""
STILL = """() => document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'
  && window.told.began && performance.now() - Math.max(window.told.began, window.told.drawn) > 500"""
HEAP = "() => performance.memory.usedJSHeapSize / 1e6"


@contextmanager
def server(runs: Path) -> Iterator[str]:
    """The app on a folder of runs; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [f"--server.port={port}", "--server.address=127.0.0.1", "--server.headless=true"]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", str(MAIN), *options],
        env=os.environ | {"ROUTESCOPE_RUNS": str(runs)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{base}/_stcore/health", timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        yield base
    finally:
        process.terminate()
        process.wait(timeout=20)


class Session:
    """A page, and the bytes that came through its socket."""

    def __init__(self, browser: Browser) -> None:
        self.page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.received = 0
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._count))

    def _count(self, payload: str | bytes) -> None:
        self.received += len(payload)

    def opened(self, address: str, ready: Callable[[Page], object]) -> float:
        """Seconds from the request until something is there."""
        start = time.perf_counter()
        self.page.goto(address)
        ready(self.page)
        return time.perf_counter() - start


def map_row(browser: Browser, base: str, n_tokens: int) -> list[str]:
    """What a map of so many tokens costs."""
    size = "100000" if n_tokens <= 100_000 else "1000000"
    query = {"run": f"tokens-{n_tokens}", "of": "token", "size": size}
    address = f"{base}/map?{urlencode(query)}"
    placed = Session(browser).opened(address, _painted)
    session = Session(browser)
    first = session.opened(address, _painted)
    sent = session.received / 1e6
    page = session.page
    x, y, width, height = page.evaluate(BOX)
    page.get_by_role("button", name="Drag the map").click()
    page.mouse.move(x + width / 2, y + height / 2)
    page.mouse.down()
    pans = [
        _frame(page, lambda at=at: page.mouse.move(x + width / 2 + 4 * at, y + height / 2 + at)) for at in range(STEPS)
    ]
    page.mouse.up()
    page.wait_for_timeout(400)
    zooms = [_frame(page, lambda at=at: page.mouse.wheel(0, -60 if at < STEPS / 2 else 60)) for at in range(STEPS)]
    page.wait_for_timeout(400)
    whole = _frame(page, lambda: page.get_by_role("button", name="Show the whole map").click())
    page.mouse.move(x + width / 2, y + height / 2)
    # So near that about 2,000 points are in sight.
    for _ in range(round(np.log(max(1.0, n_tokens / 2000)) / 2 / (120 * ZOOM_A_PIXEL))):
        page.mouse.wheel(0, -120)
    page.wait_for_timeout(600)
    texts = [
        taken for at in range(12) if (taken := _text(page, x + width * (0.3 + 0.03 * at), y + height / 2)) is not None
    ]
    page.get_by_role("button", name="Show the whole map").click()
    page.get_by_role("button", name="Draw around points").click()
    before = session.received
    page.mouse.move(x + width * 0.4, y + height * 0.4)
    page.mouse.down()
    for corner in ((0.6, 0.4), (0.6, 0.6), (0.4, 0.6)):
        page.mouse.move(x + width * corner[0], y + height * corner[1], steps=8)
    page.mouse.up()
    start = time.perf_counter()
    page.get_by_text("in the lasso").wait_for()
    lasso = time.perf_counter() - start
    return [
        f"{n_tokens:,}",
        f"{placed:.1f} s",
        f"{first:.1f} s",
        f"{sent:.1f} MB",
        _of(pans),
        _of(zooms),
        f"{whole[1]:.0f} ms",
        f"{1000 * np.median(texts):.0f} ms" if texts else "–",
        f"{lasso:.1f} s, {(session.received - before) / 1e3:.0f} kB",
        f"{page.evaluate(HEAP):.0f} MB",
    ]


def _painted(page: Page) -> None:
    page.wait_for_selector(".map[data-ready]")


def _frame(page: Page, act: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds from an act to the next painted frame, and what drawing it took."""
    start = time.perf_counter()
    act()
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return 1000 * (time.perf_counter() - start), float(page.evaluate(FRAME))


def _text(page: Page, x: float, y: float) -> float | None:
    """Seconds until the text of a point is there; None where no point lies."""
    page.mouse.move(5, 5)
    page.mouse.move(x, y)
    start = time.perf_counter()
    try:
        page.wait_for_selector(".tip", state="visible", timeout=1500)
    except Exception:  # noqa: BLE001 (Playwright's own error, of a module that it does not export)
        return None
    return time.perf_counter() - start


def _of(frames: list[tuple[float, float]]) -> str:
    latency, drawing = np.array(frames).T
    return f"{np.median(latency):.0f} / {np.quantile(latency, 0.95):.0f} ms ({np.median(drawing):.0f})"


def heatmap_rows(browser: Browser, base: str) -> list[list[str]]:
    """What the heatmap of 160 tasks x 14,848 experts costs, and the map of its load."""
    rows = []
    tested = {"run": WIDE, "rows": "recorded"}
    # Once for the test behind the muted cells, which is kept beside the run.
    Session(browser).opened(f"{base}/tasks?{urlencode(tested)}", _tested)
    for name, view, query, ready in (
        ("160 × 14,848, model order", "tasks", tested, _tested),
        ("160 × 256, one layer", "tasks", tested | {"layers": "L07"}, _tested),
        ("58 × 256, load", "load", {"run": WIDE}, lambda page: _drawn(page, "load_heatmap")),
    ):
        session = Session(browser)
        address = f"{base}/{view}?{urlencode(query)}"
        session.opened(address, ready)
        session.page.context.close()
        session = Session(browser)
        seconds = session.opened(address, ready)
        zooms = _zooms(session) if name.startswith("160 × 14") else ["–", "–"]
        rows.append([name, f"{seconds:.1f} s", f"{session.received / 1e6:.1f} MB", *zooms])
        session.page.context.close()
    return rows


def _drawn(page: Page, key: str) -> None:
    page.wait_for_selector(f".st-key-{key} .js-plotly-plot[data-bridged] .hm")


def _tested(page: Page) -> None:
    page.get_by_text("cells differ from the average beyond chance").wait_for()
    _drawn(page, "tasks_heatmap")


def _zooms(session: Session) -> list[str]:
    """Into a part that is drawn in single cells, and out to the whole again."""
    page = session.page
    ways: list[list[float]] = [[], []]
    sent: list[list[int]] = [[], []]
    for _ in range(ZOOMS):
        for way, (act, seen) in enumerate(((_drag, "visible"), (_whole, "hidden"))):
            before = session.received
            page.evaluate(WATCH)
            act(page)
            page.get_by_text("This is a part").wait_for(state=seen)
            page.wait_for_function(STILL)
            ways[way].append(float(page.evaluate("() => window.told.drawn - window.told.began")))
            sent[way].append(session.received - before)
    return [_told(times, size) for times, size in zip(ways, sent, strict=True)]


def _told(milliseconds: list[float], sent: list[int]) -> str:
    seconds = np.array(milliseconds) / 1000
    return f"{np.median(seconds):.2f} ({seconds.min():.2f} to {seconds.max():.2f}) s, {np.median(sent) / 1e6:.2f} MB"


def _drag(page: Page) -> None:
    pane = page.locator(".st-key-tasks_heatmap .nsewdrag").nth(1).bounding_box()
    assert pane is not None
    page.mouse.move(pane["x"] + pane["width"] * 0.4, pane["y"] + 60)
    page.mouse.down()
    page.mouse.move(pane["x"] + pane["width"] * 0.43, pane["y"] + 300, steps=5)
    page.mouse.up()


def _whole(page: Page) -> None:
    page.get_by_role("button", name="Whole table").click()


def _table(head: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


def main() -> None:
    """Make the runs, open them, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--heatmap", action="store_true")
    parser.add_argument("--runs", type=Path, help="keep the runs in this folder, and use those that it holds")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = asked.runs or Path(scratch)
        for n_tokens in asked.tokens:
            shape = {"n_layers": 4, "n_experts": 32, "top_k": 4, "n_prompts": max(40, n_tokens // 50)}
            if not (folder / f"tokens-{n_tokens}").is_dir():
                save_trace(synthetic_trace(n_tokens, **shape), folder / f"tokens-{n_tokens}")
        if asked.heatmap and not (folder / WIDE).is_dir():
            save_trace(wide_trace(), folder / WIDE)
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        with server(folder) as base:
            if asked.tokens:
                _table(MAP_COLUMNS, [map_row(browser, base, n_tokens) for n_tokens in asked.tokens])
            if asked.heatmap:
                _table(HEATMAP_COLUMNS, heatmap_rows(browser, base))
        browser.close()


if __name__ == "__main__":
    main()
