from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from app import slow_answers
from app.jobs import Job, Jobs
from app.views.tasks import questions as task_questions
from app.views.tasks.feature_table import feature_columns, held_columns, of_tasks
from app.views.tasks.features import strongest_of
from routing import RoutingTrace, open_trace, save_trace
from tests.app.conftest import charts_of, figure_of, text_of
from tests.odd_runs import ODD
from tests.traces import TASKS, null_trace, planted_trace, trace_of
from tests.with_prompts import with_prompts

SHAPE = {"n_tasks": 6, "n_prompts_a_task": 6, "n_tokens_a_prompt": 10, "n_layers": 3}
PARTS = ("controls", "features", "clusters", "layers", "answers")
_TABLES = slow_answers.tables


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Answer while the page waits: that processes of their own answer has a test of its own."""
    monkeypatch.setattr(slow_answers, "tables", lambda *a, **options: _TABLES(*a, **(options | {"slow": False})))


def routed_by_word() -> RoutingTrace:
    """Two tasks that say the same two words, one mostly the first; the word alone decides the expert."""
    n_prompts, n_tokens = 24, 12
    task = np.repeat([0, 1], n_prompts // 2)
    # 3 or 9 of 12 words, in whichever order.
    words = np.zeros((n_prompts, n_tokens), dtype=int)
    for prompt in range(n_prompts):
        places = np.random.default_rng(prompt).permutation(n_tokens)[: 3 if task[prompt] == 0 else 9]
        words[prompt, places] = 1
    tokens = pd.DataFrame(
        {
            "prompt": np.repeat(np.arange(n_prompts), n_tokens),
            "position": np.tile(np.arange(n_tokens), n_prompts),
            "token_id": words.ravel(),
        }
    )
    names = [("spans", "facts")[number] for number in task]
    return trace_of(words.reshape(-1, 1), n_experts=4, prompts=tokens["prompt"], tasks=names, tokens=tokens)


def test_what_is_the_words_is_gone_where_words_are_compared(app_on):
    trace = routed_by_word()
    shares = task_questions.control_shares(trace)["shares"].groupby("control")[["n_cells", "n_large", "n_sure"]].sum()
    # Two tasks × four experts; the two experts that are used differ by ± 25 points in both tasks.
    assert shares.loc["as recorded"].tolist() == [8, 4, 4]
    assert shares.loc["same token"].tolist() == [8, 0, 0]
    page = app_on(trace, "tasks", {"part": "controls"})
    assert not page.exception
    said = text_of(page)
    assert "50.0\N{NO-BREAK SPACE}% of 8 cells differ by 10 points or more as recorded" in said
    assert "comparing tokens of the same id cuts that to **0.0\N{NO-BREAK SPACE}%**" in said
    assert "No cell is left beyond shuffled prompts" in said


def test_the_controls_are_switches_of_the_url(open_app):
    page = open_app("tasks", {"run": "even", "part": "controls", "match": "none"})
    assert "go from" in text_of(page)
    page.toggle(key="toggle_equal_budgets").set_value(True).run()
    assert page.query_params["equal_budgets"] == "1"
    assert "10 tokens of each prompt at most" in text_of(page)
    page.segmented_control(key="choice_match").set_value("position").run()
    assert page.query_params["match"] == "position"
    assert not page.exception


def test_controls_keep_the_rows_and_layers_of_the_selection(open_app):
    query = {"run": "even", "part": "controls", "tasks": "facts,spans", "layers": "L02"}
    page = open_app("tasks", query)
    layout = figure_of(page, "tasks_controlled")["layout"]
    assert layout["yaxis"]["ticktext"] == ["spans", "facts"]
    assert layout["xaxis"]["title"]["text"] == "expert of layer L02"
    assert "of 16 cells" in text_of(page)  # 2 tasks × 8 experts


def test_a_column_of_the_user_is_found_where_it_decides(app_on):
    # Tasks share experts by a property that their types do not know: 0 and 3 the one, 1 and 4, 2 and 5 the others.
    owners = {name: (2, number % 3) for number, name in enumerate(["spans", "sentiment", "facts", "names", "topics"])}
    plain = planted_trace(seed=5, specialists=owners | {"capitals": (2, 2)}, **SHAPE)
    kinds = dict(zip(plain.tasks, ["warm", "cold", "dry", "warm", "cold", "dry"], strict=True))
    trace = with_prompts(plain, climate=plain.prompts["task"].map(kinds))
    assert feature_columns(trace)["climate"] == "task"
    assert of_tasks(trace, column="climate").columns.tolist() == ["warm", "cold", "dry"]
    best = task_questions.feature_cells(trace, column="climate", kind="task")
    strongest = strongest_of(best["cells"], best["features"]).set_index("feature")
    assert [(row.layer, row.expert) for row in strongest.itertuples()] == [("L02", 0), ("L02", 1), ("L02", 2)]
    assert (strongest["r"] > 0.95).all()
    page = app_on(trace, "tasks", {"part": "features", "feature": "climate"})
    assert not page.exception
    assert figure_of(page, "tasks_feature_cells")["layout"]["yaxis"]["ticktext"] == ["warm", "cold", "dry"]
    assert {"tasks_feature_cells", "tasks_feature_best"} <= set(charts_of(page))


def test_what_another_column_explains_is_taken_from_both(app_on):
    """Experts go with the weight of tasks; warm tasks are heavier, and go with nothing once the weight is held."""
    names = ["spans", "sentiment", "facts", "names", "topics", "capitals", "sums", "shell"]
    weight = dict(zip(names, [1, 2, 3, 4, 5, 6, 7, 8], strict=True))
    warm = dict(zip(names, ["warm" if each in (2, 5, 6, 8) else "cold" for each in weight.values()], strict=True))
    plain = planted_trace(seed=6, specialists={}, **(SHAPE | {"n_tasks": 8, "n_layers": 2}))
    # The heavier a task, the more of its tokens expert 0 of L01 has.
    experts = np.array(plain.experts.values)
    task = plain.prompts["task"].map(weight).to_numpy()[plain.tokens["prompt"]]
    place = plain.tokens["position"].to_numpy()
    experts[:, 1, :2] = np.where((place < task)[:, None], [0, 1], [2, 3])
    experts[:, 1, 2:] = [4, 5]
    trace = RoutingTrace.from_arrays(
        experts,
        layer_facts=plain.layer_facts,
        tokens=plain.tokens,
        scores=plain.scores.values,
        weights=plain.weights.values,
        prompts=plain.prompts.assign(
            weight=plain.prompts["task"].map(weight), climate=plain.prompts["task"].map(warm),
            twin=plain.prompts["task"].map(warm).str.upper(),
        ),
    )  # fmt: skip
    assert held_columns(trace, feature_columns(trace), column="climate") == ("n_tokens", "task_type", "weight", "twin")
    cells = task_questions.feature_cells(trace, column="climate", kind="task", held="weight")["cells"]
    found = cells.set_index(["feature", "layer", "expert"]).loc[("warm", "L01", 0)]
    # By hand: both sides without their line over the weight.
    heavy, is_warm = np.array(list(weight.values()), float), np.array([each == "warm" for each in warm.values()], float)
    assert found["plain_r"] == pytest.approx(np.corrcoef(heavy, is_warm)[0, 1], abs=1e-6)
    assert np.isnan(found["r"])  # the rate is the weight itself: nothing is left of it
    page = app_on(trace, "tasks", {"part": "features", "feature": "climate", "held": "weight"})
    assert not page.exception
    said = text_of(page)
    assert "With weight held fixed over tasks" in said
    assert "of the spread of a feature are left" in said
    assert figure_of(page, "tasks_feature_cells")["layout"]
    twins = text_of(app_on(trace, "tasks", {"part": "features", "feature": "climate", "held": "twin"}))
    assert "nothing is left of warm and cold" in twins or "nothing is left of cold and warm" in twins


def test_the_length_of_prompts_can_be_held_and_an_unknown_column_is_none(open_app):
    page = open_app("tasks", {"run": "even", "part": "features", "held": "no such column"})
    assert not page.exception
    assert "held fixed over tasks" not in text_of(page)


def test_what_belongs_to_prompts_is_compared_within_tasks(app_on):
    plain = planted_trace(seed=7, specialists={}, n_tasks=3, n_prompts_a_task=30, n_tokens_a_prompt=12, n_layers=2)
    rate = (plain.experts.values[:, 1, :2] == 4).any(axis=1)
    used = np.bincount(plain.tokens["prompt"], weights=rate, minlength=plain.n_prompts)
    trace = with_prompts(plain, heat=used + np.random.default_rng(0).normal(0, 0.2, plain.n_prompts))
    page = app_on(trace, "tasks", {"part": "features", "feature": "heat"})
    assert not page.exception
    assert "heat with **L01·E4** (r" in text_of(page)
    assert page.toggle(key="toggle_within_task").value


def test_no_expert_goes_with_features_of_an_empty_trace(app_on):
    page = app_on(null_trace(seed=3, **SHAPE), "tasks", {"part": "features"})
    assert "No expert goes with any of 3 features of task type beyond chance" in text_of(page)


def test_tasks_that_share_experts_fall_into_their_types(app_on):
    types = {"spans": 0, "names": 0, "sentiment": 1, "topics": 1, "facts": 2, "capitals": 2, "sums": 3, "shell": 4}
    owners = {name: (2, number) for name, number in types.items()}
    trace = planted_trace(seed=4, specialists=owners, **(SHAPE | {"n_tasks": 8, "n_prompts_a_task": 10}))
    page = app_on(trace, "tasks", {"part": "clusters", "clusters_of": "task"})
    assert not page.exception
    said = text_of(page)
    assert "tasks fall into 5 groups of 2 and 2 and 2 and 1 and 1" in said
    assert "AMI 1.00, ARI 1.00" in said
    assert "Cut into 5, as many as there are types, they agree with the types" in said
    assert "Redrawn prompts give them again with an adjusted Rand index of" in said


def test_clusters_of_experts_are_held_up_to_types_and_layers(app_on):
    kinds = {"extractive": 0, "classification": 1, "knowledge": 2}
    owners = {task: (2, kinds[kind]) for task, kind in TASKS.items() if kind in kinds}
    trace = planted_trace(seed=4, specialists=owners, **(SHAPE | {"n_prompts_a_task": 10}))
    tree = text_of(app_on(trace, "tasks", {"part": "clusters"}))
    assert "the types that their experts mainly serve: AMI" in tree
    assert "Layers do not set them apart" in tree or "In part they are layers" in tree
    assert "with tasks dealt to prompts at random it reaches" in tree


@pytest.mark.parametrize("of", ["expert", "task"])
@pytest.mark.parametrize("by", ["tree", "blocks", "density"])
def test_every_clustering_is_shown_or_says_why_not(open_app, of, by):
    page = open_app("tasks", {"run": "even", "part": "clusters", "clusters_of": of, "clusters_by": by})
    assert not page.exception
    assert "fall into" in text_of(page) or "There are no groups" in text_of(page) or "in no cluster" in text_of(page)


def test_layers_tell_of_the_task_where_experts_were_planted(open_app):
    page = open_app("tasks", {"run": "even", "part": "layers"})
    assert not page.exception
    assert {"tasks_information", "tasks_halves"} <= set(charts_of(page))
    assert "**L02** says most" in text_of(page)
    assert "Two halves of the prompts agree" in text_of(page)
    assert "tasks_control" not in charts_of(page)


def test_an_untrained_snapshot_that_tells_more_is_said_to(open_app, tmp_path):
    save_trace(planted_trace(seed=3, **SHAPE), tmp_path / "model" / "step-0")
    save_trace(planted_trace(seed=3, strength=1.0, **SHAPE), tmp_path / "model" / "step-900")
    page = open_app("tasks", {"run": "model/step-900", "part": "layers"}, runs=tmp_path)
    assert not page.exception
    said = text_of(page)
    assert "**At step 0 \\(untrained\\), routing separates tasks about" in said
    assert "no sign of learning by itself" in said


def test_an_expert_that_goes_with_being_right_is_named(app_on):
    plain = planted_trace(seed=6, specialists={}, n_tasks=3, n_prompts_a_task=40, n_tokens_a_prompt=12, n_layers=2)
    rate = (plain.experts.values[:, 1, :2] == 5).any(axis=1) & (plain.tokens["phase"] == "prompt")
    used = np.bincount(plain.tokens["prompt"], weights=rate, minlength=plain.n_prompts)
    trace = with_prompts(plain, score=(used > np.median(used)).astype(float))
    page = app_on(trace, "tasks", {"part": "answers"})
    assert not page.exception
    assert "being right or wrong beyond scores dealt within tasks" in text_of(page)
    assert "**L01·E5**" in text_of(page)
    assert figure_of(page, "tasks_answers")["layout"]["yaxis"]["ticktext"][0] == "L01·E5"
    page = app_on(trace, "tasks", {"part": "answers", "layers": "L00"})
    assert "no expert goes with being right beyond chance" in text_of(page)


def test_without_scores_the_page_says_so(app_on):
    page = app_on(routed_by_word(), "tasks", {"part": "answers"})
    assert "no scores of answers" in text_of(page)


ONCE_A_TASK = "Chance cannot be judged here: there is a single task or prompt, or the router decides once a task"
SAID_OF_LESS = {
    ("controls", "one token"): "so there is little for a control to take away",
    ("controls", "encoder–decoder"): "no control takes any of that away",
    ("controls", "counts"): "This run holds counts only, and a control compares tokens",
    ("controls", "Task-level MoE"): "No token\\_id occurs in two groups, so nothing can be matched",
    ("features", "one token"): "no value is shared by several prompts",
    ("features", "encoder–decoder"): "no value is shared by several tasks",
    ("features", "counts"): "No expert goes with any of 3 features of task type beyond chance",
    ("features", "Task-level MoE"): "No expert goes with any of 4 features of task type beyond chance",
    ("clusters", "one token"): "2 items are too few to be clustered",
    ("clusters", "encoder–decoder"): "experts fall into 2 groups",
    ("clusters", "counts"): "no more clearly than shuffled ones",
    ("clusters", "Task-level MoE"): "no more clearly than shuffled ones",
    ("layers", "one token"): ONCE_A_TASK,
    ("layers", "encoder–decoder"): "No layer's experts say more of the task than permuted prompts do",
    ("layers", "counts"): "This run holds counts only, and chance is judged by prompts",
    ("layers", "Task-level MoE"): ONCE_A_TASK,
    ("answers", "one token"): "This run holds no scores of answers",
    ("answers", "encoder–decoder"): "This run holds no scores of answers",
    ("answers", "counts"): "This run holds counts only, and answers belong to prompts",
    ("answers", "Task-level MoE"): ONCE_A_TASK,
}


@pytest.mark.parametrize(("part", "odd"), SAID_OF_LESS)
def test_runs_that_say_less_get_a_sentence(app_on, part, odd):
    trace = ODD[odd]()
    page = app_on(trace, "tasks", {"part": part, "experts": f"{trace.layers[0]}.E0"})
    assert not page.exception
    assert SAID_OF_LESS[part, odd] in text_of(page)


@pytest.mark.parametrize("part", PARTS)
def test_a_single_task_draws(open_app, part):
    page = open_app("tasks", {"run": "even", "part": part, "tasks": "facts"})
    assert not page.exception


@pytest.mark.parametrize("part", ["controls", "clusters"])
def test_what_is_selected_by_no_prompt_is_said(open_app, part):
    page = open_app("tasks", {"run": "even", "part": part, "tasks": "facts", "prompts": "spans-000"})
    assert not page.exception
    assert "Let go of the tasks or the prompts" in text_of(page)


@pytest.mark.slow
def test_a_process_of_its_own_answers_alike(tmp_path):
    save_trace(planted_trace(seed=2, **SHAPE), tmp_path / "run")
    trace = open_trace(tmp_path / "run")
    asked = {"match": "token_id", "without_template": False, "equal_budgets": True, "over": "task"}
    jobs = Jobs()
    try:
        deadline = time.monotonic() + 120
        while isinstance(
            made := slow_answers.tables_or_job(trace, task_questions.control_cells, jobs=jobs, **asked), Job
        ):
            assert made.state != "failed", made.message
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        jobs.stop()
    for name, table in task_questions.control_cells(trace, **asked).items():
        pd.testing.assert_frame_equal(made[name], table, check_dtype=False)
