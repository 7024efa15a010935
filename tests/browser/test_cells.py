import re

import pytest
from playwright.sync_api import Page, expect


def cell(page: Page, key: str, *, x: float, y: float) -> None:
    """Click in the middle of the cell at a place of the axes."""
    chart = page.locator(f".st-key-{key} .js-plotly-plot")
    # While a chart is replaced, two stand on the page for a moment.
    expect(chart).to_have_count(1)
    expect(chart).to_have_attribute("data-bridged", "true")
    chart.scroll_into_view_if_needed()
    place = chart.evaluate(
        """(gd, [x, y]) => {
            const { xaxis, yaxis } = gd._fullLayout, box = gd.getBoundingClientRect();
            return [box.left + xaxis._offset + xaxis.d2p(x), box.top + yaxis._offset + yaxis.d2p(y)];
        }""",
        [x, y],
    )
    page.mouse.move(*place)
    page.mouse.click(*place)


def test_a_click_on_a_cell_of_the_load_selects_the_expert_and_a_second_lets_go(app):
    page = app.open("load")
    cell(page, "load_heatmap", x=5, y=2)
    expect(page).to_have_url(re.compile(r"experts=L02\.E5"))
    expect(page.get_by_role("heading", name=re.compile("The picked expert, L02·E5"))).to_be_visible()
    cell(page, "load_heatmap", x=5, y=2)
    expect(page).not_to_have_url(re.compile("experts="))
    expect(page.get_by_role("heading", name=re.compile("The busiest expert"))).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_click_on_a_pale_or_a_strong_cell_of_the_tasks_finds_its_expert(app, scheme):
    page = app.open("tasks")
    for column, expert in ((19, "L02.E3"), (24, "L03.E0")):
        cell(page, "tasks_heatmap", x=column, y=1)
        expect(page).to_have_url(re.compile(rf"experts={re.escape(expert)}"))
        expect(page.get_by_role("heading", name=f"What {expert.replace('.', '·')} serves")).to_be_visible()
    # No white chart on a dark page.
    paper = page.locator(".st-key-tasks_heatmap .main-svg").first.evaluate("svg => svg.style.background")
    assert ("255, 255, 255" in paper) == (scheme == "light")


def test_what_is_selected_travels_to_the_other_views_and_back(app):
    page = app.open("load", experts="L02.E5", tasks="facts")
    page.get_by_role("link", name="Tasks").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Which experts serve which tasks?")
    expect(page.get_by_role("button", name=re.compile("L02·E5"))).to_be_visible()
    expect(page).to_have_url(re.compile(r"/tasks\?.*experts=L02\.E5"))
    page.get_by_role("button", name=re.compile("L02·E5")).click()
    expect(page).not_to_have_url(re.compile("experts="))
    # Going back at once is no late run with the URL of before.
    page.go_back()
    expect(page.get_by_role("button", name=re.compile("L02·E5"))).to_be_visible()
    page.go_forward()
    expect(page.get_by_role("button", name=re.compile("L02·E5"))).to_have_count(0)


def test_what_is_selected_stays_in_sight_while_the_page_scrolls(app):
    page = app.open("load", experts="L02.E5")
    chip = page.get_by_role("button", name=re.compile("L02·E5"))
    expect(chip).to_be_in_viewport()
    expect(page.get_by_role("heading", name="How even each layer is")).to_be_visible()
    scrolled = page.locator("[data-testid=stMain]").evaluate("main => { main.scrollTo(0, 400); return main.scrollTop }")
    assert scrolled > 200
    expect(chip).to_be_in_viewport()


def test_back_and_forward_lead_to_the_views_that_were_seen(app):
    page = app.open("load")
    seen = expect(page.get_by_role("heading", level=1))
    seen.to_have_text("Who does the work, where is it unbalanced, and for which tasks?")
    page.get_by_role("link", name="Tasks").click()
    seen.to_have_text("Which experts serve which tasks?")
    page.get_by_role("link", name="Unselected").click()
    seen.to_have_text("What did the router almost do?")
    page.go_back()
    seen.to_have_text("Which experts serve which tasks?")
    page.go_back()
    seen.to_have_text("Who does the work, where is it unbalanced, and for which tasks?")
    page.go_forward()
    seen.to_have_text("Which experts serve which tasks?")
    expect(page).to_have_url(re.compile("/tasks"))


def test_quick_clicks_on_a_filter_are_all_counted(app):
    page = app.open("load")
    page.get_by_role("button", name=re.compile("Tasks · all 6")).click()
    for task in ("spans", "facts", "topics"):
        page.get_by_role("button", name=task, exact=True).click()
    expect(page.get_by_role("button", name=re.compile("Tasks · 3 of 6"))).to_be_visible()
    expect(page).to_have_url(re.compile("tasks=spans%2Cfacts%2Ctopics"))


def test_the_numbers_of_a_figure_can_be_saved(app):
    page = app.open("load")
    page.locator(".st-key-data_load_tracks button").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download CSV").click()
    lines = saved.value.path().read_text("utf-8").splitlines()
    assert lines[0].startswith("layer,")
    assert len(lines) == 5  # a head, and the planted run's four layers


def test_figures_follow_the_reader_from_light_to_dark(app):
    page = app.open("load")
    paper = page.locator(".st-key-load_heatmap .main-svg").first
    expect(paper).to_have_css("background-color", "rgb(255, 255, 255)")
    page.emulate_media(color_scheme="dark")
    expect(paper).to_have_css("background-color", "rgb(17, 20, 23)")
