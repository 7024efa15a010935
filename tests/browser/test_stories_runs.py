"""Stories of docs/stories.md that ask of runs, texts and systems; their answers are known, and counted here by hand."""

from __future__ import annotations

import json
import re

import numpy as np
from playwright.sync_api import expect

from app.sentences import percent
from routing import open_trace
from tests.browser.stories import chooses, task_of_token
from tests.browser.test_cells import cell
from tests.browser.test_share import offline
from tests.browser.test_stories_experts import of_panel


def test_two_checkpoints_of_one_run_are_compared(app, runs):
    before, after = (open_trace(runs / "training" / f"step-000{step}") for step in (100, 200))
    moved = (task_of_token(before) == "sentiment").mean()
    assert (before.experts.values != after.experts.values).any(axis=2).mean(axis=0).tolist() == [0, moved, 0, 0]
    page = app.open("compare", run="training/step-000200")
    expect(page.get_by_text("read 72 prompts as the very same tokens")).to_contain_text("step 100 and step 200")
    churn = of_panel(page, "compare_churn")
    # One of two experts is another: of three that either run selected, one is common.
    expect(churn).to_contain_text(f"most in L01: {percent(moved * 2 / 3)}")
    expect(churn).to_contain_text("Nothing changed in L00, L02 and L03.")
    expect(page.get_by_text("Most changed is")).to_contain_text(re.compile(r"Most changed is sentiment-\d+: 17.%"))
    page.get_by_role("button", name=re.compile("Tasks · all 6")).click()
    page.get_by_role("button", name="spans", exact=True).click()
    # 12 prompts of 11 tokens that were read; what each run wrote by itself is no common ground.
    expect(page.get_by_text("Nothing changed:")).to_be_visible()
    expect(page.get_by_text("each of 132 tokens selects the same experts in all 4 layers")).to_be_visible()


def test_a_serving_engineer_chooses_a_placement_and_takes_it_along(app, runs):
    trace = open_trace(runs / "crowded")
    busy = np.bincount(trace.experts.values[:, 1, :2].ravel(), minlength=8)
    assert set(np.argsort(busy)[-2:]) == {0, 1}
    page = app.open("placement", run="crowded", devices="4", batch="4")
    expect(page.locator(".st-key-placement_advice")).to_contain_text(
        re.compile(r"With 4 devices, the balanced map lowers the slowdown bound from 2\.\d+ \[.*\] to 1\.\d+ \[.*\] on")
    )
    expect(of_panel(page, "placement_load_linear")).to_contain_text(re.compile(r"device 0 does 2\.\d+ times .* in L01"))
    with page.expect_download() as told:
        page.get_by_role("button", name="Map for SGLang").click()
    assert told.value.suggested_filename == "balanced-4-devices.json"
    maps = np.array(json.loads(told.value.path().read_text("utf-8"))["physical_to_logical_map"])
    assert np.sort(maps, axis=1).tolist() == [list(range(8))] * 2
    loads = [busy[slots].reshape(4, 2).sum(axis=1) for slots in (np.arange(8), maps[1])]
    linear, balanced = (load.max() / load.mean() for load in loads)
    assert balanced < 1.8 < 2.6 < linear
    command = page.get_by_test_id("stCode").filter(has_text="--init-expert-location")
    expect(command).to_contain_text("balanced-4-devices.json --ep-num-redundant-experts 0 --ep-size 4")


