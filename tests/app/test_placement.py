from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analysis.capacity import capacity_drops
from analysis.placement_study import placement_what_if
from analysis.placements import linear_placement, read_placement
from app.slow_answers import leave
from app.views.placement.files import map_files
from app.views.placement.questions import FACTORS, capacity_of_tables, capacity_tables, study_of_tables, tables_of_study
from app.views.placement.sentences import advised, of_advice, of_losers
from app.views.placement.view import devices_that_work
from routing import RoutingTrace, save_trace
from tests.adapter_traces import pha_trace, task_moe_trace
from tests.app.conftest import charts_of, figure_of, text_of
from tests.counted import counted
from tests.traces import encoder_decoder_trace, null_trace, planted_trace, trace_of

SHAPE = {"n_tasks": 4, "n_prompts_a_task": 20, "n_tokens_a_prompt": 8, "n_layers": 2}


@pytest.fixture(scope="module")
def uneven() -> RoutingTrace:
    """Experts 0 and 1 of L01, neighbors on a linear device, do most of its work."""
    return planted_trace(seed=4, specialists={}, popular={(1, 0): 2.5, (1, 1): 2.5}, **SHAPE)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, uneven):
    folder = tmp_path_factory.mktemp("placed")
    save_trace(uneven, folder / "uneven")
    save_trace(null_trace(seed=5, prompt_effect=0.0, **SHAPE), folder / "null")
    return folder


def test_a_known_overload_is_spread_and_the_advice_says_by_how_much(open_app, runs):
    page = open_app("placement", {"run": "uneven", "devices": "4", "batch": "4"}, runs=runs)
    assert not page.exception
    said = text_of(page)
    assert "With 4 devices, the **balanced** map lowers the slowdown bound from" in said
    assert "on unseen prompts" in said
    assert {"placement_dots", "placement_load_linear", "placement_load"} <= set(charts_of(page))
    # Device 0 holds experts 0 and 1.
    assert "device 0 does" in said
    texts = figure_of(page, "placement_load_linear")["data"][0]["text"]
    assert texts[1][0] == "L01 · device 0: E0, E1"


def test_where_nothing_is_gained_the_page_says_so(open_app, runs):
    page = open_app("placement", {"run": "null", "devices": "4", "batch": "4"}, runs=runs)
    assert not page.exception
    assert "**Nothing is gained**: with 4 devices" in text_of(page)


def test_few_batches_are_no_ground_for_advice(open_app, runs):
    page = open_app("placement", {"run": "uneven", "batch": "16"}, runs=runs)
    assert "too few to tell a gain from chance" in text_of(page)


def test_nodes_add_their_traffic_and_a_map_of_their_own(open_app, runs):
    page = open_app(
        "placement",
        {"run": "uneven", "devices": "4", "nodes": "2", "redundant": "4", "batch": "4", "measure": "sends_per_token"}
        | {"map": "coactivated"},
        runs=runs,
    )
    assert not page.exception
    assert "Load of every device, co\\-activated" in text_of(page)
    assert figure_of(page, "placement_dots")["layout"]["yaxis"]["ticktext"] == [
        "linear",
        "balanced",
        "co-activated",
        "by lot",
    ]
    (table,) = (each.value for each in page.dataframe)
    assert "Sends to other nodes" in table.index
    assert "ep-num-redundant-experts 4 --ep-size 4" in page.code[0].value


def test_an_address_that_makes_no_sense_falls_back(open_app, runs):
    nonsense = {"devices": "<b>", "nodes": "9", "map": "?", "measure": "x", "whatif": "y", "redundant": "-1"}
    page = open_app("placement", {"run": "uneven"} | nonsense, runs=runs)
    assert not page.exception
    assert not page.error


