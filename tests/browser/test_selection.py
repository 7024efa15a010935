from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.test_cells import cell


def test_layers_are_gone_through_by_keys_and_finds_by_enter(app):
    page = app.open("tokens", focus="facts-003", layer="L01", **{"in": "expert", "find": "L03.E2"})
    passage = page.get_by_role("listbox", name="Tokens of prompt facts-003")
    legend = page.get_by_text(re.compile("First expert in L01"))
    expect(legend).to_be_visible()
    passage.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    # At once in the browser, then in the address and in what the server draws.
    expect(page.get_by_text("First expert in L03")).to_be_visible()
    expect(page).to_have_url(re.compile(r"layer=L03"))
    expect(page.get_by_role("slider", name="Layer")).to_have_value("3")
    page.keyboard.press("Enter")
    marked = page.locator(".token.found[aria-selected=true]")
    expect(marked).to_have_count(1)
    expect(page).to_have_url(re.compile(r"focus=facts-003%40\d+"))
    # The contexts of its expert lead to another prompt, and the expert's own page to this view again.
    rows = page.get_by_role("list", name=re.compile("Contexts of L03·E")).get_by_role("button")
    rows.first.click()
    expect(page.get_by_role("listbox", name=re.compile("Tokens of prompt (?!facts-003)"))).to_be_visible()


def test_a_context_on_the_page_of_an_expert_opens_its_passage(app):
    page = app.open("expert", expert="L03.E2")
    expect(page.get_by_role("heading", name="Where L03·E2 fires")).to_be_visible()
    app.settle()
    page.get_by_role("list", name="Contexts of L03·E2").get_by_role("button").first.click()
    expect(page).to_have_url(re.compile(r"/tokens\?.*focus="))
    expect(page.get_by_role("listbox", name=re.compile("Tokens of prompt"))).to_be_visible()


def test_a_selection_is_kept_in_this_browser_and_undone(app):
    page = app.open("load", tasks="facts", experts="L01.E1")
    page.get_by_role("button", name="Saved").click()
    page.get_by_role("textbox", name="Name of this selection").fill("<b>mine</b>")
    page.get_by_role("button", name="Save", exact=True).last.click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Clear").click()
    expect(page).not_to_have_url(re.compile("tasks="))
    page.get_by_role("button", name="Undo").click()
    expect(page).to_have_url(re.compile(r"tasks=facts&.*experts=L01\.E1|experts=L01\.E1&.*tasks=facts"))
    page.get_by_role("button", name="Clear").click()
    expect(page).not_to_have_url(re.compile("tasks="))
    page.get_by_role("button", name=re.compile("Saved 1")).click()
    page.get_by_text("<b>mine</b>", exact=True).click()
    expect(page).to_have_url(re.compile(r"experts=L01\.E1"))
    # Nothing of it went to the server: it lies where no other reader's browser looks.
    assert "<b>mine</b>" in page.evaluate("localStorage.getItem('routescope.selections')")


def test_a_zoom_shows_the_part_and_its_exact_cells(app):
    page = app.open("tasks", rows="recorded")
    chart = page.locator(".st-key-tasks_heatmap .js-plotly-plot")
    expect(chart).to_have_attribute("data-bridged", "true")
    chart.scroll_into_view_if_needed()
    corners = chart.evaluate(
        """(gd) => [[8, 1], [15, 4]].map(([x, y]) => {
            const { xaxis, yaxis } = gd._fullLayout, box = gd.getBoundingClientRect();
            return [box.left + xaxis._offset + xaxis.d2p(x), box.top + yaxis._offset + yaxis.d2p(y)];
        })"""
    )
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1], steps=5)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"zoom=8-16\.1-5\.task\.recorded"))
    expect(page.get_by_text("rows 2 to 5 of 6, experts 9 to 16 of 32")).to_be_visible()
    app.settle()
    # The first cell of the part is the ninth expert of all: E0 of the second layer.
    cell(page, "tasks_heatmap", x=0, y=0)
    expect(page).to_have_url(re.compile(r"experts=L01\.E0"))
    page.get_by_role("button", name="Whole table").click()
    expect(page).not_to_have_url(re.compile("zoom="))
