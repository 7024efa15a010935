from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from app.runs import Run
from app.views.compare import pairing as comparing
from app.views.compare.answers import leave_answers
from routing import RoutingTrace, Selection, open_trace, save_trace
from tests.adapter_traces import task_moe_trace
from tests.app.conftest import charts_of, figure_of, text_of
from tests.counted import counted
from tests.traces import encoder_decoder_trace, planted_trace, random_trace

SHAPE = {"n_tasks": 3, "n_prompts_a_task": 6, "n_tokens_a_prompt": 8, "n_layers": 3}


def altered(trace: RoutingTrace, *, experts=None, prompts=None) -> RoutingTrace:
    """The same tokens with other experts, or other answers."""
    return RoutingTrace.from_arrays(
        trace.experts.values if experts is None else experts,
        layer_facts=trace.layer_facts,
        scores=trace.scores.values,
        weights=trace.weights.values,
        tokens=trace.tokens.drop(columns=["stack"]),
        prompts=trace.prompts if prompts is None else prompts,
        vocabulary=dict(trace.vocabulary),
    )


def rerouted(trace: RoutingTrace, *, layer: int, share: float = 0.5) -> RoutingTrace:
    """The same trace, but a share of the tokens goes to experts 6 and 7 in one layer."""
    rng = np.random.default_rng(0)
    experts = trace.experts.values.astype(int)
    chosen = rng.random(len(experts)) < share
    experts[chosen, layer] = [6, 7, 0, 1]
    return altered(trace, experts=experts)


@pytest.fixture
def compared(open_app, tmp_path):
    """Open the view on the last of some snapshots of one model, or of some runs that nothing relates."""

    def opened(*traces: RoutingTrace, query=None, snapshots: bool = True):
        names = [f"model/step-{10 ** (2 + number)}" if snapshots else f"run-{number}" for number in range(len(traces))]
        for name, trace in zip(names, traces, strict=True):
            if not (tmp_path / name).exists():
                save_trace(trace, tmp_path / name)
        asked = {"run": names[-1]} | ({} if snapshots else {"other": names[0]}) | (query or {})
        page = open_app("compare", asked, runs=tmp_path)
        assert not page.exception
        return page

    return opened


def run_named(name: str, *, step: int | None = None, series: str | None = None) -> Run:
    return Run(name=name, path=f"/{name}", series=series, step=step, stamp=(0, 0))


def test_the_nearest_earlier_snapshot_is_offered_first_and_the_own_weights_last():
    course = [run_named(f"m/step-{step}", step=step, series="m") for step in (0, 300, 3000)]
    trained, twin = run_named("m"), run_named("twin")
    again = run_named("m/again-step-300", step=300, series="m")
    runs = (trained, *course, again, twin)

    offered = comparing.other_runs((trained, *course, twin), trained)
    assert list(offered) == ["m/step-300", "m/step-0", "m/step-3000", "twin"]
    assert offered["m/step-3000"] == "step 3,000 of this model, its last"
    assert offered["m/step-300"] == "step 300 of this model"
    assert list(comparing.other_runs(runs, course[1])) == ["m/step-0", "m/step-3000", "m/again-step-300", "m", "twin"]
    assert next(iter(comparing.other_runs(runs, course[2]))) in {"m/step-300", "m/again-step-300"}
    assert next(iter(comparing.other_runs(runs, course[0]))) in {"m/step-300", "m/again-step-300"}
    assert list(comparing.other_runs((trained, twin), trained)) == ["twin"]


def test_the_layer_that_changed_is_found_and_the_others_are_not(compared):
    before = planted_trace(seed=1, **SHAPE)
    prompts = before.prompts.assign(score=1.0)
    after = altered(rerouted(before, layer=1), prompts=prompts)
    page = compared(before, after)
    said = text_of(page)
    assert "**step 100** and **step 1,000** read 18 prompts as the very same tokens" in said
    assert "snapshots of one training" in said
    assert "most in **L01**" in said
    assert "Nothing changed in L00 and L02" in said
    assert "Most of all **L01·E" in said
    assert "prompts better, 0 worse" in said
    assert "Most changed is" in said
    assert {"compare_churn", "compare_kept", "compare_use", "compare_scores", "compare_tokens"} <= set(charts_of(page))
    assert "over training" not in said  # two snapshots are no course
    link = next(each for each in page.get("page_link") if each.proto.label == "Read it under every layer")
    assert "base=model%2Fstep-100" in link.proto.query_string
    assert "shade=change" in link.proto.query_string


