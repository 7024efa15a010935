"""What a reader takes along: pictures and numbers of a figure, a view, a run."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from app.report.run import run_report
from routing import open_trace

REPORT = "window.hacked === undefined && document.querySelectorAll('.plot:not([data-drawn])').length === 0"


def test_a_figure_is_saved_as_png_svg_and_csv(app, tmp_path):
    page = app.open("load")
    menu = page.locator(".st-key-panel_load_heatmap").get_by_role("button", name="Save")
    for name, first in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
        # Saving presses the chart's own camera, outside the menu, which closes it.
        menu.click()
        with page.expect_download() as told:
            page.get_by_role("button", name=f"Save as {name}").click()
        assert told.value.suggested_filename == f"load_heatmap.{name.lower()}"
        told.value.save_as(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(first)
    menu.click()
    with page.expect_download() as told:
        page.get_by_role("button", name="CSV", exact=True).click()
    told.value.save_as(tmp_path / "csv")
    rows = list(csv.DictReader((tmp_path / "csv").read_text("utf-8").splitlines()))
    # 4 layers of 8 experts
    assert len(rows) == 32
    assert sum(float(row["load"]) for row in rows) == pytest.approx(4)


def test_a_view_goes_along_as_one_file(app, browser, tmp_path):
    page = app.open("load", tasks="facts")
    page.get_by_role("button", name="Share").click()
    with page.expect_download() as told:
        page.get_by_role("button", name="This view").click()
    assert told.value.suggested_filename == "planted-load.html"
    told.value.save_as(tmp_path / "view.html")
    opened = offline(browser, tmp_path / "view.html")
    expect(opened.get_by_role("heading", name=re.compile("Load of every expert"))).to_be_visible()
    expect(opened.get_by_role("row", name="tasks facts")).to_be_visible()
    opened.context.close()


def test_a_report_of_hostile_texts_opens_offline_and_reaches_nobody(browser, runs, tmp_path):
    page = run_report(open_trace(runs / "hostile"), name="hostile <script>window.hacked = true</script>")
    (tmp_path / "report.html").write_text(page, "utf-8")
    opened = offline(browser, tmp_path / "report.html")
    for each in opened.locator("details").all():
        each.evaluate("node => { node.open = true }")
    assert opened.evaluate("window.hacked") is None
    assert opened.locator("a[href^='javascript'], img[src*='example'], svg image[href^='http']").count() == 0
    with opened.expect_download() as told:
        opened.get_by_role("button", name="Save CSV").first.click()
    assert told.value.suggested_filename.endswith(".csv")
    opened.context.close()


def offline(browser: Browser, path: Path):
    """The file in a browser of its own, which is to ask for nothing else and to have no error."""
    context = browser.new_context()
    context.set_offline(True)
    page = context.new_page()
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.goto(path.as_uri())
    page.wait_for_function(REPORT)
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    assert problems == []
    return page
