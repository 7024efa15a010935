"""Texts read in a process of its own that stays warm."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.tries.asked import Changed, TryRequest
from app.tries.warm import Asked, WarmModels
from tests.tiny import save_tiny

PATIENCE = 120.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmModels]:
    models = WarmModels(idle_seconds=300)
    yield models
    models.stop()


def answered(asked: Asked) -> Asked:
    assert asked.wait(PATIENCE), asked.stage
    return asked


def test_one_process_answers_everybody_and_stays_warm(warm: WarmModels, model: Path):
    warm.prepare(str(model))
    first = warm.ask(TryRequest(model=str(model), text="the shop opens"))
    second = warm.ask(TryRequest(model=str(model), text="another session's text"))
    for asked, n_tokens in ((first, 14), (second, 22)):
        assert answered(asked).stage == "done", asked.message
        found = asked.found()
        assert found.trace.n_tokens == n_tokens
        assert found.why_not == ""
    began = time.monotonic()
    change = Changed(kind="runner_up", layer="L01", position=3)
    third = answered(warm.ask(TryRequest(model=str(model), text="the shop opens", change=change)))
    assert time.monotonic() - began < 10, "a model that is loaded answers at once"
    found = third.found()
    assert found.tokens is not None
    assert found.taken_out != found.put_in
    assert found.tokens["nll_after"].notna().sum() == 13


def test_a_text_is_gone_when_nobody_holds_it(warm: WarmModels, model: Path):
    asked = answered(warm.ask(TryRequest(model=str(model), text="a secret")))
    folder = asked.folder
    assert not (folder / "request.json").exists()
    assert (folder / "trace").is_dir()
    del asked
    assert not folder.exists()


def test_a_request_that_nobody_waits_for_leaves_nothing(warm: WarmModels, model: Path):
    folder = warm.ask(TryRequest(model=str(model), text="forgotten " * 5)).folder
    assert answered(warm.ask(TryRequest(model=str(model), text="asked behind it"))).stage == "done"
    assert not folder.exists()


@pytest.mark.parametrize(
    ("request_of", "words"),
    [
        ({"text": ""}, "no tokens"),
        ({"text": "a" * 200}, "at most 96 are read"),
        ({"text": "ab", "change": Changed(kind="runner_up", layer="L09", position=0)}, "no router 'L09'"),
    ],
)
def test_what_cannot_be_read_is_said_and_the_process_lives(warm, model, request_of, words):
    asked = answered(warm.ask(TryRequest(model=str(model), **request_of)))
    assert asked.stage == "failed"
    assert words in asked.message
    assert warm.is_running


def test_a_model_that_is_gone_is_said_in_a_sentence(warm: WarmModels, model: Path, tmp_path: Path):
    folder = tmp_path / "going"
    shutil.copytree(model, folder)
    assert answered(warm.ask(TryRequest(model=str(folder), text="here"))).stage == "done"
    shutil.rmtree(folder)
    asked = answered(warm.ask(TryRequest(model=str(folder), text="here")))
    assert (asked.stage, asked.message) == (
        "failed",
        f"There is no model in {folder} any more. Choose another one above.",
    )


def test_a_process_that_ended_is_started_again(warm: WarmModels, model: Path):
    assert warm._process is not None
    warm._process.kill()
    assert answered(warm.ask(TryRequest(model=str(model), text="still here"))).stage == "done"


def test_it_ends_when_idle(model: Path):
    warm = WarmModels(idle_seconds=0.2)
    answered(warm.ask(TryRequest(model=str(model / "nothing"), text="x")))
    until = time.monotonic() + PATIENCE
    while warm.is_running and time.monotonic() < until:
        time.sleep(0.05)
    assert not warm.is_running
    warm.stop()


def test_no_text_outlives_whoever_asked(model: Path):
    warm = WarmModels(idle_seconds=300)
    asked = answered(warm.ask(TryRequest(model=str(model / "nothing"), text="x")))
    home, process = asked.folder.parent, warm._process
    assert process is not None
    assert process.stdin is not None
    # As when the app is killed, and cannot put anything away.
    process.stdin.close()
    process.wait(PATIENCE)
    assert not home.exists()
    warm.stop()
