"""The keyboard alone: Tab reaches everything in order and leaves it, each stop is seen, and keys do what clicks do."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

# What has the focus, also within our own components; and whether it, or the field around it, shows that.
STOP = """() => {
  let here = document.activeElement;
  while (here?.shadowRoot?.activeElement) here = here.shadowRoot.activeElement;
  if (!here || here === document.body) return null;
  const seen = (each) => {
    const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(each);
    return (outlineStyle !== "none" && parseFloat(outlineWidth) >= 1) || boxShadow !== "none";
  };
  let around = here;
  for (let step = 0; step < 4 && around && !seen(around); step++) around = around.parentElement;
  const name = here.getAttribute("aria-label") ?? here.innerText ?? "";
  return {
    name: `${here.getAttribute("role") ?? here.tagName.toLowerCase()} ${name.trim().slice(0, 60)}`,
    // A table of Streamlit's draws a ring of its own, on its canvas.
    seen: Boolean(around && seen(around)) || here.tagName === "CANVAS",
  };
}"""
MOST_STOPS = 200


def stops(page: Page) -> list[dict]:
    """Everything that Tab reaches, until it leaves the page."""
    found: list[dict] = []
    for _ in range(MOST_STOPS):
        page.keyboard.press("Tab")
        stop = page.evaluate(STOP)
        if stop is None:
            return found
        found.append(stop)
    raise AssertionError(f"Tab never left the page; at last it was at {[each['name'] for each in found[-5:]]}.")


def held(found: list[dict], *in_order: str) -> None:
    """Every stop is seen, and those of these names come one after the other."""
    assert [each["name"] for each in found if not each["seen"]] == []
    names = iter(each["name"] for each in found)
    for pattern in in_order:
        assert any(re.search(pattern, name) for name in names), f"{pattern} does not come after those before it."


def test_a_heatmap_is_walked_by_keys(app):
    page = app.open("load")
    cells = page.locator(".st-key-load_heatmap .cells-by-key")
    expect(cells).to_be_visible()
    held(
        stops(page), "Skip to main", "Overview", "Placement", "Run", "Tasks", "Layers", "Cells of Load of every expert"
    )
    cells.focus()
    # The first cell is the first layer's first expert: one to the right, one down.
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(cells).to_contain_text("L01·E1")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"experts=L01\.E1"))
    app.settle()
    expect(cells).to_be_focused()


def test_a_passage_is_walked_by_keys(app):
    page = app.open("tokens", focus="facts-001@3")
    passage = page.get_by_role("listbox", name=re.compile("Tokens of prompt"))
    expect(passage).to_be_visible()
    expect(page.locator(".st-key-token_route .cells-by-key")).to_be_visible()
    held(stops(page), "What to find", "Layer$", "E\\d+: \\d+ tokens", "Tokens of prompt", "Data", "Cells of Route of")
    passage.focus()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile("focus=facts-001%404"))


def test_the_map_and_its_legend_are_walked_by_keys(app):
    page = app.open("map", of="token", size="100000")
    expect(page.locator(".map[data-ready]")).to_be_visible()
    stage = page.get_by_role("application", name=re.compile("Map of"))
    held(stops(page), "Map of", "Draw around points", "Save the picture", "button spans", "button sentiment")
    stage.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("focus="))
    app.settle()
    group = page.locator(".legend").get_by_role("button", name=re.compile("sentiment"))
    group.focus()
    page.keyboard.press("Enter")
    expect(group).to_have_attribute("aria-pressed", "false")
    expect(page).to_have_url(re.compile("hidden=Task~sentiment"))
    app.settle()
    # Whoever opens this address sees the same groups.
    page.goto(page.url)
    app.settle()
    expect(group).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".legend").get_by_role("button", name=re.compile("spans"))).to_have_attribute(
        "aria-pressed", "true"
    )
