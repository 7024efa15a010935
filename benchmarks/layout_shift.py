"""How much of a page moves by itself: while it is first opened, on the way from view to view, after a click.

    python -m benchmarks.layout_shift                             # every view, 1280 x 800, a table
    python -m benchmarks.layout_shift --size 1920x1080 --dark
    python -m benchmarks.layout_shift --views tasks load --sources   # what moved, from where to where

Starts the app on the sample checkpoint and on small made-up runs of the systems that it is none of, and opens it in
the `chromium` on PATH. Each number is the sum of Chromium's layout shifts: what share of the window moved, times how
far. Below .1 is held to be good for a page's whole life (https://web.dev/articles/cls). "opened" is by a browser that
has nothing of the page yet; "gone to" by its link on another view; "click" the commonest one in the view. As the
measure is defined, what moves within half a second of a click answers it, and counts nothing; it stands in brackets.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import Browser, Page, sync_playwright

from app.view_list import VIEWS
from benchmarks.browser_latency import server
from routing import save_trace
from tests.adapter_traces import hyper_moe_trace, pha_trace, task_moe_trace

PATIENCE_MS = 180_000
RUN = "olmoe-13m-balanced/step-022000"
OTHERS = {"unselected": "hyper", "adapters": "pha", "routes": "routes"}
ASKED = {"layout": "pca", "group_a": "tasks=banking_requests", "focus": "", "expert": "L03.E2"}
# Beside the views: no run is shown there.
RECORDINGS = ("recordings", "Recordings")
SHIFTS = """
window.shifts = [];
const named = (node) => {
  const element = node?.nodeType === 1 ? node : node?.parentElement;
  const keyed = element?.closest?.('[class*="st-key-"]');
  const key = [...(keyed?.classList ?? [])].find((name) => name.startsWith('st-key-'));
  const text = (node?.textContent ?? '').trim().replace(/\\s+/g, ' ').slice(0, 40);
  return `${node?.nodeName ?? 'gone'} ${element?.dataset?.testid ?? ''} in ${key ?? '-'} "${text}"`;
};
const box = (r) => [r.x, r.y, r.width, r.height].map(Math.round).join(',');
new PerformanceObserver((list) => {
  for (const each of list.getEntries())
    window.shifts.push({
      value: each.value, answers: each.hadRecentInput, at: Math.round(each.startTime),
      sources: each.sources.map((s) => `${box(s.previousRect)} -> ${box(s.currentRect)} ${named(s.node)}`),
    });
}).observe({ type: 'layout-shift', buffered: true });
"""

Shifts = list[dict[str, Any]]


def opened(browser: Browser, base: str, url: str, *, size: dict[str, int], scheme: str) -> Page:
    """The view, by a browser that has nothing of it yet."""
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.add_init_script(SHIFTS)
    page.goto(f"{base}/{url}?{urlencode({'run': OTHERS.get(url, RUN)} | ASKED)}")
    settle(page)
    return page


def settle(page: Page) -> None:
    """Wait until nothing is drawn any more."""
    time.sleep(0.6)
    page.wait_for_selector("h1")
    for _ in range(2):
        page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
        page.wait_for_function("!document.querySelector('.stMain [data-stale=true]')")
        time.sleep(0.8)


def taken(page: Page) -> Shifts:
    """What moved since this was last asked."""
    found: Shifts = page.evaluate("window.shifts.splice(0)")
    return found


def click(page: Page, url: str) -> str:
    """Click what readers of the view click most; what that was, nothing where there is nothing to click."""
    main = page.locator(".stMain")
    cells = main.locator(".js-plotly-plot .nsewdrag:visible")
    others = main.locator("[role=radio][aria-checked=false]:visible")
    if url == "tokens":
        page.locator(".stMain .token:visible").nth(8).click()
        return "token"
    if url in ("tasks", "load", "together", "unselected", "routes", "groups") and cells.count():
        # Where a figure is wider than high, most of it are cells; a dot is hit by its own page story.
        cells.first.scroll_into_view_if_needed()
        page.wait_for_timeout(600)
        taken(page)
        cells.first.click()
        return "cell"
    if others.count():
        name = others.first.inner_text().strip()
        others.first.click()
        return f"“{name}”"
    return ""


def told(shifts: Shifts) -> str:
    """The sum, and in brackets what answered a click."""
    own = sum(each["value"] for each in shifts if not each["answers"])
    answers = sum(each["value"] for each in shifts if each["answers"])
    return f"{own:.3f}" + (f" ({answers:.2f})" if answers >= 0.005 else "")


def sources(label: str, shifts: Shifts, *, least: float) -> None:
    """What moved, of the larger shifts."""
    for each in sorted(shifts, key=lambda each: -each["value"]):
        if each["value"] >= least:
            print(f"  {label}: {each['value']:.3f} at {each['at']} ms{' after a click' if each['answers'] else ''}")
            for one in each["sources"]:
                print(f"      {one}")


def row(
    browser: Browser, base: str, url: str, title: str, tell: Callable[[str, Shifts], None], **look: Any
) -> list[str]:
    """One view: opened, gone to, clicked."""
    # What takes the server long is found before, so that the page is measured and not the machine.
    opened(browser, base, url, **look).context.close()
    page = opened(browser, base, url, **look)
    first = taken(page)
    tell(f"{url} opened", first)
    page.get_by_role("link", name="Groups" if title != "Groups" else "Try it", exact=True).first.click()
    settle(page)
    taken(page)
    page.get_by_role("link", name=title, exact=True).first.click()
    settle(page)
    gone = taken(page)
    tell(f"{url} gone to", gone)
    what = click(page, url)
    settle(page)
    clicked = taken(page)
    tell(f"{url} clicked {what}", clicked)
    page.context.close()
    return [title, told(first), told(gone), f"{told(clicked)} {what}" if what else "–"]


def main() -> None:
    """Start the app, open every view, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", nargs="*", default=[])
    parser.add_argument("--size", default="1280x800")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--sources", action="store_true", help="what moved, from where to where (x, y, width, height)")
    parser.add_argument("--least", type=float, default=0.02, help="leave smaller shifts out of --sources")
    asked = parser.parse_args()
    width, height = map(int, asked.size.split("x"))
    look = {"size": {"width": width, "height": height}, "scheme": "dark" if asked.dark else "light"}

    def tell(label: str, shifts: Shifts) -> None:
        if asked.sources:
            sources(label, shifts, least=asked.least)
        else:
            print(f"{label}: {told(shifts)}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        for name, made in (("hyper", hyper_moe_trace), ("pha", pha_trace), ("routes", task_moe_trace)):
            save_trace(made(seed=0), Path(folder) / name)
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        views = [(view.url, view.title) for view in VIEWS] + [RECORDINGS]
        with server(Path(folder)) as base:
            rows = [
                row(browser, base, url, title, tell, **look)
                for url, title in views
                if not asked.views or url in asked.views
            ]
        browser.close()
    for each in (["view", "opened", "gone to", "click"], ["---"] * 4, *rows):
        print("| " + " | ".join(each) + " |")


if __name__ == "__main__":
    main()
