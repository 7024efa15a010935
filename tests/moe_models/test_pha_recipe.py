import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import silhouette_score
from transformers import AutoTokenizer

from moe_models.pha import PhaForConditionalGeneration
from moe_models.recipes import pha_run
from moe_models.recipes.pha import main
from moe_models.recipes.pha_measures import own_is_best, retrieval, silhouette
from moe_models.recipes.pha_run import METHODS
from moe_models.recipes.pha_study import main as study
from tests.moe_models.text_to_text import corpus_and_backbone

TASKS = ["squad_dev", "wikigold_ner", "subjectivity"]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return corpus_and_backbone(tmp_path_factory.mktemp("data"), kind="t5")


def train(ground, out, *extra, steps=4):
    corpus, backbone = ground
    told = ["--data", str(corpus), "--backbone", str(backbone), "--out", str(out), "--tasks", *TASKS]
    told += ["--new-tasks", "country_facts", "--n-examples", "6", "--rows", "6", "--device", "cpu"]
    told += ["--adapter-width", "4", "--check-every", "2", "--check-rows", "4", "--score-rows", "4", "--warmup", "1"]
    return main([*told, "--log-every", "1", "--steps", str(steps), *extra])


def test_pha_is_trained_measured_and_can_be_loaded(ground, tmp_path):
    assert train(ground, tmp_path) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["test"]) == set(TASKS)
    assert {"majority", "accuracy"} <= set(metrics["test"]["subjectivity"])
    assert np.array(metrics["swap"]["nll"]).shape == (3, 3)
    assert metrics["new_tasks"]["country_facts"]["nearest"] in TASKS
    assert sum(metrics["new_tasks"]["country_facts"]["retrieved"].values()) == pytest.approx(1, abs=1e-3)
    assert metrics["training"]["chosen_step"] in (2, 4)
    assert metrics["training"]["examples"] == dict.fromkeys(TASKS, 6)
    assert {"instance", "prototype", "language"} <= set(metrics["curve"][0])

    model, tokenizer = PhaForConditionalGeneration.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    # The sample tasks' names are known too.
    told = {"task_ids": model.task_ids(["movie_subjectivity", "entities_news"]), "max_new_tokens": 2}
    assert len(model.generate(**tokenizer(["a", "b c"], return_tensors="pt", padding=True), **told)) == 2


def test_the_backbone_stays_as_it_was(ground, tmp_path):
    train(ground, tmp_path, steps=2)
    trained = PhaForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    for name, value in load_file(ground[1] / "model.safetensors").items():
        assert torch.equal(trained[name], value), name


def test_a_resumed_run_is_the_same(ground, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train(ground, whole) == 0
    assert train(ground, broken, "--stop-after", "0.001") == 3
    assert train(ground, broken, "--resume") == 0
    assert (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()
    curves = [json.loads((folder / "metrics.json").read_text())["curve"] for folder in (whole, broken)]
    assert [entry["total"] for entry in curves[0]] == [entry["total"] for entry in curves[1]]


def test_every_method_sees_the_same_rows_in_the_same_order(ground, tmp_path, monkeypatch):
    seen = []
    plain = pha_run.PhaObjective.__call__

    def watched(self, model, batch):
        seen.append((self.method, batch["input_ids"].tolist(), batch["labels"].tolist(), batch["task_ids"].tolist()))
        return plain(self, model, batch)

    monkeypatch.setattr(pha_run.PhaObjective, "__call__", watched)
    for method in METHODS:
        assert train(ground, tmp_path / method, "--method", method, "--metrics-only", steps=1) == 0
        assert not list((tmp_path / method).glob("*.safetensors"))
    by_method = {method: [rest for name, *rest in seen if name == method] for method in METHODS}
    assert all(batches == by_method["pha"] for batches in by_method.values())
    assert len(by_method["pha"]) == 1

    assert study(["--runs", str(tmp_path), "--checkpoint", str(tmp_path / "pha")]) == 0
    found = json.loads((tmp_path / "pha" / "study.json").read_text())
    assert set(found["gaps"]) == set(METHODS) - {"pha"}
    card = (tmp_path / "pha" / "README.md").read_text()
    assert "one learned adapter a layer for all tasks" in card
    assert "| country_facts |" in card
    assert "paper's are not compared" in card


def test_retrieval_by_hand():
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    found = retrieval(vectors, np.array([0, 0, 1]), np.eye(2))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["confusion"] == [[0.5, 0.5], [0.0, 1.0]]


def test_the_silhouette_is_the_known_one():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(30, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    task = np.array([0] * 12 + [1] * 17 + [2])
    assert silhouette(vectors, task) == pytest.approx(silhouette_score(vectors, task, metric="cosine"), abs=1e-9)


def test_own_is_best_by_hand():
    losses = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 3.0], [5.0, 4.0, 1.0]])
    # Tasks 0 and 2 do best with their own; task 1 ties.
    assert own_is_best(losses, lower_is_better=True) == pytest.approx(2 / 3)
    assert own_is_best(losses, lower_is_better=False) == 0
