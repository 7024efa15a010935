from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.prototypes import prototype_similarity
from app.views.causes.stored import exchanged_prototypes, of_effects, of_exchange, selection_effects
from routing import TraceError, open_trace, save_trace
from tests.adapter_traces import hyper_moe_trace, pha_trace, task_moe_trace
from tests.app.conftest import text_of


def kept(folder: Path, **tables: pd.DataFrame) -> None:
    """A study as `analysis.interventions` leaves it."""
    folder.mkdir(parents=True)
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet")
    (folder / "result.json").write_text(json.dumps({"tables": sorted(tables)}))


def effects(shifted: float) -> pd.DataFrame:
    rows = [
        {
            "override": name,
            "group": "all",
            "n_prompts": 40,
            "nll_change": change,
            "low": change - 0.02,
            "high": change + 0.02,
        }
        for name, change in (("shifted", shifted), ("mean", 0.05), ("zero", 0.1), ("skip", 0.3))
    ]
    return pd.DataFrame(rows)


def exchange(trace) -> dict[str, pd.DataFrame]:
    tasks = list(trace.vectors["prototype"]["prototype"].values)
    matrix = [
        {"task": one, "prototype": other, "nll": 2.0 + (one != other) * 0.5, "score": 0.5}
        for one in tasks
        for other in tasks
    ]
    by_task = [{"task": each, "own": 2.0, "others": 2.5, "difference": 0.5, "low": 0.4, "high": 0.6} for each in tasks]
    whole = [{"dominance": 0.42, "p_value": 0.0001, "n_permutations": 10000}]
    return {"matrix": pd.DataFrame(matrix), "tasks": pd.DataFrame(by_task), "dominance": pd.DataFrame(whole)}


def test_what_replacing_embeddings_did_stands_beside_the_adapters(open_app, tmp_path):
    save_trace(hyper_moe_trace(seed=0), tmp_path / "hyper")
    query = {"layout": "pca"}
    without = open_app("unselected", query, runs=tmp_path)
    assert not without.exception
    assert without.code[0].value == f"routescope intervene {tmp_path / 'hyper'}"
    kept(tmp_path / "hyper" / "interventions" / "selection-embedding-0123", effects=effects(0.15))
    page = open_app("unselected", query, runs=tmp_path)
    assert not page.exception
    assert "another set's embedding changes it by **+0.150**" in text_of(page)
    assert "the conditioning is used" in text_of(page)


def test_an_embedding_that_may_be_anothers_is_not_used():
    told = of_effects(effects(0.01).set_index("override"))
    assert "+0.010** (95\N{NO-BREAK SPACE}% -0.010 to +0.030, within chance)" in told
    assert "the conditioning is not used" in told


def test_what_exchanging_prototypes_did_stands_on_the_adapters_view(open_app, tmp_path):
    trace = pha_trace(seed=0)
    save_trace(trace, tmp_path / "pha")
    kept(tmp_path / "pha" / "interventions" / "prototypes-0123", **exchange(trace))
    page = open_app("adapters", {"layout": "pca"}, runs=tmp_path)
    assert not page.exception
    assert "by **+0.420** nats a token, more than prototypes dealt at random give" in text_of(page)
    found = exchanged_prototypes(open_trace(tmp_path / "pha"))
    assert "That like prototypes cost less" not in text_of(page)  # all foreign ones cost the same
    assert (found.change.to_numpy().diagonal() == 0).all()
    assert "best for 6 of 6 tasks" in of_exchange(found)


def test_the_cost_of_foreign_prototypes_is_held_against_their_likeness(open_app, tmp_path):
    trace = pha_trace(seed=0)
    save_trace(trace, tmp_path / "pha")
    tables = exchange(trace)
    alike = prototype_similarity(trace)
    tables["matrix"]["nll"] = [
        3.0 - float(alike.sel(prototype=row.task, other=row.prototype)) for row in tables["matrix"].itertuples()
    ]
    kept(tmp_path / "pha" / "interventions" / "prototypes-0123", **tables)
    page = open_app("adapters", {"layout": "pca"}, runs=tmp_path)
    assert not page.exception
    assert "That like prototypes cost less holds at ρ = **1.00**, more than under other names" in text_of(page)


def test_a_study_that_was_not_finished_or_is_broken_is_not_taken_for_one(tmp_path):
    save_trace(hyper_moe_trace(seed=0), tmp_path / "hyper")
    trace = open_trace(tmp_path / "hyper")
    folder = tmp_path / "hyper" / "interventions" / "selection-embedding-0123"
    folder.mkdir(parents=True)
    assert selection_effects(trace) is None
    (folder / "result.json").write_text("{}")
    (folder / "effects.parquet").write_text("no table")
    with pytest.raises(TraceError, match="cannot be read"):
        selection_effects(trace)


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        (pha_trace(seed=0), "Selected: **spans**."),
        (task_moe_trace(seed=0), "For this prompt the closest call is in"),
        (task_moe_trace(seed=0, soft=True), "This run holds no runners-up"),
    ],
)
def test_a_prompt_that_was_routed_at_once_is_read_as_its_text_and_route(app_on, trace, words):
    page = app_on(trace, "tokens")
    assert not page.exception
    assert page.code[0].value == "a text of " + trace.tasks[0]
    assert words in text_of(page)
    assert "there are no tokens, and one route" in text_of(page)
    assert "all tokens" not in text_of(page).split("Route of this prompt")[1].split("**margins**")[0]


@pytest.mark.parametrize("view", ["", "tasks", "load", "map", "expert"])
@pytest.mark.parametrize("trace", [hyper_moe_trace(seed=0), pha_trace(seed=0), task_moe_trace(seed=0, soft=True)])
def test_every_other_view_opens_on_these_runs(app_on, view, trace):
    page = app_on(trace, view, {"layout": "pca"})
    assert not page.exception
    assert not page.error
