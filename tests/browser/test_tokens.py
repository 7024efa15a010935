from __future__ import annotations

import re

from playwright.sync_api import expect


def test_a_token_is_pointed_at_by_mouse_and_by_keys(app):
    page = app.open("tokens", focus="facts-003")
    passage = page.get_by_role("listbox", name="Tokens of prompt facts-003")
    expect(passage.get_by_role("option")).to_have_count(14)

    passage.get_by_role("option").nth(4).click()
    expect(page).to_have_url(re.compile(r"focus=facts-003%404\b"))
    route = page.locator(".st-key-token_route .js-plotly-plot")
    expect(route).to_be_visible()
    expect(page.get_by_role("heading", name=re.compile(r"Route of .*\(token 4\)"))).to_be_visible()

    passage.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(passage.get_by_role("option").nth(7)).to_have_attribute("aria-selected", "true")
    expect(page).to_have_url(re.compile(r"focus=facts-003%407\b"))
    expect(page.get_by_role("heading", name=re.compile(r"\(token 7\)"))).to_be_visible()
    page.keyboard.press("End")
    expect(page).to_have_url(re.compile(r"focus=facts-003%4013\b"))
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile(r"focus=facts-003(&|$)"))
    expect(route).to_have_count(0)


def test_a_link_reproduces_the_screen(app):
    page = app.open("tokens", focus="sentiment-002@6", layer="L03", shade="margin", tasks="sentiment")
    expect(page.get_by_role("listbox", name="Tokens of prompt sentiment-002")).to_be_visible()
    expect(page.locator(".token[aria-selected=true]")).to_have_attribute("data-i", "6")
    expect(page.get_by_text("Margin in L03 (selection score)")).to_be_visible()
    expect(page.get_by_role("heading", name=re.compile(r"Route of .*\(token 6\)"))).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Tasks · 1 of 6"))).to_be_visible()

    # A cell of the route colors the text by its layer, and picks its expert.
    cells = page.locator(".st-key-token_route .js-plotly-plot[data-bridged] .nsewdrag").first
    box = cells.bounding_box()
    cells.click(position={"x": box["width"] * 0.05, "y": box["height"] * 0.1})
    expect(page).to_have_url(re.compile(r"experts=L00\.E\d.*layer=L00|layer=L00.*experts=L00\.E\d"))
    expect(page.get_by_text("Margin in L00 (selection score)")).to_be_visible()