def test_the_same_run_twice_has_nothing_that_changed(compared):
    trace = planted_trace(seed=1, **SHAPE)
    page = compared(trace, trace)
    said = text_of(page)
    assert "**Nothing changed:** each of 90 tokens selects the same experts in all 3 layers" in said
    assert "No score of 18 prompts changed" in said
    assert "compare_use" not in charts_of(page)
    assert "In no layer does the 95" in said


def test_a_prompt_is_looked_at_token_by_token_within_the_selection(compared):
    before = planted_trace(seed=1, **SHAPE)
    after = rerouted(before, layer=1)
    page = compared(before, after, query={"tasks": "facts", "layers": "L00,L01", "focus": "facts-002@1"})
    said = text_of(page)
    assert "read 6 prompts as the very same tokens" in said
    assert "Nothing changed in L00." in said
    assert "Token by token: facts\\-002" in said
    assert "Experts of token 1" in said
    page.selectbox(key="compare_prompt").select("facts-004").run()
    assert page.query_params["focus"] == "facts-004"
    assert "Token by token: facts\\-004" in text_of(page)


def test_three_snapshots_are_a_course_that_follows_the_selection(compared):
    traces = [planted_trace(seed=1, strength=strength, **SHAPE) for strength in (0.0, 1.0, 3.0)]
    page = compared(*traces, query={"layers": "L02", "other": "model/step-100"})
    said = text_of(page)
    assert "**step 100** and **step 10,000**" in said
    assert "over training" in said
    assert [trace["name"] for trace in figure_of(page, "compare_saturation")["data"]] == ["L02"]


def test_an_untrained_router_that_tells_more_is_said_to(compared, open_app, tmp_path):
    shape = SHAPE | {"n_prompts_a_task": 10}
    owners = {task: (layer, number) for number, task in enumerate(("spans", "sentiment", "facts")) for layer in (0,)}
    untrained = planted_trace(seed=1, specialists=owners, strength=4.0, **shape)
    trained = planted_trace(seed=1, specialists={}, **shape)
    save_trace(untrained, tmp_path / "m" / "step-0")
    save_trace(trained, tmp_path / "m" / "step-50")
    page = open_app("compare", {"run": "m/step-50", "layers": "L00"}, runs=tmp_path)
    assert not page.exception
    assert "untrained router separates the tasks more than the trained one" in text_of(page)


def test_runs_of_other_tokens_are_compared_by_their_loads(compared):
    page = compared(planted_trace(seed=1, **SHAPE), planted_trace(seed=2, popular={(1, 3): 4.0}, **SHAPE))
    said = text_of(page)
    assert "no prompt was read as the same tokens by both" in said
    assert "most **L01**" in said
    assert "compare_distance" in charts_of(page)
    assert "compare_churn" not in charts_of(page)
    null = compared(planted_trace(seed=1, **SHAPE), planted_trace(seed=2, **SHAPE), query={"layers": "L00"})
    assert "compare_distance" in charts_of(null)


def test_loads_that_differ_by_chance_alone_are_said_to(compared):
    shape = SHAPE | {"specialists": {}}
    page = compared(planted_trace(seed=3, **shape), planted_trace(seed=4, **shape))
    assert "No layer of 3 is loaded otherwise" in text_of(page)


def test_numbers_are_compared_only_where_they_seem_to_mean_the_same(compared):
    trace = planted_trace(seed=1, **SHAPE)
    numbers = np.random.default_rng(3).permuted(np.tile(np.arange(8), (3, 1)), axis=1)
    experts = np.stack([numbers[layer][trace.experts.values[:, layer]] for layer in range(3)], axis=1)
    twin = altered(trace, experts=experts)
    page = compared(twin, trace, snapshots=False)
    said = text_of(page)
    assert "Nothing supports that an expert's number means the same in both" in said
    assert set(charts_of(page)) == {"compare_information", "compare_balance", "compare_scores"}
    assert "compare_churn" in charts_of(compared(twin, trace, snapshots=False, query={"numbers": "1"}))


