"""The HyperMoE recipe on a made-up corpus: runs are paired, go on where they were cut off, and learn."""

import json
import os
import signal

import pytest
import torch

from moe_models.hypermoe import HyperMoeForCausalLM
from moe_models.recipes import hypermoe, hypermoe_plan, training
from moe_models.recipes.architecture import Architecture, hidden_states
from moe_models.recipes.batches import PackedBatches
from moe_models.recipes.dev_losses import AS_TRAINED, read_dev_losses
from moe_models.recipes.documents import Documents
from moe_models.recipes.hypermoe_model import hypermoe_treatment, untrained_hypermoe
from moe_models.recipes.objective import MoeObjective
from moe_models.recipes.optimizer import MasterWeightOptimizer, Treatment
from moe_models.recipes.preparation import corpus_tokenizer, read_corpus
from moe_models.recipes.schedule import Schedule
from moe_models.recipes.sweep import read_plan
from tests.moe_models.small_corpus import write_corpus

SIZES = {"vocab_size": 400, "hidden_size": 32, "n_layers": 2, "n_heads": 2, "n_key_value_heads": 1}
SIZES |= {"n_experts": 4, "expert_width": 16, "context_length": 64}
WIDTHS = {"adapter_dim": 4, "hypernetwork_bottleneck": 8, "expert_embedding_dim": 6, "process_dim": 6}
CONDITIONS = ("unselected", "selected", "constant", "random", "adapter", "none")


def small_model(conditioning="unselected", *, top_k=2, seed=0):
    sizes = Architecture(**SIZES, top_k=top_k)
    ids = {"end_token": 0, "padding_token": 1}
    return untrained_hypermoe(sizes, conditioning=conditioning, widths=WIDTHS, seed=seed, **ids)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("data") / "corpus")


def train(corpus, out, *extra):
    options = ["--data", str(corpus), "--out", str(out), "--rows", "4", "--device", "cpu", "--check-rows", "2"]
    options += ["--score-rows", "0", "--architecture", json.dumps(SIZES), "--widths", json.dumps(WIDTHS)]
    options += ["--log-every", "1", "--check-every", "2"]
    return hypermoe.main([*options, *extra])


def curve_of(folder):
    told = ("step", "total", "written", "read", "balance", "load", "dev_nll")
    curve = json.loads((folder / "metrics.json").read_text())["curve"]
    return [{name: entry[name] for name in told if name in entry} for entry in curve]


def test_what_two_conditions_share_starts_equal():
    states = {name: small_model(name).state_dict() for name in CONDITIONS}
    states["one more expert"] = small_model("none", top_k=3).state_dict()
    backbone = states["none"].keys()
    for name, state in states.items():
        assert backbone <= state.keys()
        for other in states.values():
            shared = state.keys() & other.keys()
            assert all(torch.equal(state[key], other[key]) for key in shared), name
    hypernetwork = {key for key in states["unselected"] if "hypernetwork" in key}
    assert hypernetwork <= states["constant"].keys() & states["selected"].keys() & states["random"].keys()
    assert not any(torch.equal(small_model(seed=1).state_dict()[key], states["unselected"][key]) for key in hypernetwork
                   if "weight" in key)  # fmt: skip


def test_the_training_forward_is_the_models_own():
    model = small_model().eval()
    tokens = torch.randint(2, 400, (2, 12))
    with torch.no_grad():
        for parameter in model.model.hypernetwork.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        states, router_logits = hidden_states(model, tokens, torch.arange(12).expand(2, 12), torch.ones(2, 12))
        stock = model(tokens, output_router_logits=True)
    torch.testing.assert_close(model.lm_head(states), stock.logits)
    for ours, theirs in zip(router_logits, stock.router_logits, strict=True):
        torch.testing.assert_close(ours, theirs.reshape(ours.shape))


def test_added_parts_have_a_rate_of_their_own_and_frozen_ones_stay():
    treatment = hypermoe_treatment(0.25)
    model = small_model("random")
    treated = {name: treatment(name, parameter) for name, parameter in model.named_parameters()}
    added = {name for name, its in treated.items() if its == Treatment(learning_rate_factor=0.25, part="added")}
    assert added == {name for name in treated if "hyper" in name}
    table = model.model.layers[0].mlp.hyper_expert.selection.expert_embedding.weight
    before = table.detach().clone()
    optimizer = MasterWeightOptimizer(model, weight_decay=0.1, treatment=treatment)
    model(input_ids=torch.randint(2, 400, (2, 9)), labels=torch.randint(2, 400, (2, 9))).loss.backward()
    optimizer.step(learning_rate=1e-2)
    assert torch.equal(table, before)


def test_gradients_of_added_parts_shorten_no_step_of_the_others():
    moved = []
    for size in (1.0, 1000.0):
        model = small_model()
        optimizer = MasterWeightOptimizer(model, weight_decay=0.0, treatment=hypermoe_treatment(0.1))
        before = model.model.embed_tokens.weight.detach().clone()
        # AdamW forgets the size of gradients that are always alike; of the second step's it does not.
        for scale in (1.0, size):
            for name, parameter in model.named_parameters():
                parameter.grad = torch.full_like(parameter, 1e-3 * (scale if "hyper" in name else 1.0))
            optimizer.step(learning_rate=1e-3)
        moved.append(model.model.embed_tokens.weight.detach() - before)
    torch.testing.assert_close(moved[0], moved[1], rtol=0, atol=0)


