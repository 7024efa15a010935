from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from app.views.together import path_sentences
from app.views.together import sentences as together_sentences
from app.views.together.tables import common_tables, pair_tables, path_tables, stay_tables, step_tables, windows_of
from routing import RoutingTrace
from tests.adapter_traces import hyper_moe_trace
from tests.app.conftest import figure_of, text_of
from tests.counted import counted
from tests.odd_runs import ODD
from tests.traces import WORDS, encoder_decoder_trace, facts_of, null_trace, planted_trace, routed, trace_of

PARTS = ("pairs", "steps", "paths", "stay")
OF, AND = WORDS.index("of"), WORDS.index("and")


def planted_structure(*, seed: int = 0) -> RoutingTrace:
    """A quarter of the tokens choose E2 with E5 in L01; every "of" goes from L00·E1 over L01·E3 to L02·E6, every "and"
    from L00·E4 over L01·E0 to L02·E7."""
    rng = np.random.default_rng(seed)
    n_prompts, n_tokens = 40, 24
    shape = (n_prompts * n_tokens, 3, 8)
    logits = rng.gumbel(0, 1, shape)
    token_id = rng.integers(0, 4, shape[0])
    both = (rng.random(shape[0]) < 0.5) & ~np.isin(token_id, [OF, AND])
    logits[np.ix_(both, [1], [2, 5])] += 6
    for word, path in ((OF, (1, 3, 6)), (AND, (4, 0, 7))):
        for layer, expert in enumerate(path):
            logits[token_id == word, layer, expert] += 9
    arrays = routed(logits.astype(np.float16).astype(np.float32), top_k=2, n_runners_up=1)
    return RoutingTrace.from_arrays(
        arrays.pop("experts"),
        layer_facts=facts_of(3),
        tokens=pd.DataFrame({"prompt": np.repeat(np.arange(n_prompts), n_tokens), "token_id": token_id}),
        prompts=pd.DataFrame(
            {
                "prompt": [f"p{number}" for number in range(n_prompts)],
                "task": [("spans", "facts")[number % 2] for number in range(n_prompts)],
                "task_type": "other",
                "text": "text",
            }
        ),
        vocabulary={number: " " + word for number, word in enumerate(WORDS[:4])},
        **arrays,
    )


def said(page) -> str:
    assert not page.exception
    assert not page.error
    return text_of(page).replace("\\", "").replace("\u00a0", " ")


def test_a_planted_pair_is_named_with_its_interval_and_how_many_hold_up(app_on):
    page = app_on(planted_structure(), "together")
    words = said(page)
    assert "**L01·E2** and **L01·E5** are the surest pair" in words
    assert "(95 %:" in words
    assert "of 28 pairs tested hold up" in words
    assert "Pairs of experts of L01" in words  # the layer of the strongest pair is shown first
    # Those that work together are drawn side by side.
    names = figure_of(page, "together_pairs")["layout"]["yaxis"]["ticktext"]
    assert abs(names.index("E2") - names.index("E5")) == 1
    by_number = app_on(planted_structure(), "together", {"order": "number"})
    assert figure_of(by_number, "together_pairs")["layout"]["yaxis"]["ticktext"] == [
        f"E{number}" for number in range(8)
    ]
    assert figure_of(page, "together_strongest")["layout"]["yaxis"]["ticktext"][0] == "L01·E2 + E5"


def test_a_selected_pair_is_framed_and_told_of(app_on):
    page = app_on(planted_structure(), "together", {"experts": "L01.E2,L01.E5"})
    assert "**L01·E2** and **L01·E5** are chosen together by" in said(page)
    assert "beyond chance" in said(page)
    assert len(figure_of(page, "together_pairs")["layout"]["shapes"]) == 2
    other = app_on(planted_structure(), "together", {"experts": "L02.E0,L02.E1"})
    assert "Pairs of experts of L02" in said(other)
    assert "within chance" in said(other)


def test_a_planted_path_is_found_step_by_step_and_as_a_whole_with_its_word(app_on):
    words = said(app_on(planted_structure(), "together", {"part": "steps", "step": "L00→L01"}))
    assert "From L00 to L01" in words
    assert "Where **L00·E1** is first, **L01·E3** is" in words or "Where **L00·E4** is first, **L01·E0** is" in words
    assert "It gains in 2 of 2 steps" in words
    words = said(app_on(planted_structure(), "together", {"part": "paths"}))
    paths = {"of": "**L00·E1 → L01·E3 → L02·E6**", "and": "**L00·E4 → L01·E0 → L02·E7**"}
    assert any(f"{path} is taken by" in words and f"most often “{word}" in words for word, path in paths.items())
    assert "hold up (p ≤ 0.048" in words
    assert "Through L00–L02 tokens spread as over" in words
    assert "tell most about each other" in words


def test_what_the_word_decides_is_told(app_on):
    words = said(app_on(planted_structure(), "together", {"part": "stay"}))
    assert "The token's id alone decides" in words
    assert "Most bound to words is" in words
    assert "do neighbors go to the same first expert more often than any two tokens of their text" in words


