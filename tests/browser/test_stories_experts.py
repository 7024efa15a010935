"""Stories of docs/stories.md that ask what experts do; their answers are known, and counted here by hand."""

from __future__ import annotations

import re

import numpy as np
from playwright.sync_api import Locator, Page, expect

from app.sentences import percent
from routing import open_trace
from tests.browser.stories import KNOCKED_OUT, N_RANDOM, chooses, rate_of, task_of_token
from tests.browser.test_cells import cell


def of_panel(page: Page, key: str) -> Locator:
    return page.locator(f".st-key-panel_{key}")


def test_a_training_engineer_finds_the_expert_that_overflows_and_why(app, runs):
    trace = open_trace(runs / "overflowing")
    here, task = chooses(trace, 2, 5), task_of_token(trace)
    factor, n_even = 8 * here.mean(), trace.n_tokens / 8
    surplus = here.sum() - n_even
    of_facts = (here[task == "facts"].sum() - (task == "facts").sum() / 8) / surplus
    paris = trace.vocabulary.index[trace.vocabulary == " Paris"][0]
    is_paris = trace.tokens["token_id"].to_numpy() == paris
    of_paris = (here[is_paris].sum() - is_paris.sum() / 8) / surplus

    page = app.open("load", run="overflowing")
    checks = page.locator(".st-key-load_verdicts")
    expect(checks).to_contain_text(f"L02·E5 does {factor:.2f} [")
    checks.get_by_role("button", name="Look").first.click()
    expect(page).to_have_url(re.compile("part=causes"))
    by_task = of_panel(page, "load_cause_tasks")
    expect(by_task).to_contain_text(f"L02·E5 does {factor:.1f} × the mean of its layer. facts brings")
    expect(by_task).to_contain_text(re.compile(rf"facts brings {percent(of_facts)} .* of its surplus with 33.% of the"))
    by_token = of_panel(page, "load_cause_tokens")
    expect(by_token).to_contain_text(f"' Paris' brings most: {percent(of_paris)}")
    expect(by_token).to_contain_text(f"100 % of its {is_paris.sum()} occurrences")
    # An even layer gets no cause invented.
    page.get_by_role("radio", name="L00", exact=True).click()
    expect(by_task).to_contain_text("there is little to explain")


def test_a_researcher_finds_the_expert_of_knowledge_and_proves_it(app, runs):
    trace = open_trace(runs / "served")
    rate = rate_of(trace, 3, 2, tasks=("facts", "capitals"))
    page = app.open("tasks", run="served", over="task_type")
    table = of_panel(page, "tasks_heatmap")
    expect(table).to_contain_text(re.compile(r"The clearest preference: knowledge uses L03·E2 \d\.\d.× as much"))
    expect(table).to_contain_text(f"in {percent(rate)} of its tokens")
    cell(page, "tasks_heatmap", x=26, y=0)
    expect(page).to_have_url(re.compile(r"experts=L03\.E2"))
    app.go("Causes")
    effects = of_panel(page, "causes_effects")
    lost, others = KNOCKED_OUT["knowledge"], 0.01 * np.arange(1, N_RANDOM + 1)
    expect(effects).to_contain_text(f"Without L03·E2 (serves knowledge), knowledge loses {lost:.3f} nats a token")
    expect(effects).to_contain_text(
        f"random sets {others.mean():+.3f} ({others.min():+.3f} to {others.max():+.3f})). "
        "Of 3 effects 1 beats random sets"
    )
    # The same study where random sets cost as much.
    app.open("causes", run="denied", experts="L03.E2")
    expect(effects).to_contain_text("Nothing here harms more than random sets: of 3 effects, none is harm")


def test_a_reviewer_checks_claimed_specialists_against_chance(app, runs):
    trace = open_trace(runs / "served")
    page = app.open("tasks", run="served", experts="L01.E4")
    table = of_panel(page, "tasks_heatmap")
    expect(table).to_contain_text("L01·E4 is used by none of these more than by all, beyond chance")
    expect(of_panel(page, "expert_tasks")).to_contain_text("so this may be chance")
    cell(page, "tasks_heatmap", x=26, y=0)
    rate = {task: rate_of(trace, 3, 2, tasks=(task,)) for task in ("facts", "capitals")}
    for task in rate:
        expect(table).to_contain_text(re.compile(rf"is used more by .*{task} \(\d\.\d.×, {percent(rate[task])}\)"))
    best = max(rate, key=lambda each: rate[each])
    expect(of_panel(page, "expert_tasks")).to_contain_text(f"L03·E2 serves {best} most: {percent(rate[best])} of its")
    # Where tasks do not matter, nothing is found.
    app.open("tasks", run="null")
    expect(table).to_contain_text("None of 192 cells differs from the average beyond chance")


def test_two_groups_of_prompts_are_kept_and_compared(app, runs):
    trace = open_trace(runs / "served")
    page = app.open("tasks", run="served", tasks="facts")
    for name, task in (("A", "facts"), ("B", "sentiment")):
        page.get_by_role("button", name="A | B").click()
        page.get_by_role("button", name=f"Make it group {name}").click()
        expect(page.get_by_role("button", name=f"{name} {task} ✕")).to_be_visible()
        page.keyboard.press("Escape")
        if name == "A":
            page.get_by_role("button", name=re.compile("Tasks · 1 of 6")).click()
            page.get_by_role("button", name="facts", exact=True).click()
            page.get_by_role("button", name="sentiment", exact=True).click()
            expect(page).to_have_url(re.compile("tasks=sentiment(&|$)"))
            page.keyboard.press("Escape")
    page.get_by_role("link", name="Compare them").first.click()
    told = of_panel(page, "groups_heatmap")
    one, other = (percent(rate_of(trace, 3, 2, tasks=(task,))) for task in ("facts", "sentiment"))
    sentence = f"Most of all L03·E2: {one} of A's tokens choose it, {other} of B's."
    expect(told).to_contain_text("used differently by 12 prompts (A) and 12 prompts (B) beyond chance")
    expect(told).to_contain_text(sentence)
    page.reload()
    expect(told).to_contain_text(sentence)
    # Two tasks that own no expert are not told apart.
    app.open("groups", run="served", group_a="tasks=spans", group_b="tasks=topics")
    expect(told).to_contain_text("None of 32 experts is used differently by 12 prompts (A) and 12 prompts (B)")


def test_own_labels_beside_the_prompts_find_the_expert_that_goes_with_them(app):
    page = app.open("tasks", run="labelled", part="features", feature="language")
    told = of_panel(page, "tasks_feature_cells")
    expect(told).to_contain_text(re.compile(r"German with L01·E6 \(r = \+0\.[6-9]\d, p = 0\.00\d\)"), timeout=60_000)
    page.get_by_role("combobox", name=re.compile("Feature")).click()
    page.get_by_role("option", name="shift (of prompts)").click()
    expect(told).to_contain_text("No expert goes with any of 2 features of shift beyond chance", timeout=60_000)
