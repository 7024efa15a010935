from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from app import cache
from routing import RoutingTrace, save_trace
from tests.traces import planted_trace

MAIN = Path(__file__).parents[2] / "app" / "main.py"

Opened = Callable[..., AppTest]


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs: "skewed", whose layer L02 overloads expert 3, and "even"."""
    folder = tmp_path_factory.mktemp("runs")
    shape = {"n_tasks": 6, "n_prompts_a_task": 6, "n_tokens_a_prompt": 10, "n_layers": 3}
    save_trace(planted_trace(seed=2, **shape), folder / "even")
    save_trace(planted_trace(seed=1, popular={(2, 3): 4.0}, **shape), folder / "skewed")
    return folder


@pytest.fixture
def open_app(monkeypatch: pytest.MonkeyPatch, planted: Path, tmp_path: Path) -> Opened:
    """Open a view of the app as a browser would, at an address; on the planted runs unless told otherwise."""

    def opened(
        view: str = "",
        query: Mapping[str, str] | None = None,
        *,
        runs: Path | None = None,
        models: Path | None = None,
        state: Mapping[str, object] | None = None,
    ) -> AppTest:
        monkeypatch.setenv("ROUTESCOPE_RUNS", str(runs or planted))
        monkeypatch.setattr("app.runs._SHIPPED", tmp_path / "nothing is shipped")
        monkeypatch.setenv("ROUTESCOPE_MODELS", str(models or tmp_path / "nor is a model"))
        # Runs are looked for again every few seconds only; the environment of another test must not be remembered.
        cache._found.clear()
        test = AppTest.from_file(str(MAIN), default_timeout=120)
        for name, value in (query or {}).items():
            test.query_params[name] = value
        for name, value in (state or {}).items():
            test.session_state[name] = value
        # Streamlit knows a page by its path; AppTest offers no public way to name one that is a function.
        test._page_hash = calc_hash(view) if view else ""
        return test.run()

    return opened


@pytest.fixture
def app_on(open_app: Opened, tmp_path: Path) -> Callable[..., AppTest]:
    """Open a view on one trace."""

    def opened(trace: RoutingTrace, view: str = "", query: Mapping[str, str] | None = None) -> AppTest:
        if not (tmp_path / "runs" / "one").exists():
            save_trace(trace, tmp_path / "runs" / "one")
        return open_app(view, query, runs=tmp_path / "runs")

    return opened


def charts_of(test: AppTest) -> list[str]:
    """Keys of the figures that the page shows, in their order."""
    return [each.key for each in test.get("plotly_chart")]


def figure_of(test: AppTest, key: str) -> dict:
    """The one figure of this key, as the browser is told to draw it."""
    (chart,) = (each for each in test.get("plotly_chart") if each.key == key)
    return json.loads(chart.proto.spec or chart.proto.figure.spec)


def text_of(test: AppTest) -> str:
    """Everything the page says in words."""
    said = [*test.markdown, *test.caption, *test.info, *test.warning, *test.error, *test.title, *test.subheader]
    return "\n".join(str(each.value) for each in said)
