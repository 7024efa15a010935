"""The Causes view: studies that the real code stored, none, odd runs, and a study made from the page."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from analysis.interventions import Bench, knock_out, runner_up_regret
from analysis.stored_studies import stored_studies
from app.studies.asked import KnockOutRequest, model_of, prompts_asked, tasks_of_trace, why_not
from app.views.causes import sentences as told
from app.views.causes.studies_shown import NLL, SCORE, effect_rows, knock_outs, studied_runs
from hooks import Recorder
from routing import Prompt, RoutingTrace, Task, TaskError, TaskSet, open_trace, save_trace
from tests.app.conftest import text_of
from tests.odd_runs import ODD
from tests.tiny import byte_tokenizer, save_tiny, tiny_model
from tests.traces import planted_trace, trace_of

TASKS = {"spans": "extractive", "labels": "classification", "facts": "knowledge"}
SHAPE = {"n_tasks": 6, "n_prompts_a_task": 6, "n_tokens_a_prompt": 10, "n_layers": 3}


def questions() -> TaskSet:
    prompts = [
        Prompt(
            id=f"{task}-{n}",
            text=f"{task} {n}:",
            task=task,
            task_type=kind,
            target=" yes",
            answers=(" yes",),
            options=(" yes", " no") if task == "labels" else (),
        )
        for task, kind in TASKS.items()
        for n in range(3)
    ]
    metrics = {"labels": "accuracy"}
    tasks = [Task(name=name, task_type=kind, metric=metrics.get(name, "none")) for name, kind in TASKS.items()]
    return TaskSet(tasks=tuple(tasks), prompts=tuple(prompts))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny-moe")


@pytest.fixture(scope="module")
def runs(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one model: "studied", beside which studies lie, and "asked", beside which none does."""
    folder = tmp_path_factory.mktemp("runs")
    tasks = questions()
    for name in ("studied", "asked"):
        with Recorder(tiny_model("olmoe"), byte_tokenizer(), out=folder / name, name=str(model)) as recorder:
            recorder.run(tasks, max_new_tokens=0)
    trace = open_trace(folder / "studied")
    bench = Bench(tiny_model("olmoe"), byte_tokenizer(), tasks)
    sets = {"extractive": [("L00", 1)], "classification": [("L01", 2), ("L02", 3)]}
    knock_out(trace, bench, sets=sets, serves={each: each for each in sets}, n_random=3)
    runner_up_regret(bench, beside=trace, n_texts=4, n_choices_a_text=3)
    return folder


def test_a_stored_study_is_drawn_and_told(open_app, runs: Path) -> None:
    page = open_app("causes", {"run": "studied"}, runs=runs)
    assert not page.exception
    assert not page.error
    said = text_of(page)
    assert "2 sets of 1 to 2 experts · 9 prompts · 3 random sets each" in said
    assert "What each group of prompts loses without these experts" in said
    # of three random sets none can be beaten at one in twenty
    assert "Nothing here harms more than random sets" in said
    assert "No pair comes apart" in said
    assert "the runner-up would have made the next token likelier in" in said
    study = open_trace(runs / "studied")
    (found,) = knock_outs(study)
    lines = effect_rows(study, found, found.effects, NLL, sets=list(found.sets))
    assert [line.name for line in lines[:3]] == ["without L00·E1 (serves extractive)", "all prompts", "extractive"]
    assert lines[0].is_heading
    assert [line.name for line in lines if line.meant] == ["extractive", "classification"]
    effects = found.effects.set_index(["set", "group"])
    assert lines[2].value == effects.loc[("extractive", "extractive"), "nll_change"]
    assert lines[2].random_low <= lines[2].random_mean <= lines[2].random_high
    # scores exist for the prompts with options alone
    scored = effect_rows(study, found, found.effects, SCORE, sets=["extractive"])
    assert [line.name for line in scored[1:]] == ["all prompts", "classification"]


def test_controls_stand_in_the_url_and_filters_narrow(open_app, runs: Path) -> None:
    query = {"run": "studied", "measure": "score", "by": "task", "set": "classification", "tasks": "labels"}
    page = open_app("causes", query, runs=runs)
    assert not page.exception
    (figure,) = (each for each in page.get("plotly_chart") if "score" in each.proto.spec)
    assert "labels" in figure.proto.spec
    assert "facts" not in figure.proto.spec
    assert "without L01" in figure.proto.spec
    assert "without L00" not in figure.proto.spec
    page.segmented_control(key="choice_by").set_value("type").run()
    assert not page.exception
    assert "by" not in page.query_params