def test_a_map_of_the_readers_is_judged_and_bad_files_get_a_sentence(open_app, runs, uneven):
    page = open_app("placement", {"run": "uneven", "devices": "4", "batch": "4"}, runs=runs)
    mine = json.dumps({"physical_to_logical_map": [[0, 2, 4, 6, 1, 3, 5, 7]] * 2}).encode()
    page.file_uploader[0].set_value(
        [
            ("linear.json", mine, "application/json"),
            ("*bad*.json", b"\x80\x04K\x01.", "application/json"),
            ("list.json", b"[1]", "application/json"),
            ("short.json", b'{"physical_to_logical_map": [[0]]}', "application/json"),
        ]
    )
    page.run()
    assert not page.exception
    warned = [each.value for each in page.warning]
    assert len(warned) == 3
    assert "\\*bad\\*\\.json" in warned[0]
    assert "no JSON file" in warned[0]
    # A file may not take the name of ours.
    assert "linear (2)" in figure_of(page, "placement_dots")["layout"]["yaxis"]["ticktext"]
    page.file_uploader[0].set_value(None)
    page.run()
    assert "linear (2)" not in figure_of(page, "placement_dots")["layout"]["yaxis"]["ticktext"]


def test_a_downloaded_map_comes_back(uneven):
    placement = linear_placement(uneven, n_devices=4)
    files = map_files(placement, uneven)
    assert json.loads(files["SGLang"]) == {"physical_to_logical_map": placement.slots_LS.tolist()}
    again = read_placement(json.loads(files["layers"]), uneven)
    assert again.slots_LS.tolist() == placement.slots_LS.tolist()
    assert again.n_devices == 4
    # Four empty slots: no table for an engine.
    assert map_files(linear_placement(uneven, n_devices=3), uneven)["SGLang"] is None


def test_a_capacity_drops_and_says_who_loses(open_app, runs):
    page = open_app("placement", {"run": "uneven", "whatif": "capacity", "queue": "rank", "batch": "64"}, runs=runs)
    assert not page.exception
    assert {"placement_capacity", "placement_by_position", "placement_by_task"} <= set(charts_of(page))
    said = text_of(page)
    assert "At a capacity factor of 1.25, **L01** loses most" in said
    assert "1 layer of 2 surely loses more than 1" in said or "2 layers of 2" in said
    assert "beyond their 95\N{NO-BREAK SPACE}% interval over prompts" in said
    drawn = figure_of(page, "placement_by_task")["data"][0]
    assert drawn["error_x"]["array"]
    assert any(each.get("fill") == "toself" for each in figure_of(page, "placement_by_position")["data"])
    narrowed = open_app("placement", {"run": "uneven", "whatif": "capacity", "tasks": "facts"}, runs=runs)
    assert figure_of(narrowed, "placement_by_task")["layout"]["yaxis"]["ticktext"] == ["facts"]


def test_losers_are_told_with_their_intervals():
    parts = pd.DataFrame(
        {"rate": [0.5, 0.1, 0.2], "low": [0.4, 0.0, np.nan], "high": [0.6, 0.3, np.nan]}, index=list("abc")
    )
    text = of_losers(parts, what="task", layer="L1", overall=0.2).replace("\N{NO-BREAK SPACE}", "")
    assert (
        "**a** loses most: 50% \\[40%, 60%\\] of its assignments, against 20% of all; b least, 10% \\[0%, 30%\\]"
        in text
    )
    assert "1 of 2 tasks differ from all" in text
    assert "interval" not in of_losers(parts.assign(low=np.nan, high=np.nan), what="task", layer="L1", overall=0.2)
    assert of_losers(parts * 0, what="task", layer="L1", overall=0.0) == "Nobody loses anything in L1."


@pytest.mark.parametrize(
    ("trace", "sentence"),
    [
        (counted(planted_trace(seed=0, **SHAPE)), "counts per task only"),
        (pha_trace(seed=0), "decides once a prompt"),
        (task_moe_trace(seed=0, soft=True), "always selected"),
        (trace_of([[0, 1]], n_experts=4), "Record more prompts"),
        (trace_of([[0]] * 4, n_experts=1, prompts=[0, 0, 1, 1], tasks=("a",)), "leaves nothing to place"),
    ],
)
def test_what_cannot_be_placed_is_said_calmly(app_on, trace, sentence):
    page = app_on(trace, "placement")
    assert not page.exception
    assert not page.error
    assert sentence in text_of(page)


def test_two_stacks_are_placed(app_on):
    page = app_on(encoder_decoder_trace(), "placement", {"batch": "1", "layers": "enc00"})
    assert not page.exception
    assert "slowdown bound" in text_of(page)


