"""Several readers of one server: each has a selection of his own, whatever the others do."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.test_cells import cell

MINE, THEIRS = re.compile("L02·E5 ✕"), re.compile("L01·E1 ✕")


def test_two_browsers_on_one_server_never_see_each_others_selection(app, browser, server):
    page = app.open("load")
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(30_000)
    other = context.new_page()
    other.goto(f"{server}/load?run=planted")
    expect(
        other.get_by_role("heading", name="Load of every expert against the even share of its layer")
    ).to_be_visible()

    def sees(reader: Page, own: re.Pattern[str], foreign: re.Pattern[str]) -> None:
        expect(reader.get_by_role("button", name=own)).to_be_visible()
        expect(reader.get_by_role("button", name=foreign)).to_have_count(0)

    # By turns, so that each write of the one is followed by a run of the other's page.
    cell(page, "load_heatmap", x=5, y=2)
    expect(page).to_have_url(re.compile(r"experts=L02\.E5"))
    cell(other, "load_heatmap", x=1, y=1)
    expect(other).to_have_url(re.compile(r"experts=L01\.E1"))
    sees(page, MINE, THEIRS)
    sees(other, THEIRS, MINE)
    page.get_by_role("button", name=re.compile("Tasks · all 6")).click()
    page.get_by_role("button", name="facts", exact=True).click()
    expect(page).to_have_url(re.compile("tasks=facts"))
    other.get_by_role("link", name="Tasks", exact=True).click()
    expect(other.get_by_role("heading", level=1)).to_have_text("Which experts serve which tasks?")
    sees(other, THEIRS, MINE)
    expect(other.get_by_role("button", name=re.compile("Tasks · all 6"))).to_be_visible()
    expect(other).not_to_have_url(re.compile("facts"))
    # What is undone is the reader's own, and a page that is loaded anew is what its address says.
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name=re.compile("Tasks · all 6"))).to_be_visible()
    other.get_by_role("button", name=THEIRS).click()
    expect(other.get_by_role("button", name=THEIRS)).to_have_count(0)
    page.reload()
    sees(page, MINE, THEIRS)
    other.reload()
    expect(other.get_by_role("heading", level=1)).to_be_visible()
    expect(other.get_by_role("button", name=MINE)).to_have_count(0)
    expect(other).not_to_have_url(re.compile("experts="))
    context.close()
