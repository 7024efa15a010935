"""Runs read off the authors' files: the views that need no data have what to show, and the others say why not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from app.cli import cli
from routing import open_trace
from tests.app.conftest import charts_of, text_of
from tests.authors_dicts import PHA_CONFIG, gpt2_dict, pha_dict, switch_dict

ONTOLOGY = {
    "classification": {"nli": ["anli", "rte"], "emotion": ["emo"]},
    "qa": {"binary": ["boolq", "mc_taco"]},
}
TASKS = ["anli", "rte", "emo", "boolq", "mc_taco"]


def written(tmp_path, tensors, config):
    folder = tmp_path / "theirs"
    folder.mkdir(exist_ok=True)
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture
def run_of(tmp_path):
    """Import as a user does; gives the folder below which the run lies, and what was printed."""

    def made(*arguments):
        done = CliRunner().invoke(cli, ["import", *arguments, "--out", str(tmp_path / "runs" / "one")])
        return done, tmp_path / "runs"

    return made


@pytest.mark.parametrize("form", ["switch", "gpt2"])
def test_hyper_experts_can_be_seen_without_data(open_app, run_of, tmp_path, form):
    tensors, config = (switch_dict(), {}) if form == "switch" else (gpt2_dict(), {"k": 2})
    done, runs = run_of(written(tmp_path, tensors, config))
    assert done.exit_code == 0, done.output
    assert f"HyperMoE, {form} form" in done.output
    page = open_app("unselected", {"layout": "pca"}, runs=runs)
    assert not page.exception
    charts = charts_of(page)
    assert {"unselected_map", "unselected_alike_weights", "unselected_layers"} <= set(charts)
    assert not {"unselected_margins", "unselected_ratio"} & set(charts)
    said = text_of(page)
    assert ("**one for each expert of each layer by construction**" in said) == (form == "switch")
    assert "embeddings and weights" in said
    for view in ("", "expert", "tokens"):
        page = open_app(view, runs=runs)
        assert not page.exception, view
    assert "read off weights alone" in text_of(page)


def test_prototypes_can_be_seen_without_data(open_app, run_of, tmp_path):
    done, runs = run_of(written(tmp_path, pha_dict(), PHA_CONFIG))
    assert done.exit_code == 0, done.output
    assert "unordered set" in done.output or "config.json" in done.output
    page = open_app("adapters", runs=runs)
    assert not page.exception
    assert charts_of(page) == ["adapters_prototypes", "adapters_alike"]
    assert "no text, so nothing is retrieved" in text_of(page)


def test_saved_routes_have_the_whole_view_with_categories(open_app, run_of, tmp_path):
    array = tmp_path / "route_t1.npy"
    np.save(array, np.random.default_rng(0).dirichlet(np.ones(3), size=(5, 12)).astype(np.float32))
    (tmp_path / "split.json").write_text(json.dumps({"train": TASKS}))
    (tmp_path / "ontology.json").write_text(json.dumps(ONTOLOGY))
    done, runs = run_of(str(array))
    assert done.exit_code == 2
    assert "carries no names of tasks" in done.output
    named = ["--split", str(tmp_path / "split.json"), "--ontology", str(tmp_path / "ontology.json")]
    done, runs = run_of(str(array), *named)
    assert done.exit_code == 0, done.output
    assert open_trace(runs / "one").task_types["emo"] == "classification"
    page = open_app("routes", {"rows": "clustered"}, runs=runs)
    assert not page.exception
    assert charts_of(page) == ["routes_map", "routes_features", "routes_entropy", "routes_alike"]
