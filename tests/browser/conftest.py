"""The real app in Debian's chromium: started from another folder, cut off from the network."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from app.view_list import VIEWS
from routing import save_trace
from tests.adapter_traces import hyper_moe_trace, pha_trace, task_moe_trace
from tests.browser.stories import save_stories
from tests.hostile import hostile
from tests.tiny import save_tiny
from tests.traces import planted_trace

ROOT = Path(__file__).resolve().parents[2]
# A test machine with other work on it is slow, not wrong.
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)
LOCAL = {"127.0.0.1", "localhost"}
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Whatever a page asks for beyond this machine is not found; that it asked fails the test.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


class App:
    """The running app, and one page of it."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base

    def open(self, view: str, **query: str) -> Page:
        """Open a view and wait until it is drawn."""
        self.page.goto(f"{self.base}/{view}?{urlencode({'run': 'planted'} | query)}")
        self.settle()
        return self.page

    def go(self, title: str) -> None:
        """Go to a view by its link beside the page, which costs less than opening it."""
        question = next(view.question for view in VIEWS if view.title == title)
        self.page.get_by_role("link", name=title, exact=True).first.click()
        expect(self.page.get_by_role("heading", level=1)).to_have_text(question)
        self.settle()

    def settle(self) -> None:
        """Wait until the script has run to its end, without an exception on the page."""
        expect(self.page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible()
        expect(self.page.get_by_role("heading", level=1)).to_be_visible()
        expect(self.page.get_by_test_id("stException")).to_have_count(0)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one planted run, and one whose texts try to be more than texts."""
    folder = tmp_path_factory.mktemp("runs")
    trace = planted_trace(seed=3, n_tasks=6, n_prompts_a_task=12, n_layers=4, n_experts=8, n_runners_up=2)
    save_trace(trace, folder / "planted")
    save_trace(hostile(trace), folder / "hostile")
    save_trace(hyper_moe_trace(seed=0), folder / "hyper")
    save_trace(hostile(pha_trace(seed=0)), folder / "hostile-prototypes")
    save_trace(hostile(task_moe_trace(seed=0)), folder / "hostile-routes")
    save_stories(folder)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one model, "tiny", that nobody recorded: of so many layers that recording it outlasts a test."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny(folder / "tiny", "olmoe", max_position_embeddings=4096, hidden_size=64, num_hidden_layers=32)
    (folder / "tiny" / "README.md").write_text("# tiny\n\nIts weights are random. It is there to be recorded.\n")
    return folder


@pytest.fixture(scope="session")
def server(runs: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the app, started as a user starts it, from a folder that is not the repository."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app" / "main.py")]
    options = [f"--server.port={port}", "--server.address=127.0.0.1", "--server.headless=true"]
    log = elsewhere / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, *options],
            cwd=elsewhere,
            env=os.environ
            | {
                "ROUTESCOPE_RUNS": str(runs),
                "ROUTESCOPE_MODELS": str(models),
                "OMP_NUM_THREADS": "1",
                "ROUTESCOPE_TOUR": "off",
            },
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    base = f"http://127.0.0.1:{port}"
    try:
        _await_health(f"{base}/_stcore/health", process, log)
        yield base
    finally:
        process.terminate()
        process.wait(timeout=20)


def _await_health(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"The app did not start:\n{log.read_text()}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's chromium."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("The browser tests need a 'chromium' on PATH. Run 'make test', which installs it.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def scheme() -> str:
    """Look of the page; a test that wants the dark one overrides it by parametrizing."""
    return "light"


@pytest.fixture(scope="session")
def contexts(browser: Browser) -> Iterator[Callable[[str], BrowserContext]]:
    """One reader's browser in each look, for all tests: what it has loaded once it need not load again."""
    made: dict[str, BrowserContext] = {}

    def context(scheme: str) -> BrowserContext:
        if scheme not in made:
            size = {"width": 1400, "height": 1000}
            made[scheme] = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
            made[scheme].set_default_timeout(PATIENCE_MS)
        return made[scheme]

    yield context
    for each in made.values():
        each.close()


@pytest.fixture
def app(contexts: Callable[[str], BrowserContext], server: str, scheme: str) -> Iterator[App]:
    """A fresh page in which a request that leaves the machine, or an error in the page, fails the test."""
    context = contexts(scheme)
    strangers: list[str] = []
    errors: list[str] = []

    def look(request: Request) -> None:
        if urlsplit(request.url).hostname not in LOCAL and urlsplit(request.url).scheme not in ("data", "blob"):
            strangers.append(request.url)

    context.on("request", look)
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    # What the reader of the test before kept in this browser is not there for the next.
    page.goto(f"{server}/_stcore/health")
    page.evaluate("localStorage.clear()")
    yield App(page, server)
    page.close()
    context.remove_listener("request", look)
    assert strangers == [], "The page asked for what is not on this machine."
    assert errors == [], "The page raised an error."