def test_without_a_study_the_command_and_a_button_are_there(open_app, runs: Path) -> None:
    page = open_app("causes", {"run": "asked"}, runs=runs)
    assert not page.exception
    trace = runs / "asked"
    assert page.code[0].value == (
        f"routescope knock-out {trace} --serving extractive --serving classification --serving knowledge --limit 12"
    )
    assert page.code[1].value == f"routescope runner-up {trace}"
    assert "64 passes over the prompts" in text_of(page)
    assert not page.button(key="knock_out").disabled
    chosen = open_app("causes", {"run": "asked", "experts": "L00.E1,L01.E2", "n_prompts": "4"}, runs=runs)
    assert chosen.code[0].value == f"routescope knock-out {trace} --experts L00·E1,L01·E2 --limit 4".replace(
        "L00·E1,L01·E2", "'L00·E1,L01·E2'"
    )


@pytest.mark.slow
def test_a_study_is_made_from_the_page_and_can_be_stopped(open_app, runs: Path) -> None:
    from app import cache

    query = {"run": "asked", "experts": "L00.E1", "n_prompts": "4"}
    page = open_app("causes", query, runs=runs)
    page.button(key="knock_out").click().run()
    assert not page.exception
    assert page.button(key="stop_study")
    assert page.button(key="knock_out").disabled
    page.button(key="stop_study").click().run()
    assert not page.exception
    assert not [each for each in page.button if each.key == "stop_study"]
    page.button(key="knock_out").click().run()
    page = waited(page, lambda: bool(stored_studies(open_trace(runs / "asked"))))
    assert not page.exception
    assert not page.error
    assert "1 set of 1 expert · 9 prompts · 20 random sets each" in text_of(page)
    cache.studies().stop()


def waited(page: AppTest, until) -> AppTest:
    for _ in range(240):
        if until():
            break
        time.sleep(0.5)
    time.sleep(1)
    return page.run()


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("query", [{}, {"experts": "first", "tasks": "first", "layers": "first"}], ids=["all", "some"])
def test_odd_runs_are_told_calmly(app_on, odd: str, query: dict[str, str]) -> None:
    trace = ODD[odd]()
    first = {"experts": f"{trace.layers[0]}.E0", "layers": trace.layers[0]}
    first |= {"tasks": trace.tasks[0]} if trace.tasks else {}
    page = app_on(trace, "causes", {name: first[name] for name in query if name in first})
    assert not page.exception
    assert not page.error


def test_where_the_model_is_not_at_hand_the_command_says_what_to_fill_in(app_on) -> None:
    page = app_on(planted_trace(seed=0, **SHAPE), "causes")
    assert not page.exception
    assert page.code[0].value.endswith("--limit 12 --model FOLDER")
    assert "The weights of this run are not where the app looks for models" in text_of(page)
    assert not [each for each in page.button if each.key == "knock_out"]


