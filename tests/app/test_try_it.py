"""The view Try it, with a real tiny model in the process that stays warm."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from app import cache
from routing import RoutingTrace, open_trace, save_trace
from tests.app.conftest import charts_of, text_of
from tests.app.test_tokens import legend, strip
from tests.counted import counted
from tests.tiny import save_tiny
from tests.tiny_systems import save_tiny_system
from tests.traces import planted_trace, random_trace

PATIENCE = 120.0
TEXT = "the shop opens at nine"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_tiny(folder / "tiny")
    for system in ("task_moe", "hypermoe", "hypermoe_switch", "pha"):
        save_tiny_system(folder / system, system)
    return folder


def settled(page):
    """Run the page until the model has answered."""
    until = time.monotonic() + PATIENCE
    while any("progress_activity" in each.value for each in page.caption) and time.monotonic() < until:
        page.run()
    assert not page.exception
    return page


def typed(page, text: str):
    page.text_area[0].set_value(text)
    (button,) = (each for each in page.button if each.label == "Read it")
    button.click()
    return settled(page.run())


@pytest.fixture
def tried(open_app, models):
    """Open the view, and type a text."""

    def opened(query: dict[str, str] | None = None, *, text: str = TEXT, reader: str = "tiny"):
        return typed(open_app("try_it", {"run": "even", "reader": reader} | (query or {}), models=models), text)

    return opened


def test_nothing_is_read_before_a_text_is_typed(open_app, models):
    page = open_app("try_it", {"run": "even"}, models=models)
    assert not page.exception
    assert "Nothing is read yet." in text_of(page)
    assert "not the text" in page.text_area[0].help


def test_a_text_is_colored_by_the_experts_of_its_tokens(tried):
    page = tried()
    sent = strip(page)
    assert "".join(sent["texts"]).replace("␣", " ") == TEXT
    assert len(sent["layers"]) == 3
    assert legend(sent)["kind"] == "hues"
    assert "The text ends here." in text_of(page)
    assert set(page.query_params) == {"run", "reader"}


def test_a_token_has_its_route_and_what_the_model_would_write(tried):
    text = text_of(tried({"token": "4"}))
    assert "Route of “s” (token 4)" in text
    assert "What the model would write after “s” (token 4)" in text
    assert "The text goes on with “h”" in text


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"token": "4", "force": "runner_up", "force_layer": "L01"}, "in place of"),
        ({"token": "4", "force": "expert", "force_layer": "L02"}, "It is the last layer"),
        ({"force": "knock_out", "force_layer": "L00"}, "elsewhere in that layer"),
    ],
)
def test_what_a_change_does_is_said_in_figures(tried, query, words):
    page = tried(query)
    text = text_of(page)
    assert words in text
    assert "nats" in text
    assert {"next_tokens", "try_surprise", "try_routing"} <= set(charts_of(page))
    assert ("The runner-up in each layer" in text) == ("token" in query)
    page.button(key="force_nothing").click()
    page = settled(page.run())
    assert "force" not in page.query_params
    assert "try_routing" not in charts_of(page)


def test_a_change_of_one_decision_without_a_token_asks_for_one(tried):
    assert "Point at a token above" in text_of(tried({"force": "runner_up"}))


@pytest.mark.parametrize(
    "query",
    [
        {"token": "x", "force": "?"},
        {"token": "4", "force": "expert", "force_layer": "L77", "force_expert": "99"},
        {"token": "999", "layer": "L77", "tasks": "facts", "layers": "L01"},
    ],
)
def test_an_address_that_asks_for_too_much_is_no_error(tried, query):
    page = tried(query)
    assert not page.error


@pytest.mark.parametrize("text", ["مرحبا 👩‍👩‍👧 <script>$x$</script> \u202egnirts\n[a](b)", " "])
def test_any_text_is_read(tried, text):
    page = tried({"token": "1", "force": "runner_up"}, text=text)
    assert not page.error
    assert strip(page)["texts"]


@pytest.mark.parametrize(("text", "words"), [("", "Nothing is read yet."), ("a" * 200, "at most 96 are read")])
def test_an_empty_text_and_one_that_is_too_long_are_said(tried, text, words):
    assert words in text_of(tried(text=text))


def test_a_model_that_is_told_tasks_shows_the_route_of_the_one_that_is_chosen(tried):
    page = tried({"as_task": "span"}, reader="task_moe")
    text = text_of(page)
    assert "the route is that of “span”" in text
    assert "Route of this prompt" in text
    assert "What the model would write first" in text


def test_generated_adapters_stand_beside_the_route_of_a_token(tried):
    page = tried({"token": "4", "force": "runner_up", "force_layer": "L00"}, reader="hypermoe")
    text = text_of(page)
    assert not page.error
    assert "adapter" in text
    assert "In later layers" in text or "No later layer" in text


def test_a_model_with_two_stacks_is_read_and_says_what_it_cannot(tried):
    page = tried({"token": "2"}, reader="hypermoe_switch")
    text = text_of(page)
    assert [section["label"] for section in strip(page)["sections"]] == ["encoder · prompt", "decoder · generated"]
    assert "has two." in text
    assert "What the model would write first" in text


def test_a_retrieved_prototype_is_shown_where_nothing_is_routed(tried):
    text = text_of(tried(reader="pha"))
    assert "the prototype that was retrieved for this text" in text
    assert "Selected:" in text


def test_a_folder_without_a_model_is_said(open_app, models, tmp_path, monkeypatch):
    query = {"run": "even", "reader": "another folder …"}
    page = open_app("try_it", query, models=models)
    assert "Name a folder with config.json" in text_of(page)
    asked: list[str] = []
    monkeypatch.setattr("app.tries.warm.WarmModels.prepare", lambda _, model: asked.append(model))
    page = open_app("try_it", query | {"reader_folder": str(tmp_path / "gone")}, models=models)
    assert "There is no model in" in text_of(page)
    # Nothing is started for a folder that holds no model.
    assert not asked


@pytest.mark.parametrize("is_large", [False, True])
def test_a_large_model_is_not_loaded_for_who_only_looks_around(open_app, models, monkeypatch, is_large):
    asked: list[str] = []
    monkeypatch.setattr("app.tries.warm.WarmModels.prepare", lambda _, model: asked.append(model))
    if is_large:
        monkeypatch.setattr("app.views.try_it.box._WARMED_BYTES", 10)
    said = text_of(open_app("try_it", {"run": "even", "reader": "tiny"}, models=models))
    assert bool(asked) != is_large
    assert ("The model is loaded with the first text" in said) == is_large
    assert ("While you type, the model is loaded" in said) != is_large


def test_what_memory_is_held_is_said_once_a_text_was_read(tried):
    assert re.search(r"The process that reads texts holds [\d.]+ [MG]B of this machine's memory", text_of(tried()))


def test_without_any_model_the_page_says_what_to_do(open_app):
    page = open_app("try_it", {"run": "even"})
    assert not page.exception
    assert "The weights of this run are not where the app looks for models." in text_of(page)


@pytest.mark.parametrize(
    "trace", [counted(planted_trace(seed=3)), random_trace(seed=1)], ids=["counts", "without texts"]
)
def test_any_run_may_be_open_meanwhile(app_on, trace: RoutingTrace):
    page = app_on(trace, "try_it")
    assert not page.exception


def test_a_prompt_of_the_run_comes_with_the_link_from_tokens(open_app, models, planted):
    prompts = open_trace(planted / "even").prompts
    page = open_app("try_it", {"run": "even", "reader": "tiny", "focus": "facts-002"}, models=models)
    page = settled(page)
    text = prompts.loc[prompts["prompt"] == "facts-002", "text"].iloc[0]
    assert page.text_area[0].value == text


def test_the_token_reader_leads_here_with_the_token_that_is_read(open_app):
    page = open_app("tokens", {"run": "even", "focus": "facts-002@4"})
    (link,) = (each.proto for each in page.get("page_link") if each.proto.label.startswith("Try it: "))
    assert "token=4" in link.query_string
    assert "focus=facts-002&" in f"{link.query_string}&"


def test_a_text_is_kept_only_when_that_is_asked_for(tried, open_app, models, tmp_path):
    runs = tmp_path / "kept"
    save_trace(random_trace(seed=1), runs / "even")
    page = typed(open_app("try_it", {"run": "even", "reader": "tiny"}, models=models, runs=runs), TEXT)
    assert [each.name for each in runs.iterdir()] == ["even"]
    page.text_input(key="keep_name").set_value("../escaped")
    next(each for each in page.button if each.label == "Keep it").click()
    assert "cannot name a folder" in text_of(page.run())
    page.text_input(key="keep_name").set_value("mine")
    next(each for each in page.button if each.label == "Keep it").click()
    page.run()
    kept = open_trace(runs / "mine")
    assert kept.prompts["text"].tolist() == [TEXT]
    assert np.isfinite(kept.tokens["nll"].to_numpy()[1:]).all()


def test_sessions_do_not_see_each_others_texts(tried, open_app, models):
    tried(text="a secret of one session")
    page = open_app("try_it", {"run": "even", "reader": "tiny"}, models=models)
    assert page.text_area[0].value == ""
    assert "Nothing is read yet." in text_of(page)


def teardown_module() -> None:
    cache.tries().stop()


def test_why_a_text_cannot_be_read_is_one_sentence_and_what_else_is_known_another(tried, models):
    folder = models / "dense"
    tiny = LlamaConfig(
        vocab_size=json.loads((models / "tiny" / "config.json").read_text())["vocab_size"],
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
    )  # fmt: skip
    LlamaForCausalLM(tiny).save_pretrained(folder)
    for file in (models / "tiny").glob("tokenizer*"):
        shutil.copy(file, folder)
    page = tried(reader="dense")
    shutil.rmtree(folder)
    assert page.error[0].value == "LlamaForCausalLM has no router that can be read\\."
    assert any("Record a Mixture" in each.value for each in page.caption)
