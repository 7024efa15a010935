import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from moe_models.recipes.optimizer import Treatment
from moe_models.recipes.routes import FixedRoutes, temperature
from moe_models.recipes.task_moe import main
from moe_models.recipes.task_moe_card import task_moe_card
from moe_models.recipes.task_moe_run import TaskMoeObjective
from moe_models.recipes.task_moe_study import condition_of
from moe_models.recipes.task_moe_study import main as study
from moe_models.task_moe import TaskMoeConfig, TaskMoeForConditionalGeneration
from tests.moe_models.text_to_text import corpus_and_backbone


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return corpus_and_backbone(tmp_path_factory.mktemp("data"), kind="bart")


def train(ground, out, *extra, steps=4):
    corpus, backbone = ground
    told = ["--data", str(corpus), "--backbone", str(backbone), "--out", str(out), "--new-tasks", "wikigold_ner"]
    told += ["--rows", "6", "--device", "cpu", "--source-length", "64", "--target-length", "16", "--warmup", "1"]
    told += ["--embedding-width", "6", "--router-width", "5", "--check-every", "2", "--check-rows", "3"]
    told += ["--score-rows", "3", "--permutations", "20", "--random-sets", "3", "--adapt-steps", "2"]
    return main([*told, "--adapt-examples", "4", "--log-every", "1", "--steps", str(steps), *extra])


@pytest.fixture(scope="module")
def learned(ground, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "learned"
    assert train(ground, out) == 0
    return out


def test_both_stages_are_trained_measured_and_can_be_loaded(learned):
    metrics = json.loads((learned / "metrics.json").read_text())
    assert set(metrics["test"]) == {"squad_dev", "subjectivity", "country_facts"}
    assert set(metrics["new_tasks"]) == {"wikigold_ner"}
    assert set(metrics["curve"]) == {"1", "2"}
    assert metrics["model"]["temperature"] == 1.0
    model = TaskMoeForConditionalGeneration.from_pretrained(learned)
    assert model.config.reads_instruction is False
    assert model.router.selection == "softmax"
    assert float(model.router.temperature) == 1.0
    told = {"task_ids": model.task_ids(["movie_subjectivity"]), "max_new_tokens": 2}
    assert len(model.generate(**AutoTokenizer.from_pretrained(learned)("a", return_tensors="pt"), **told)) == 1


def test_routes_are_frozen_in_stage_2(learned):
    stage_1 = load_file(learned / "run" / "stage-1.safetensors")
    kept = TaskMoeForConditionalGeneration.from_pretrained(learned).state_dict()
    assert len(stage_1) == 4 * 4 + 1
    for name, value in stage_1.items():
        assert torch.equal(kept[name], value.bfloat16()), name
    told = np.load(learned / "routes.npz")
    assert told["tasks"].tolist() == ["squad_dev", "subjectivity", "country_facts"]
    assert told["task_types"].tolist() == ["extractive", "classification", "knowledge"]
    assert told["stage"].tolist() == [1, 1, 1, 2, 2, 2]
    assert told["step"].tolist() == [0, 2, 4, 0, 2, 4]
    in_1, in_2 = told["route_t1"][told["stage"] == 1], told["route_t1"][told["stage"] == 2]
    assert in_1.shape == (3, 3, 4, 3)
    assert np.abs(np.diff(in_1, axis=0)).max() > 1e-3
    assert np.abs(in_2 - in_1[-1]).max() == 0
    assert np.abs(told["route"].sum(-1) - 1).max() < 1e-3


@pytest.mark.slow
def test_a_run_stopped_in_either_stage_is_resumed_the_same(ground, learned, tmp_path):
    assert train(ground, tmp_path, "--stop-after", "0.001") == 3
    assert not (tmp_path / "run" / "stage-1.safetensors").exists()
    assert train(ground, tmp_path, "--resume", "--stage", "1") == 0
    assert train(ground, tmp_path, "--resume", "--stop-after", "0.001") == 3
    assert train(ground, tmp_path, "--resume") == 0
    assert (tmp_path / "model.safetensors").read_bytes() == (learned / "model.safetensors").read_bytes()
    ours, theirs = np.load(tmp_path / "routes.npz"), np.load(learned / "routes.npz")
    assert np.array_equal(ours["route_t1"], theirs["route_t1"])


@pytest.mark.slow
def test_stage_1_alone_is_measured_and_says_so(ground, tmp_path):
    assert train(ground, tmp_path, "--stage", "1", "--adapt-steps", "0") == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["curve"]) == {"1"}
    assert condition_of(metrics["training"]) == "learned, stage 1 alone"
    card = task_moe_card(metrics, name="small", study=None)
    assert "--stage 1" in card
    assert "Stage 2 was not run" in card
    assert TaskMoeForConditionalGeneration.from_pretrained(tmp_path).router.selection == "gumbel_hard"