def test_devices_divide_the_experts_of_every_layer():
    assert devices_that_work(trace_of([[0]], n_experts=12)) == [2, 3, 4, 6, 12]
    assert devices_that_work(trace_of([[0]], n_experts=7)) == [7]
    assert devices_that_work(trace_of([[0]], n_experts=1)) == []


def measures_of(saved: dict[str, tuple[float, float]], n_batches: int) -> pd.DataFrame:
    rows = {}
    for name, (low, high) in {"linear": (0.0, 0.0), **saved, "random": (np.nan, np.nan)}.items():
        share = 0.0 if name == "random" else (low + high) / 2
        for part in ("fitted", "judged"):
            bound = 2 * (1 - share)
            rows[name, part] = {
                **{
                    f"saved_time{end}": value
                    for end, value in zip(("", "_low", "_high"), (share, low, high), strict=True)
                },
                **{f"slowdown_bound{end}": bound for end in ("", "_low", "_high")},
                **{f"saved_sends{end}": np.nan for end in ("", "_low", "_high")},
            }
    table = pd.DataFrame(rows).T
    table.index = pd.MultiIndex.from_tuples(rows, names=["placement", "part"])
    table.attrs["n_batches"] = n_batches
    return table


def test_advice_follows_the_interval_not_the_figure():
    unsure, sure = (measures_of({"balanced": ends, "mine": (0.1, 0.2)}, 8) for ends in ((-0.1, 0.9), (0.2, 0.4)))
    assert advised(unsure) == "mine"
    assert advised(sure) == "balanced"
    assert advised(measures_of({"balanced": (-0.1, 0.9)}, 8)) is None
    assert advised(measures_of({"balanced": (0.2, 0.4)}, 3)) is None
    fixed = of_advice(measures_of({"balanced": (0.0, 0.0)}, 8), n_devices=4, n_nodes=1, batch_size=4)
    assert "every map has the same loads" in fixed
    text = of_advice(measures_of({"a*b": (0.01, 0.03)}, 8), n_devices=2, n_nodes=1, batch_size=4)
    assert "**a\\*b**" in text
    assert "too little to move experts for" in text


def test_a_study_travels_as_files(tmp_path):
    trace = planted_trace(seed=1, n_tasks=2, n_prompts_a_task=4, n_layers=12, first_layer=3)
    study = placement_what_if(trace, n_devices=4, n_nodes=2, n_redundant=4, n_random=1)
    leave(tables_of_study(study), tmp_path)
    again = study_of_tables({path.stem: pd.read_parquet(path) for path in tmp_path.glob("*.parquet")})
    pd.testing.assert_frame_equal(again.table, study.table)
    assert again.table.attrs["n_batches"] == study.table.attrs["n_batches"]
    np.testing.assert_array_equal(again.device_load.values, study.device_load.values)
    for name, placement in study.placements.items():
        assert again.placements[name].slots_LS.tolist() == placement.slots_LS.tolist()
        assert (again.placements[name].layers, again.placements[name].n_nodes) == (trace.layers, 2)
    drops = capacity_tables(trace, batch_size=4, priority="token")
    found = capacity_of_tables(drops)
    expected = capacity_drops(trace, factors=FACTORS, batch_size=4)
    assert found["position"].values.tolist() == expected["position"].values.tolist()
    np.testing.assert_array_equal(found["drop_rate_by_task"].values, expected["drop_rate_by_task"].values)


@pytest.mark.parametrize(("popularity", "is_told"), [(4.0, True), (0.0, False)])
def test_one_expert_that_alone_sets_the_bound_is_named_with_what_helps(app_on, popularity, is_told):
    trace = planted_trace(seed=4, specialists={}, popular={(1, 3): popularity}, **SHAPE)
    page = app_on(trace, "placement", {"devices": "4", "batch": "4"})
    assert not page.exception
    said = text_of(page)
    assert ("**L01·E3 alone sets the bound of its layer**" in said) == is_told
    assert ("an even share of 4 devices is 25" in said) == is_told
    assert ("replicas of that expert, in redundant slots" in said) == is_told


def test_replicas_that_spread_an_expert_take_its_bound_away(app_on):
    trace = planted_trace(seed=4, specialists={}, popular={(1, 3): 4.0}, **SHAPE)
    page = app_on(trace, "placement", {"devices": "4", "batch": "4", "redundant": "4"})
    assert "alone sets the bound" not in text_of(page)
