from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

# UMAP compiles for tens of seconds; what a browser adds to it is seen on the principal components.
VIEWS = {
    "": {},
    "tasks": {},
    "load": {},
    "map": {"layout": "pca"},
    "tokens": {"focus": "facts-001@3"},
    "expert": {"expert": "L03.E2"},
    "groups": {"group_a": "tasks=facts"},
    "unselected": {"layout": "pca", "run": "hyper"},
}
CHARTS = ".stPlotlyChart .js-plotly-plot .main-svg"
# What takes part in the page for the eye must have a name for the ear.
NAMELESS = """
() => {
  const name = (node) => node.getAttribute('aria-label') || node.getAttribute('title') || node.innerText
    || node.labels?.[0]?.innerText || (node.getAttribute('aria-labelledby') || '').split(' ').filter(Boolean)
      .map((id) => document.getElementById(id)?.innerText).join('') || node.getAttribute('placeholder') || '';
  const nodes = [...document.querySelectorAll(
    'main button, main a[href], main input:not([type=hidden]), main [role=listbox], main [role=slider], main img')];
  for (const host of document.querySelectorAll('main *')) {
    if (host.shadowRoot) nodes.push(...host.shadowRoot.querySelectorAll('button, [role=listbox], [role=option]'));
  }
  return nodes.filter((node) => node.checkVisibility() && !name(node).trim())
    .map((node) => node.outerHTML.slice(0, 200));
}
"""
UNLABELED = """
(charts) => charts.filter((each) => !each.closest('[aria-label]') && !each.querySelector('[aria-label]')).length
"""
LUMINANCE = """
(nodes) => nodes.map((node) => {
  const [r, g, b, a = 1] = getComputedStyle(node).backgroundColor.match(/[\\d.]+/g).map(Number);
  return a === 0 ? 0 : (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
})
"""


def test_every_view_is_drawn_and_everything_in_it_has_a_name(app):
    for view, query in VIEWS.items():
        page = app.open(view, **query)
        expect(page.locator(CHARTS).first).to_be_visible()
        assert page.evaluate(NAMELESS) == [], view
        assert page.locator(".stPlotlyChart").evaluate_all(UNLABELED) == 0, view


@pytest.mark.parametrize("scheme", ["dark"])
def test_the_dark_look_has_no_white_chart(app):
    page = app.open("", layout="pca", focus="facts-001@3")
    for title in ("Overview", "Tasks", "Load", "Map", "Tokens", "Unselected"):
        app.go(title)
        expect(page.locator(CHARTS).first).to_be_visible()
        assert max(page.locator(CHARTS).evaluate_all(LUMINANCE)) < 0.2, title


def test_a_lasso_on_the_map_picks_prompts_for_every_view(app):
    page = app.open("map", layout="pca", of="prompt")
    plane = page.locator(".st-key-map_prompt .js-plotly-plot .nsewdrag").first
    box = plane.bounding_box()
    corners = [(0.5, 0.05), (0.95, 0.05), (0.95, 0.95), (0.5, 0.95), (0.5, 0.05)]
    way = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*way[0])
    page.mouse.down()
    for corner in way[1:]:
        page.mouse.move(*corner, steps=4)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"prompts=\w+-\d+"))
    expect(page.get_by_role("heading", name=re.compile(r"\d+ prompts picked"))).to_be_visible()
    page.get_by_role("link", name="Read them").click()
    expect(page.get_by_role("listbox", name=re.compile("Tokens of prompt"))).to_be_visible()


def test_texts_are_shown_never_executed(app):
    page = app.open("", run="hostile", layout="pca")
    strangers = page.locator("main img[src*='example.org'], main a[href*='javascript'], main script")
    for title in ("Overview", "Tasks", "Load", "Map", "Unselected", "Tokens"):
        app.go(title)
        assert page.evaluate("window.hacked") is None, title
        assert strangers.count() == 0, title
    options = page.get_by_role("option")
    expect(options.filter(has_text="<script>window.hacked = true</script>").first).to_be_visible()
    expect(options.filter(has_text="[U+202E]gnirts").first).to_be_visible()


@pytest.mark.parametrize(("view", "run"), [("adapters", "hostile-prototypes"), ("routes", "hostile-routes")])
def test_names_of_tasks_are_shown_never_executed_and_pictures_have_names(app, view, run):
    page = app.open(view, run=run, layout="pca")
    expect(page.locator(CHARTS).first).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img[src*='example.org'], main a[href*='javascript'], main script").count() == 0
    assert page.evaluate(NAMELESS) == []
    assert page.locator(".stPlotlyChart").evaluate_all(UNLABELED) == 0