@pytest.mark.parametrize("conditioning", ["unselected", "adapter", "none"])
def test_every_condition_runs_and_says_what_it_is(corpus, tmp_path, conditioning):
    assert train(corpus, tmp_path / "run", "--conditioning", conditioning, "--steps", "2") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["hypermoe"]["conditioning"] == conditioning
    assert (metrics["hypermoe"]["added_parameters"] > 0) == (conditioning != "none")
    assert metrics["training"]["tokens_per_second"] > 0
    losses = read_dev_losses(tmp_path / "run" / "dev_losses.npz")
    overrides = {"shifted", "mean", "zero", "skip"} if conditioning == "unselected" else set()
    assert losses.nats.keys() == {AS_TRAINED} | overrides
    assert metrics["losses"][AS_TRAINED] == pytest.approx(losses.overall(), rel=1e-5)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "Not measured: this run was compared with no control." in card
    model = HyperMoeForCausalLM.from_pretrained(tmp_path / "run")
    assert model.dtype == torch.bfloat16
    assert model.config.conditioning == conditioning


def test_conditions_of_a_seed_see_the_same_batches_and_share_them(corpus, tmp_path):
    firsts = []
    for conditioning in ("none", "unselected"):
        out = tmp_path / conditioning
        train(corpus, out, "--conditioning", conditioning, "--steps", "2", "--cache", str(tmp_path / "cache"))
        firsts.append(curve_of(out)[0])
    alone = tmp_path / "alone"
    train(corpus, alone, "--conditioning", "none", "--steps", "2")
    assert curve_of(alone)[0] == firsts[0]
    # HyperExperts start near zero, so on the same batch the first losses are all but equal.
    assert firsts[0]["read"] == pytest.approx(firsts[1]["read"], abs=2e-3)
    assert len(list((tmp_path / "cache").glob("batches-*/*.npz"))) == 2


def test_a_killed_run_goes_on_to_the_same_end(corpus, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(corpus, whole, "--steps", "6") == 0

    saved = training.TrainingRun.save

    def save_and_die(run):
        saved(run)
        if run.step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.TrainingRun, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train(corpus, killed, "--steps", "6")
    monkeypatch.undo()
    assert train(corpus, killed, "--steps", "6", "--resume") == 0
    assert curve_of(killed) == curve_of(whole)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert json.loads((killed / "metrics.json").read_text())["training"]["resumed_at"] == [4]
    with pytest.raises(ValueError, match="conditioning 'unselected', and 'selected' is asked for"):
        train(corpus, killed, "--steps", "6", "--resume", "--conditioning", "selected")


def test_a_run_that_is_asked_to_end_saves_and_says_so(corpus, tmp_path, monkeypatch):
    stepped = MasterWeightOptimizer.step

    def step_and_be_asked(optimizer, **options):
        stepped(optimizer, **options)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(MasterWeightOptimizer, "step", step_and_be_asked)
    assert train(corpus, tmp_path, "--steps", "6", "--check-every", "100") == 3
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_it_learns_what_counting_tokens_does_not_tell(corpus):
    held, schedule = read_corpus(corpus), Schedule(n_steps=100)
    tokenizer = corpus_tokenizer(held, vocab_size=400, context_length=64, cache=None)
    documents = Documents(held.trainable, facts=held.facts, held_out=held.held_out, schedule=schedule)
    dataset = PackedBatches(documents, tokenizer, schedule=schedule, n_rows=8, row_length=64, seed=0)
    model = small_model()
    optimizer = MasterWeightOptimizer(model, weight_decay=0.1, treatment=hypermoe_treatment(0.3))
    objective = MoeObjective(balance="per-layer", balance_weight=0.1, dropout=0.0)
    batches = [dataset[step] for step in range(4)]
    for step in range(60):
        losses, _ = objective(model, batches[step % 4])
        losses["total"].backward()
        optimizer.step(learning_rate=1e-2)
    counts = torch.cat([batch["tokens"][batch["documents"] > 0] for batch in batches]).bincount()
    shares = counts[counts > 0] / counts.sum()
    assert float(losses["read"]) < 0.5 * -(shares * shares.log()).sum()


def test_a_plan_pairs_every_condition_with_every_seed(capsys, tmp_path):
    assert hypermoe_plan.main(["study", "--seeds", "3", "--rate", "0.3"]) == 0
    (tmp_path / "plan.json").write_text(capsys.readouterr().out)
    jobs = {job.name: job.command for job in read_plan(tmp_path / "plan.json")}
    paired = {f"runs/{name}-{seed}" for name in ("unselected", "none", "adapter", "constant") for seed in range(3)}
    assert jobs.keys() == paired | {"sample/unselected-0", "runs/top3-0", "runs/selected-0", "runs/random-0"}
    for name, command in jobs.items():
        options = hypermoe.parsed([word.format(data="d", out="o", stop_after="9") for word in command[3:]])
        assert options.adapter_rate == (1.0 if options.conditioning == "adapter" else 0.3)
        assert (options.experts_per_token == 3) == (name == "runs/top3-0")
        assert options.resume


def test_a_conditioning_that_does_not_exist_is_refused_with_the_choices(corpus, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(corpus, tmp_path, "--conditioning", "best")
    assert "choose from" in capsys.readouterr().err