def test_a_passage_is_read_token_by_token_and_the_runner_up_followed(app, runs):
    trace = open_trace(runs / "thread")
    prompt = int(np.flatnonzero(trace.prompts["prompt"] == "facts-004")[0])
    row = int(np.flatnonzero(trace.tokens["prompt"] == prompt)[6])
    assert trace.experts.values[row, 2, :3].tolist() == [1, 3, 5]
    second, third = trace.scores.values[row, 2, 1:3].astype(np.float32)
    page = app.open("tokens", run="thread", focus="facts-004")
    page.get_by_role("listbox", name="Tokens of prompt facts-004").get_by_role("option").nth(5).click()
    expect(page.get_by_role("heading", name=re.compile(r"\(token 5\)"))).to_be_visible()
    page.get_by_role("listbox", name="Tokens of prompt facts-004").focus()
    page.keyboard.press("ArrowRight")
    route = of_panel(page, "token_route")
    expect(route).to_contain_text(
        f"the closest call is in L02: E3 was selected before E5 by a margin of {second - third:.4f}."
    )
    app.settle()
    cell(page, "token_route", x=2, y=2)
    expect(page).to_have_url(re.compile(r"experts=L02\.E5"))
    page.get_by_role("link", name=re.compile("Page of L02·E5|What L02·E5")).first.click()
    expect(page.get_by_role("heading", level=2, name="L02·E5", exact=True)).to_be_visible()
    page.get_by_role("radio", name="runner-up").click()
    n_behind = min(8, len(np.unique(trace.tokens["prompt"][trace.experts.values[:, 2, 2] == 5])))
    expect(page.get_by_text(f"L02·E5 came next after the selected, {n_behind} prompts")).to_be_visible()


def test_a_link_and_a_report_show_a_colleague_the_same(app, browser, runs, tmp_path):
    trace = open_trace(runs / "overflowing")
    page = app.open("load", run="overflowing", tasks="facts", experts="L02.E5")
    rate = 8 * chooses(trace, 2, 5)[task_of_token(trace) == "facts"].mean()
    sentence = f"L02·E5 is the busiest expert: {rate:.1f} × the mean load of its layer"
    expect(of_panel(page, "load_heatmap")).to_contain_text(sentence)
    context = browser.new_context()
    colleague = context.new_page()
    colleague.goto(page.url)
    expect(of_panel(colleague, "load_heatmap")).to_contain_text(sentence)
    expect(colleague.get_by_role("button", name=re.compile("L02·E5 ✕"))).to_be_visible()
    expect(colleague.get_by_role("button", name=re.compile("Tasks · 1 of 3"))).to_be_visible()
    context.close()
    page.get_by_role("button", name="Share").click()
    with page.expect_download() as told:
        page.get_by_role("button", name="This view").click()
    told.value.save_as(tmp_path / "view.html")
    opened = offline(browser, tmp_path / "view.html")
    expect(opened.locator("main, body").first).to_contain_text(sentence)
    expect(opened.get_by_role("row", name="experts L02.E5")).to_be_visible()
    opened.context.close()


def test_generated_adapters_say_what_unselected_experts_build(app, runs):
    trace = open_trace(runs / "hyper")
    used = chooses(trace, 1, 0)
    ratio = trace.adapter_ratio.values[:, 1].astype(np.float64)
    assert ratio[used].mean() > 3 * ratio[~used].mean()
    page = app.open("unselected", run="hyper", layout="pca")
    relations = page.get_by_text("embeddings and adapters agree at")
    expect(relations).to_contain_text(
        re.compile(r"embeddings and adapters agree at ρ = 0\.\d+ .*?p (< 0\.001|= 0\.0[0-4]\d)")
    )
    most = page.get_by_text("Adapters add most for")
    expect(most).to_contain_text(re.compile(r"Adapters add most for L02·E0: \d+.% .* the intervals are apart"))
    # Where nothing ties adapters to embeddings, the same sentence says so.
    app.open("unselected", run="hyper-null", layout="pca")
    expect(relations).to_contain_text("embeddings and adapters in 0 of 2 layers")


def test_prototypes_are_retrieved_for_their_own_tasks(app, runs):
    trace = open_trace(runs / "prototypes")
    known = trace.layer_facts[0].expert_names
    nearest = np.array(known, dtype=object)[trace.experts.values[:, 0, 0]]
    task = task_of_token(trace)
    own = (nearest == task)[np.isin(task, known)].mean()
    page = app.open("adapters", run="prototypes", layout="pca")
    expect(page.get_by_text("The own prototype is retrieved for")).to_contain_text(
        re.compile(rf"for {percent(own)} of 48 prompts \(95.% .*; chance 17.%, p < 0\.001\)")
    )