@pytest.mark.parametrize("part", PARTS)
def test_where_nothing_is_planted_nothing_holds_up(app_on, part):
    trace = null_trace(seed=3, n_tasks=4, n_prompts_a_task=12, n_layers=3, prompt_effect=0.3)
    words = said(app_on(trace, "together", {"part": part}))
    assert words.count("Nothing holds up") == {"pairs": 2, "steps": 2, "paths": 3, "stay": 2}[part]
    assert "surest pair" not in words
    assert "is next for" not in words


@pytest.mark.parametrize("part", PARTS)
def test_layers_and_tasks_of_the_selection_are_those_shown(open_app, part):
    query = {"run": "even", "part": part, "tasks": "facts,spans", "layers": "L02"}
    page = open_app("together", query)
    words = said(page)
    titles = {"pairs": "Pairs of experts of L02", "steps": "From L01 to L02", "paths": "through L00–L02", "stay": ""}
    assert titles[part] in words
    if part == "stay":
        assert figure_of(page, "together_repetition")["layout"]["yaxis"]["ticktext"] == ["L02"]
    if part == "paths":
        assert figure_of(page, "together_information")["layout"]["yaxis"]["ticktext"] == ["L02"]


@pytest.mark.parametrize(
    "query",
    [{"part": "?"}, {"part": "pairs", "layer": "L99"}, {"part": "steps", "step": "x", "guesses": "9"}, {"order": "y"}],
)
def test_an_address_that_makes_no_sense_falls_back(open_app, query):
    assert said(open_app("together", {"run": "even"} | query))


def test_counts_alone_say_what_is_missing(app_on):
    page = app_on(counted(planted_trace(seed=0, n_prompts_a_task=2, n_layers=2)), "together")
    assert "counts per task only" in said(page)


ODD_PARTS = {
    "one token": ("pairs", "stay"),
    "one expert": ("pairs",),
    "encoder–decoder": ("pairs", "steps", "paths"),
    "PHA": ("pairs", "stay"),
    "soft": ("pairs", "paths"),
    "Task-level MoE": ("steps", "paths"),
}


@pytest.mark.parametrize(("odd", "part"), [(odd, part) for odd, parts in ODD_PARTS.items() for part in parts])
def test_odd_runs_get_a_calm_word(app_on, odd, part):
    trace = ODD[odd]()
    words = said(app_on(trace, "together", {"part": part}))
    if trace.unit == "prompt" and part == "stay":
        assert "decide once for a whole prompt" in words
    if part == "pairs" and (trace.dense_routing or trace.top_k == 1):
        assert "so there are no pairs to tell apart" in words


def test_weights_are_held_against_pairs_where_the_trace_has_them(app_on):
    words = said(app_on(hyper_moe_trace(seed=0, n_experts=6), "together", {"experts": "L01.E0,L01.E1"}))
    assert "have weights no more alike than others (Mantel's ρ" in words
    assert "The cosine of their weights is" in words


@pytest.mark.parametrize("function", [pair_tables, step_tables, path_tables, stay_tables, common_tables])
def test_tables_survive_the_way_between_processes(function, tmp_path):
    trace = planted_structure()
    options = {"layers": ["L00", "L01"]} if function is common_tables else {}
    for name, table in function(trace, **options).items():
        table.to_parquet(tmp_path / f"{name}.parquet", index=False)
        back = pd.read_parquet(tmp_path / f"{name}.parquet")
        pd.testing.assert_frame_equal(back, table.reset_index(drop=True), check_dtype=False, check_index_type=False)


def test_windows_are_as_long_as_the_longest_stack_allows():
    assert list(windows_of(planted_trace(seed=0, n_prompts_a_task=1, n_layers=5))) == ["L00–L03", "L01–L04"]
    assert list(windows_of(encoder_decoder_trace())) == ["enc01–enc03"]
    assert windows_of(trace_of([[0, 1]])) == {}


def test_sentences_say_what_cannot_be_told():
    nothing = pd.DataFrame({"p_value": [np.nan]})
    assert "can be tested" in together_sentences.of_pairs(nothing, layer="L0*", names={}, unit="token")
    assert "L0\\*" in together_sentences.of_pairs(nothing, layer="L0*", names={}, unit="token")
    assert "can be tested" in together_sentences.of_steps(nothing, layer="a", next_layer="b", names={}, unit="token")
    assert "Too few prompts" in together_sentences.of_guesses(pd.DataFrame({"accuracy": []}), guesses=1)
    share = pd.DataFrame({"layer": ["a", "b"], "other": ["b", "a"], "share": [0.1, 0.1], "p_value": [0.5, 0.5]})
    assert "of 1 pair" in path_sentences.of_information(share)
    assert "No tokens of this run follow" in path_sentences.of_repetition(pd.DataFrame({"same_first": [np.nan]}))
