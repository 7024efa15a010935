import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from moe_models.recipes.architecture import Architecture, hidden_states, untrained_model
from moe_models.recipes.batches import packed
from moe_models.recipes.objective import MoeObjective
from moe_models.recipes.optimizer import MasterWeightOptimizer
from moe_models.recipes.sample_moe import main
from moe_models.recipes.schedule import Schedule
from moe_models.recipes.scoring import exact_match, token_f1
from tests.moe_models.small_corpus import write_corpus

SIZES = {"vocab_size": 400, "hidden_size": 32, "n_layers": 2, "n_heads": 2, "n_key_value_heads": 1}
SIZES |= {"n_experts": 4, "expert_width": 16, "context_length": 64}


def small_model(**sizes):
    return untrained_model(Architecture(**(SIZES | sizes)), end_token=0, padding_token=1, seed=0)


def small_batch():
    pieces = [(list(range(2, 22)), 15), (list(range(30, 45)), 10), (list(range(50, 80)), 20)]
    return packed(pieces, n_rows=2, row_length=48, read_weight=0.25, padding=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("data") / "corpus")


def train(corpus, out, *extra):
    options = ["--data", str(corpus), "--out", str(out), "--rows", "2", "--device", "cpu", "--check-rows", "2"]
    options += ["--score-rows", "2", "--settle-rows", "2", "--architecture", json.dumps(SIZES)]
    options += ["--snapshots", "0", "2", "--log-every", "1", "--check-every", "100"]
    return main([*options, *extra])


def test_the_training_forward_is_the_stock_forward():
    model = small_model().eval()
    tokens = torch.randint(2, 400, (2, 12))
    positions = torch.arange(12).expand(2, 12)
    with torch.no_grad():
        states, router_logits = hidden_states(model, tokens, positions, torch.ones(2, 12))
        stock = model(tokens, output_router_logits=True)
    torch.testing.assert_close(model.lm_head(states), stock.logits)
    for ours, theirs in zip(router_logits, stock.router_logits, strict=True):
        torch.testing.assert_close(ours, theirs.reshape(ours.shape))


def test_a_packed_document_does_not_see_its_neighbors():
    model = small_model().eval()
    batch = small_batch()
    with torch.no_grad():
        together, _ = hidden_states(model, batch["tokens"], batch["positions"], batch["documents"])
        # Row 0 holds the document of 30 tokens, then the one of 15.
        alone, _ = hidden_states(
            model, torch.arange(30, 45)[None], torch.arange(15)[None], torch.ones(1, 15, dtype=torch.int16)
        )
    torch.testing.assert_close(together[0, 30:45], alone[0])


def test_the_same_seed_gives_the_same_model():
    first, second = small_model().state_dict(), small_model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("balance", ["per-layer", "pooled"])
def test_a_few_steps_lower_the_loss(dtype, balance):
    model = small_model().to(dtype)
    optimizer = MasterWeightOptimizer(model, weight_decay=0.1)
    objective = MoeObjective(balance=balance, balance_weight=0.01, dropout=0.0)
    losses = []
    for _ in range(15):
        loss, _ = objective(model, small_batch())
        loss["total"].backward()
        optimizer.step(learning_rate=5e-3)
        losses.append(float(loss["total"].detach()))
    assert losses[-1] < losses[0] - 1
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_runs_end_to_end_and_is_resumed_identically(corpus, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train(corpus, whole, "--steps", "4") == 0
    # Cut after the first step; a run of another length until then is the same run, since nothing has decayed yet.
    assert train(corpus, broken, "--steps", "400", "--stop-after", "0.001") == 3
    assert train(corpus, broken, "--steps", "4", "--resume") == 0
    assert (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()

    metrics = json.loads((whole / "metrics.json").read_text())
    assert len(metrics["load"]) == SIZES["n_layers"]
    assert {"majority", "n", "accuracy"} <= set(metrics["dev"]["subjectivity"])
    assert {"exact_match", "token_f1"} <= set(metrics["dev"]["squad_dev"])
    card = (whole / "README.md").read_text()
    assert "| squad_dev | extractive | 2 |" in card
    assert "CC0-1.0" in card
    assert sorted(path.name for path in (whole / "run" / "snapshots").iterdir()) == [
        "step-000000",
        "step-000002",
        "step-000004",
    ]

    model = AutoModelForCausalLM.from_pretrained(whole)
    tokenizer = AutoTokenizer.from_pretrained(whole)
    assert model.dtype == torch.bfloat16
    prompt = tokenizer("a prompt\nanswer:", return_tensors="pt")
    assert model.generate(**prompt, max_new_tokens=3).shape[1] > prompt["input_ids"].shape[1]


def test_resuming_with_another_balance_is_refused(corpus, tmp_path):
    train(corpus, tmp_path / "run", "--steps", "400", "--stop-after", "0.001")
    with pytest.raises(ValueError, match="balance 'per-layer', and 'pooled' is asked for"):
        train(corpus, tmp_path / "run", "--steps", "400", "--resume", "--balance", "pooled")


def test_the_schedule_is_level_until_it_decays():
    schedule = Schedule(n_steps=1000, decay_share=0.4, n_warmup_steps=10)
    assert schedule.learning_rate_factor(0) == 0.1
    assert schedule.learning_rate_factor(10) == schedule.learning_rate_factor(599) == 1.0
    # Half-way through the decay: 1 - 0.98 / 2.
    assert schedule.learning_rate_factor(800) == pytest.approx(0.51)
    longer = Schedule(n_steps=5000, decay_share=0.4, n_warmup_steps=10)
    assert all(
        schedule.made_up_share(step) == longer.made_up_share(step)
        and schedule.read_weight(step) == longer.read_weight(step)
        for step in range(600)
    )


def test_scores_by_hand():
    assert exact_match("The Eiffel Tower.", "eiffel tower") == 1.0
    # 2 of 3 given words are right, and 2 of 2 wanted ones are found: 2 · (2/3) · 1 / (2/3 + 1).
    assert token_f1("big red car", "red car") == pytest.approx(0.8)
    assert token_f1("x", "y") == 0.0
    assert exact_match(".de", ".de") == 1.0
    assert exact_match("?", "!") == 0.0
