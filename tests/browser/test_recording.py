from __future__ import annotations

import re

from playwright.sync_api import expect


def test_a_model_is_recorded_on_its_first_visit_for_all_sessions_and_cancel_keeps_what_there_is(app, browser, server):
    page = app.open("load", run="tiny")
    title = page.get_by_role("heading", level=1)
    expect(title).to_have_text("Recording tiny")
    expect(page.get_by_text("It is there to be recorded.")).to_be_visible()
    other = browser.new_context().new_page()
    other.goto(f"{server}/load?run=tiny")
    # Loading takes seconds; then prompts are counted, on both pages.
    for each in (page, other):
        expect(each.get_by_text(re.compile(r"\d+ of 724 prompts · [\d,]+ tokens/s"))).to_be_visible(timeout=120_000)
    other.reload()
    expect(other.get_by_role("heading", level=1)).to_have_text("Recording tiny")
    page.get_by_role("button", name="Cancel").click()
    for each in (page, other):
        expect(each.get_by_role("heading", level=1)).to_have_text(re.compile("Who does the work"))
        expect(each.get_by_text("This recording was stopped before its end")).to_be_visible()
    expect(page.get_by_role("button", name="Record anew")).to_be_visible()
    expect(page).to_have_url(re.compile("run=tiny"))
    other.context.close()
