import re

import pytest
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
    selected = page.get_by_role("option", selected=True)
    expect(page.get_by_role("listbox", name="Tokens of prompt sentiment-002")).to_be_visible()
    expect(selected.and_(page.locator("[data-i='6']"))).to_have_count(1)
    expect(page.get_by_text("Margin in L03 (selection score)")).to_be_visible()
    expect(page.get_by_role("heading", name=re.compile(r"Route of .*\(token 6\)"))).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Tasks · 1 of 6"))).to_be_visible()


@pytest.mark.parametrize("view", ["overview", "tasks", "load", "map", "tokens"])
def test_texts_are_shown_never_executed(app, view):
    page = app.open(view, run="hostile")
    app.settle()
    assert page.evaluate("window.hacked") is None
    expect(page.locator("main img[src*='example.org'], main script")).to_have_count(0)
    if view == "tokens":
        options = page.get_by_role("option")
        expect(options.filter(has_text="<script>window.hacked = true</script>").first).to_be_visible()
        expect(options.filter(has_text="[U+202E]gnirts").first).to_be_visible()
