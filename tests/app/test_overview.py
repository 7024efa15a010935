from __future__ import annotations

import re

import pytest

from routing import save_trace
from tests.analysis.test_findings import stored_knock_out
from tests.app.conftest import charts_of, figure_of, text_of
from tests.counted import counted
from tests.odd_runs import ODD
from tests.traces import null_trace, planted_trace

SHAPE = {"n_tasks": 6, "n_prompts_a_task": 6, "n_tokens_a_prompt": 10, "n_layers": 3}


def test_what_was_recorded_is_counted(open_app):
    page = open_app("", {"run": "skewed"})
    assert not page.exception
    numbers = {metric.label: metric.value for metric in page.metric}
    # 6 tasks × 6 prompts × 10 tokens.
    assert (numbers["Tokens"], numbers["Prompts"], numbers["Tasks"]) == ("360", "36", "6")
    assert (numbers["MoE layers"], numbers["Experts a layer"], numbers["Selected a token"]) == ("3", "8", "2")
    assert "All 3 layers were proven by replay" in text_of(page)


def test_the_overloaded_expert_stands_out_and_its_sentence_is_a_link(open_app):
    page = open_app("overview", {"run": "skewed"})
    links = {link.proto.label: link.proto for link in page.get("page_link")}
    label = next(label for label in links if label.startswith("L02·E3 takes"))
    assert links[label].page == "load"
    assert "experts=L02.E3" in links[label].query_string
    assert "run=skewed" in links[label].query_string


def test_a_study_that_ends_meanwhile_is_told_at_the_next_look(app_on, tmp_path):
    trace = planted_trace(seed=5, n_tasks=6, n_prompts_a_task=16, specialists={"facts": (2, 5)}, strength=4.0)
    before = [link.proto.label for link in app_on(trace).get("page_link")]
    assert not any("needs the experts of" in label for label in before)
    stored_knock_out(tmp_path / "runs" / "one", p=0.001)
    after = [link.proto.label for link in app_on(trace).get("page_link")]
    assert any("facts needs the experts of “facts”" in label for label in after)
    assert any("Knocking it out costs facts 0\\.31" in label for label in after)


def test_where_nothing_stands_out_it_says_so(app_on):
    page = app_on(null_trace(seed=5, **SHAPE))
    assert not page.exception
    assert "Nothing beyond what chance gives" in text_of(page)


def test_findings_say_how_sure_they_are_and_offer_their_table(open_app):
    page = open_app("overview", {"run": "skewed"})
    said = text_of(page)
    assert "against 1\\.5 times the mean" in said
    assert "false-discovery rate of 5%" in said


def test_counts_alone_have_findings_of_load(app_on):
    trace = counted(planted_trace(seed=1, popular={(2, 3): 4.0}, **SHAPE))
    page = app_on(trace)
    assert not page.exception
    assert any(link.proto.label.startswith("L02·E3 takes") for link in page.get("page_link"))


def test_what_changed_since_an_earlier_snapshot(open_app, tmp_path):
    shape = SHAPE | {"n_prompts_a_task": 8, "specialists": {}}
    save_trace(planted_trace(seed=3, **shape), tmp_path / "model" / "step-100")
    save_trace(planted_trace(seed=3, popular={(1, 5): 2.0}, **shape), tmp_path / "model" / "step-1000")
    query = {"run": "model/step-1000", "since": "100"}
    page = open_app("overview", query, runs=tmp_path)
    assert not page.exception
    labels = [link.proto.label for link in page.get("page_link")]
    said = next(label for label in labels if label.startswith("L01·E5 is chosen") and "as often as before" in label)
    link = next(link.proto for link in page.get("page_link") if link.proto.label == said)
    assert (link.page, "other=model%2Fstep-100" in link.query_string) == ("compare", True)
    # There the same two rates are told of the same expert.
    there = open_app(
        "compare", {"run": "model/step-1000", "other": "model/step-100", "experts": "L01.E5"}, runs=tmp_path
    )
    then, now = re.search(r"([\d.]+)% of the tokens read then, ([\d.]+)% now", said.replace("\\", "")).groups()
    assert f"{then}% of the tokens read in step 100, {now}% in step 1,000" in text_of(there).replace("\\", "")


def test_scores_follow_the_task_filter(open_app):
    page = open_app("overview", {"run": "even", "tasks": "facts,spans"})
    assert set(figure_of(page, "overview_scores")["layout"]["yaxis"]["ticktext"]) == {"facts", "spans"}


def test_snapshots_of_one_model_are_shown_over_training(open_app, tmp_path):
    shape = SHAPE | {"n_prompts_a_task": 4}
    for step, strength in ((100, 0.0), (1000, 3.0)):
        save_trace(planted_trace(seed=3, strength=strength, **shape), tmp_path / "model" / f"step-{step}")
    page = open_app("overview", {"run": "model/step-1000"}, runs=tmp_path)
    assert not page.exception
    assert "over training" in text_of(page)
    assert {"overview_saturation", "overview_max_over_mean", "overview_excess_nats"} <= set(charts_of(page))
    assert "At step 100 a token already had" in text_of(page)


def test_snapshots_over_other_prompts_are_refused_in_words(open_app, tmp_path):
    for step, seed in ((100, 1), (1000, 2)):
        save_trace(planted_trace(seed=seed, **SHAPE), tmp_path / "model" / f"step-{step}")
    page = open_app("overview", {"run": "model/step-1000"}, runs=tmp_path)
    assert not page.exception
    assert "the same tasks" in page.info[-1].value


@pytest.mark.parametrize("odd", ["one token", "encoder–decoder", "counts"])
def test_small_and_odd_runs_draw(app_on, odd):
    page = app_on(ODD[odd]())
    assert not page.exception
