from __future__ import annotations

import re

from playwright.sync_api import expect


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