def test_stage_2_needs_the_routes_of_stage_1(ground, tmp_path):
    with pytest.raises(FileNotFoundError, match="Run stage 1 first"):
        train(ground, tmp_path, "--stage", "2")


@pytest.mark.slow
def test_controls_and_text_embeddings_are_compared(ground, learned, tmp_path):
    short = ("--metrics-only", "--adapt-steps", "1")
    for routes in ("dense", "average", "task-random", "untrained"):
        assert train(ground, tmp_path / routes, "--routes", routes, *short, steps=1) == 0
    assert train(ground, tmp_path / "text", "--task-embedding", "text", *short, steps=1) == 0
    assert not list(tmp_path.glob("*/model.safetensors"))
    dense = json.loads((tmp_path / "dense" / "metrics.json").read_text())
    assert dense["model"]["n_experts"] == 1
    assert dense["knock_outs"] == {}
    with pytest.raises(ValueError, match="differ in steps, adapt_steps"):
        study(["--runs", str(tmp_path), str(learned), "--checkpoint", str(learned)])
    assert train(ground, tmp_path / "learned", *short[1:], steps=1) == 0
    learned = tmp_path / "learned"
    assert study(["--runs", str(tmp_path), "--checkpoint", str(learned)]) == 0
    found = json.loads((learned / "study.json").read_text())
    assert set(found["scores"]) == {
        "learned",
        "learned, text embeddings",
        "dense",
        "average",
        "task-random",
        "untrained",
    }
    assert set(found["gains"]["training tasks"]) <= {"dense", "task-random", "average"}
    card = (learned / "README.md").read_text()
    assert "began as random numbers" in card
    assert "no instruction line" in card


def test_the_router_is_much_faster_than_the_model_and_waits():
    objective = TaskMoeObjective(
        routes="learned", stage=1, embedding="random", instruction="off",
        router_rate=10.0, embedding_rate=30.0, router_epsilon=1e-3,
    )  # fmt: skip
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    assert objective.treatment("router.units.0.linear1.weight", parameter) == Treatment(
        learning_rate_factor=10.0, epsilon=1e-3
    )
    assert objective.treatment("task_embedding.weight", parameter).learning_rate_factor == 30.0
    assert objective.treatment("model.shared.weight", parameter) == Treatment()


def test_temperatures_go_where_they_should():
    assert temperature(1, 0, n_steps=300) == 2.0
    assert temperature(1, 100, n_steps=300) == pytest.approx(0.1)
    assert temperature(1, 50, n_steps=300) == pytest.approx((2 * 0.1) ** 0.5)
    assert temperature(2, 0, n_steps=1000) == 300
    assert temperature(2, 950, n_steps=1000) == pytest.approx(1.0)
    assert temperature(2, 999, n_steps=1000) == 1.0


def test_fixed_routes_are_one_expert_a_task_and_give_way_to_a_knock_out():
    config = TaskMoeConfig(
        vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, tasks=["a", "b", "c"], task_embedding_dim=4,
    )  # fmt: skip
    model, same = FixedRoutes(config, seed=1), FixedRoutes(config, seed=1)
    assert torch.equal(model.routes(), same.routes())
    assert (model.routes().sum(-1) == 1).all()
    assert set(model.routes().unique().tolist()) == {0.0, 1.0}
    chosen = int(model.routes()[0, 1].argmax())
    with model.knock_out([(0, chosen)]):
        left = model.routes(torch.tensor([1]))[0, 0]
    assert left[chosen] == 0
    assert left.sum() == 1
    assert left.max() == 0.5
