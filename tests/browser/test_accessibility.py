"""Every page in both looks: it is drawn, all in it has a name, texts stay texts, and axe-core finds nothing grave."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.view_list import VIEWS

# What views need in the URL to have something to show; UMAP would compile for tens of seconds.
QUERY = {
    "layout": "pca",
    "focus": "facts-001@3",
    "expert": "L03.E2",
    "group_a": "tasks=facts",
    "other": "hostile",
}
# Views that have little to say of the planted run.
RUNS = {"unselected": "hyper", "adapters": "hostile-prototypes", "routes": "hostile-routes"}
# Views that always have a picture to show.
DRAWN = ("overview", "tasks", "load", "map", "tokens", "expert", "groups", "unselected", "adapters", "routes")
CHARTS = ".stPlotlyChart .js-plotly-plot .main-svg"
GRAVE = ("serious", "critical")
# Called moderate, though a reader who hears the page goes by them.
HELD = ("heading-order",)
# Rule → what it may hit, and why it stays: parts of Streamlit that no option of ours reaches. None are left.
KNOWN: dict[str, tuple[str, str]] = {}
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
# What a name of a task or a prompt would leave if it were markup.
STRANGE = "main img[src*='example.org'], main a[href*='javascript'], main script"


def findings(page: Page, *, rules: tuple[str, ...] = ()) -> list[str]:
    """What axe finds that is serious or critical or of a rule held, and not known: rule, element, what is wrong."""
    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:160]} ({node['failureSummary'][:200]})"
        for rule in found
        if rule["impact"] in GRAVE or rule["id"] in HELD
        for node in rule["nodes"]
        if KNOWN.get(rule["id"], ("\0", ""))[0] not in node["html"]
    ]


def _drawn(page: Page) -> None:
    # What a run is about to replace is drawn pale, and for what is not loaded yet there stands a gray field.
    expect(page.locator("[data-stale=true]")).to_have_count(0)
    expect(page.locator(".stMain [data-testid=stSkeleton]:visible")).to_have_count(0)


def wrong_on(page: Page, *, scheme: str) -> list[str]:
    """What is wrong on the page as it is drawn: structure and names in the light look, in both what the eye meets."""
    _drawn(page)
    wrong = []
    if page.evaluate("window.hacked") is not None or page.locator(STRANGE).count():
        wrong.append("a text is markup")
    if scheme == "dark":
        if max(page.locator(CHARTS).evaluate_all(LUMINANCE), default=0) >= 0.2:
            wrong.append("a chart is white")
        return wrong + findings(page, rules=("color-contrast",))
    wrong += page.evaluate(NAMELESS)
    if n_unlabeled := page.locator(".stPlotlyChart").evaluate_all(UNLABELED):
        wrong.append(f"{n_unlabeled} charts have no name")
    return wrong + findings(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wrong_on_any_page(app, scheme):
    found: dict[str, list[str]] = {}
    page = app.open("", **QUERY)
    for view in sorted(VIEWS, key=lambda each: each.url in RUNS):
        if view.url in RUNS:
            app.open(view.url, layout="pca", run=RUNS[view.url])
        else:
            app.go(view.title)
        if view.url in DRAWN:
            expect(page.locator(CHARTS).first).to_be_visible()
        if wrong := wrong_on(page, scheme=scheme):
            found[view.url] = wrong
    page.get_by_role("link", name="Recordings", exact=True).click()
    expect(page.get_by_role("heading", name="Record a model")).to_be_visible()
    app.settle()
    if wrong := wrong_on(page, scheme=scheme):
        found["recordings"] = wrong
    assert found == {}