def test_twins_of_one_numbering_are_compared_expert_by_expert(compared):
    trace = planted_trace(seed=1, **SHAPE)
    page = compared(rerouted(trace, layer=0, share=0.2), trace, snapshots=False)
    assert "seems to mean the same in both" in text_of(page)
    assert "compare_churn" in charts_of(page)


def test_one_model_recorded_twice_shares_its_numbers(compared):
    page = compared(planted_trace(seed=1, strength=1.0, **SHAPE), planted_trace(seed=1, **SHAPE), snapshots=False)
    assert "Both were recorded from one model" in text_of(page)
    assert "compare_churn" in charts_of(page)


def test_models_of_other_shapes_are_compared_by_what_no_number_enters(compared):
    page = compared(planted_trace(seed=1, **SHAPE | {"n_experts": 6}), planted_trace(seed=1, **SHAPE), snapshots=False)
    said = text_of(page)
    assert "an expert of one has no counterpart in the other" in said
    assert {"compare_balance_here", "compare_balance_there", "compare_scores"} <= set(charts_of(page))
    assert "compare_churn" not in charts_of(page)


def test_counts_prompts_stacks_and_strangers_get_a_calm_answer(compared):
    trace = planted_trace(seed=1, **SHAPE)
    by_count = compared(counted(trace), trace)
    assert "one of them holds counts only" in text_of(by_count)
    assert "compare_balance" in charts_of(by_count)


def test_a_router_that_decides_once_a_prompt_is_compared_prompt_by_prompt(compared):
    one = task_moe_trace(seed=0, n_prompts_a_task=2)
    assert "as the very same tokens" in text_of(compared(one, task_moe_trace(seed=0, n_prompts_a_task=2)))


def test_where_every_expert_is_selected_weights_are_compared(compared):
    page = compared(
        task_moe_trace(seed=0, soft=True, n_prompts_a_task=2), task_moe_trace(seed=0, soft=True, n_prompts_a_task=2)
    )
    assert "compare_overlap" in charts_of(page)


def test_two_stacks_are_compared(compared):
    page = compared(encoder_decoder_trace(seed=0), encoder_decoder_trace(seed=0))
    assert "Nothing changed" in text_of(page)


def test_long_runs_are_compared_beside_the_page(compared, monkeypatch, tmp_path):
    before = planted_trace(seed=1, **SHAPE)
    after = rerouted(before, layer=1)
    monkeypatch.setattr("app.views.compare.answers.SLOW_FROM", 1)
    page = compared(before, after)
    assert "read 18 prompts as the very same tokens" not in text_of(page)
    assert any("The two runs are" in caption.value for caption in page.caption)
    # What the process would leave is what the page would ask.
    pair = {name: open_trace(tmp_path / "model" / f"step-{step}") for name, step in (("before", 100), ("after", 1000))}
    (tmp_path / "found").mkdir()
    leave_answers(pair, tmp_path / "found")
    found = {path.stem: pd.read_parquet(path) for path in (tmp_path / "found").glob("*.parquet")}
    assert set(found) >= {"layer_churn", "kept_by_rank", "changes_of_use", "changes_of_prompts", "numbering"}
    for name, table in found.items():
        asked = getattr(comparing, name)(pair)
        pd.testing.assert_frame_equal(table, asked, check_dtype=False)
        assert table.attrs == asked.attrs


def test_strangers_and_an_only_run_are_said(compared, app_on):
    trace = planted_trace(seed=1, **SHAPE)
    part = trace.select(Selection(tasks=("facts",)))
    page = compared(part, trace, query={"tasks": "spans"})
    assert "share no prompt and no task of this selection" in text_of(page)
    assert "This is the only run here" in text_of(app_on(random_trace(seed=0), "compare"))