def test_the_model_of_a_snapshot_is_its_checkpoint_only_at_the_last_step(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTESCOPE_MODELS", str(model.parent))
    for step in ("step-000100", "step-000200"):
        (model / "traces" / step).mkdir(parents=True, exist_ok=True)
    trace = planted_trace(seed=0, **SHAPE)

    def named(name: str) -> RoutingTrace:
        from dataclasses import replace

        storage = replace(trace.storage, provenance=replace(trace.provenance, model=name))
        return replace(trace, storage=storage)

    assert model_of(named("tiny-moe")) == str(model)
    assert model_of(named("tiny-moe/step-000200")) == str(model)
    assert model_of(named("tiny-moe/step-000100")) is None
    assert model_of(named("another")) is None
    assert "nothing can be written" in why_not(named("tiny-moe"))


def test_prompts_come_from_the_sources_else_from_the_trace(runs: Path) -> None:
    trace = open_trace(runs / "asked")
    own = tasks_of_trace(trace)
    assert own is not None
    assert [(each.id, each.text, each.target, each.options) for each in own.prompts] == [
        (each.id, each.text, each.target, each.options) for each in questions().prompts
    ]
    assert {each.name: each.metric for each in own.tasks}["labels"] == "accuracy"
    assert len(prompts_asked(trace, (), limit=2, seed=0)) == 6
    with pytest.raises(TaskError, match="holds no texts"):
        prompts_asked(trace_of([[0, 1]], n_experts=4), (), limit=None, seed=0)


def test_studies_of_the_same_model_are_linked(runs: Path, tmp_path: Path) -> None:
    from app.runs import Run

    def run(name: str, series: str | None) -> Run:
        return Run(name=name, path=str(tmp_path / name), series=series, step=None, stamp=(0, 0))

    for name in ("tiny-moe/step-2", "other/step-2"):
        (tmp_path / name / "interventions").mkdir(parents=True)
    found = [run("tiny-moe/step-1", "tiny-moe"), run("tiny-moe/step-2", "tiny-moe"), run("other/step-2", "other")]
    assert studied_runs(open_trace(runs / "asked"), found) == ["tiny-moe/step-2"]
    assert studied_runs(planted_trace(seed=0, **SHAPE), found) == []


def test_a_request_is_the_command_that_asks_the_same() -> None:
    request = KnockOutRequest(
        trace="a run", experts=("L00·E1,L01·E2",), serving=("maths",), n_experts=1, ranked_by="r", limit=4, out="x"
    )
    assert KnockOutRequest.read(request.written()) == request
    assert request.command() == (
        "routescope knock-out 'a run' --serving maths --experts 'L00·E1,L01·E2' --n-experts 1 --ranked-by r "
        "--limit 4 --out x"
    )


def effects(change: float, p_value: float, *, n: int = 6) -> pd.DataFrame:
    groups = ["all", *(f"g{number}" for number in range(n))]
    table = pd.DataFrame({"set": "s", "group": groups, "n_prompts": 9, "nll_change": 0.01, "low": -0.1, "high": 0.1})
    table = table.assign(random_mean=0.0, random_low=-0.1, random_high=0.1, p_value=0.5, n_random=20)
    table.loc[1, ["nll_change", "low", "high", "p_value"]] = change, change - 0.1, change + 0.1, p_value
    return table


def test_reading_is_silent_where_random_sets_do_as_much() -> None:
    said = told.of_knock_outs(effects(0.5, 0.5), NLL, serves={}, called={"s": "L00·E1"})
    assert "Nothing here harms more than random sets" in said
    said = told.of_knock_outs(effects(0.5, 1 / 21), NLL, serves={"s": "g0"}, called={"s": "L00·E1"})
    assert "Without L00·E1, **g0** loses 0.500 nats a token (95\N{NO-BREAK SPACE}%: +0.400 to +0.600; random" in said
    assert "Of 6 effects 1 beats random sets, where chance gives about 0.3: which chance alone may give" in said
    # of 99 sets, five ranks have p ≤ 0.05: chance gives 0.05 of each effect, not 0.01
    more = told.of_knock_outs(effects(0.5, 0.05).assign(n_random=99), NLL, serves={}, called={"s": "x"})
    assert "where chance gives about 0.3" in more
    # a gain is no harm, however rare, nor is what prompts do not agree on
    assert "Nothing here harms more" in told.of_knock_outs(effects(0.05, 1 / 21), NLL, serves={}, called={"s": "x"})
    assert "Nothing here harms more" in told.of_knock_outs(effects(-0.5, 1 / 21), NLL, serves={}, called={"s": "x"})
    none = effects(0.5, np.nan).assign(n_random=0)
    assert "No random sets were measured" in told.of_knock_outs(none, NLL, serves={}, called={"s": "x"})


def test_a_set_that_works_more_than_its_random_sets_is_said(runs: Path) -> None:
    from dataclasses import replace

    (study,) = knock_outs(open_trace(runs / "studied"))
    own, least, most = study.loads["extractive"]
    assert least <= most
    table = stored_studies(open_trace(runs / "studied"), name="knock-out")[0].tables["sets"]
    assert own == table.query("set == 'extractive' and random == 0")["load"].iloc[0]
    heavy = replace(study, loads={"extractive": (0.3, 0.1, 0.2)})
    said = told.of_loads(heavy, sets=["extractive"], called={"extractive": "L00·E1"})
    assert "they do 30\N{NO-BREAK SPACE}% of their layers' work, the random sets 10\N{NO-BREAK SPACE}% to" in said
    even = replace(study, loads={"extractive": (0.2, 0.1, 0.2)})
    assert told.of_loads(even, sets=["extractive"], called={}) == ""


def test_both_ways_is_told_from_one_way() -> None:
    row = {"a": "one", "b": "two", "a_on_a": 0.5, "a_on_b": 0.1, "b_on_a": 0.1, "b_on_b": 0.6, "interaction": 0.9}
    double = pd.DataFrame([row | {"low": 0.4, "high": 1.2, "p_value": 1 / 21, "n_random": 20}])
    assert "**one and two come apart both ways**" in told.of_double(double)
    assert (
        "Between one and two the sets differ by +0.900 (+0.400 to +1.200; p = 0.048), but **one way only**"
        in told.of_double(double.assign(b_on_a=0.7))
    )
    assert "No pair comes apart" in told.of_double(double.assign(p_value=0.2))
    assert "no two sets" in told.of_double(double.iloc[:0])


def test_a_study_of_experts_that_the_run_has_not_is_passed_over(runs: Path, tmp_path: Path) -> None:
    import shutil

    trace = planted_trace(seed=0, n_layers=1, n_tasks=2)
    save_trace(trace, tmp_path / "other")
    shutil.copytree(runs / "studied" / "interventions", tmp_path / "other" / "interventions")
    assert knock_outs(open_trace(tmp_path / "other")) == []
