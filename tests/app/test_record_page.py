from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from app.recordings.asked_plan import Looking, looks_like_hub_name, why_no_folder
from app.recordings.kept import HOME, Recordings, lock_of, read_request
from app.recordings.outlook import Outlook
from routing import open_trace, save_trace
from tests.app.asked_recordings import cut_off, left_behind, outlook_of
from tests.app.conftest import text_of
from tests.tiny import save_tiny
from tests.traces import planted_trace

PATIENCE_SECONDS = 120
SEEN = outlook_of(devices=("cpu",))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of runs, empty, and one of models that holds "tiny"."""
    runs, models = tmp_path / "runs", tmp_path / "models"
    (models / "tiny").mkdir(parents=True)
    (models / "tiny" / "config.json").write_text('{"architectures": ["TinyForCausalLM"]}')
    (runs / HOME).mkdir(parents=True)
    return runs, models


@pytest.fixture
def page(open_app, places, monkeypatch):
    """The page Recordings, where the look at a model and tasks was over at once."""

    def opened(seen: Outlook | None = SEEN, problem: str = ""):
        looking = Looking(outlook=seen, problem=problem)
        monkeypatch.setattr("app.recordings.form.ask", lambda *_, **__: ("key", looking))
        return open_app("recordings", runs=places[0], models=places[1])

    return opened


def labels(test) -> list[str]:
    return [each.label for each in test.button]


def numbers(test) -> dict[str, str]:
    return {each.label: each.value for each in test.metric}


def test_a_newcomer_finds_the_page(open_app, places):
    test = open_app(runs=places[0], models=places[0] / "none")
    assert not test.exception
    assert test.title[0].value == "No run to show yet"
    assert any(each.proto.label.startswith("Record a model here") for each in test.main.get("page_link"))
    assert "recordings" in [each.proto.page for each in test.sidebar.get("page_link")]


def test_what_it_will_take_stands_beside_the_form_and_follows_it(page):
    test = page()
    assert not test.exception
    assert test.title[0].value == "What was recorded, and what shall be?"
    full = numbers(test)
    assert full["Prompts"] == "110"
    assert "5,500 tokens × 8 layers × 56 bytes" in text_of(test)
    assert test.text_input(key="record_name_tiny_0").value == "tiny"
    counts = numbers(test.segmented_control(key="record_level").set_value("counts").run())
    assert full["On disk, about"].endswith("MB")
    assert counts["On disk, about"].endswith("kB")
    few = test.number_input(key="record_limit").set_value(5).run()
    assert numbers(few)["Prompts"] == "10"
    budget = few.number_input(key="record_limit").set_value(None).run().number_input(key="record_budget")
    assert "That is 30 prompts of each task" in text_of(budget.set_value(2000).run())


def test_what_was_filled_in_is_what_is_asked_for(page, places):
    runs, _ = places
    test = page()
    only = next(each for each in test.button_group if each.key.startswith("record_only"))
    test = only.set_value(["odd"]).run()
    test = test.number_input(key="record_limit").set_value(3).run()
    test = test.text_input(key="record_name_tiny_0").set_value("first").run()
    with lock_of(runs / HOME / "turn", is_patient=True):
        test = test.button(key="record_start").click().run()
        assert not test.exception
        request = read_request(runs / HOME / "first")
        assert (request.only, request.limit, request.out) == (("odd",), 3, str(runs / "first"))
        assert not request.trust_remote_code
        assert "Recording first" in text_of(test)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while Recordings(runs).standing("first").stage != "waiting":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "Another recording is at work" in text_of(test.run())
        assert test.text_input(key="record_name_tiny_1").value == "tiny"
        test.button(key="cancel_first").click().run()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while Recordings(runs).standing("first").is_alive:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert Recordings(runs).standing("first").stage == "stopped"


@pytest.mark.parametrize(
    ("name", "told"),
    [("even", "There is a recording named “even” already"), ("../up", "cannot name a folder"), (" ", "needs a name")],
)
def test_a_name_that_cannot_be_is_refused_in_a_sentence(page, places, name, told):
    save_trace(planted_trace(seed=0, n_tasks=2, n_prompts_a_task=2, n_layers=2), places[0] / "even")
    test = page().text_input(key="record_name_tiny_0").set_value(name).run()
    assert told in test.error[0].value
    assert test.button(key="record_start").disabled


def test_a_disk_that_is_too_small_is_told_before(page, monkeypatch):
    monkeypatch.setattr("app.recordings.form.free_disk", lambda _: 1000)
    test = page()
    assert "has 1\\.0 kB free" in test.error[0].value or "has 1.0 kB free" in test.error[0].value
    assert test.button(key="record_start").disabled


def test_only_tasks_that_the_model_knows_are_offered(page):
    unknown = replace(SEEN.tasks[0], name="unheard", is_known=False)
    test = page(replace(SEEN, tasks=(SEEN.tasks[0], unknown)))
    only = next(each for each in test.button_group if each.key.startswith("record_only"))
    assert list(only.value) == ["even"]
    assert "was not trained on unheard" in text_of(test)
    test = page(replace(SEEN, tasks=(unknown,)))
    assert "knows none of these tasks" in test.error[0].value
    assert "Record" not in labels(test)


def test_why_nothing_can_be_recorded_is_one_sentence_and_what_to_do_another(page):
    test = page(None, "LlamaForCausalLM has no router that can be read. Record a <b>Mixture</b>.")
    assert test.error[0].value == "LlamaForCausalLM has no router that can be read\\."
    assert "\\<b\\>" in text_of(test)
    assert "Record" not in labels(test)


def test_a_name_on_the_hub_is_asked_for_only_when_told_to(open_app, places):
    test = open_app("recordings", runs=places[0], models=places[1] / "none")
    test = test.text_input(key="record_folder").set_value("nobody/nothing").run()
    assert not test.exception
    assert "There is no folder nobody/nothing on this machine" in text_of(test)
    assert "Ask the hub" in labels(test)
    test = test.text_input(key="record_folder").set_value("/no/such/folder").run()
    assert test.error[0].value == "There is no model folder /no/such/folder on this machine\\."
    assert not test.checkbox(key="record_trust").value


def test_what_may_be_a_name_on_the_hub(tmp_path):
    assert looks_like_hub_name("allenai/OLMoE-1B-7B")
    assert not looks_like_hub_name("a/b/c")
    assert why_no_folder("gpt") == ""
    assert "no model folder" in why_no_folder(str(tmp_path / "gone"))
    assert "no config.json" in why_no_folder(str(tmp_path))


def test_the_list_says_how_each_ended_opens_it_and_deletes_it(page, places):
    runs, _ = places
    save_trace(cut_off(planted_trace(seed=0, n_tasks=2, n_prompts_a_task=2, n_layers=2)), runs / "half")
    left_behind(runs, "half", stage="stopped", began=3.0)
    left_behind(runs, "bad", stage="failed", message="It holds <b>no</b> weights. Copy them there.", began=2.0)
    left_behind(runs, "killed", stage="recording", began=1.0)
    test = page()
    assert not test.exception
    said = text_of(test)
    assert ":orange-badge[:material/stop_circle: cancelled]" in said
    assert "not finished" in said
    assert ":red[It holds \\<b\\>no\\</b\\> weights\\.]" in said
    assert "It ended without a word" in said
    assert str(runs / "half").replace("-", "\\-").replace("_", "\\_") in said
    opened = page().button(key="open_half").click().run()
    assert opened.query_params["run"] in ("half", ["half"])
    test = page().button(key="delete_for_good_bad").click().run()
    assert "no\\</b\\> weights" not in text_of(test)
    test.button(key="delete_for_good_half").click().run()
    assert not (runs / "half").exists()
    assert [each.name for each in Recordings(runs).all()] == ["killed"]


@pytest.mark.slow
def test_a_dropped_file_is_recorded_from_the_page_and_keeps_what_it_had_when_killed(open_app, places):
    runs, models = places
    save_tiny(models / "tiny", "olmoe", max_position_embeddings=256)

    def until(test, reached):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached(test):
            assert time.monotonic() < deadline, text_of(test)
            time.sleep(0.3)
            test = test.run()
        return test

    test = open_app("recordings", runs=runs, models=models)
    test = test.segmented_control(key="record_source").set_value("Files of mine").run()
    rows = [{"text": f"is {n} even?", "task": "even", "metric": "none"} for n in range(5000)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    test = test.file_uploader(key="record_files").set_value([("asked.jsonl", content, "application/json")]).run()
    test = until(test, lambda test: "Record" in labels(test))
    said, unit = numbers(test)["In memory, about"].split()
    memory = float(said) * {"MB": 1e6, "GB": 1e9}[unit]
    test = test.text_input(key="record_name_tiny_0").set_value("many").run()
    test = test.button(key="record_start").click().run()
    test = until(test, lambda test: "Load of each expert so far" in text_of(test))
    assert "of 5,000 prompts" in text_of(test)
    os.kill(int((runs / HOME / "many" / "pid").read_text()), signal.SIGKILL)
    test = until(test, lambda test: "cut off" in text_of(test))
    assert "not finished" in text_of(test)
    assert open_trace(runs / "many").n_tokens > 0
    assert Recordings(runs).standing("many").peak_bytes == pytest.approx(memory, rel=0.3)
