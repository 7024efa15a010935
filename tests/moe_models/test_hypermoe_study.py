"""The arithmetic of the HyperMoE study on made-up runs, and what the card says of an effect and of none."""

import json

import numpy as np
import pytest

from moe_models.recipes.dev_losses import AS_TRAINED, DevLosses, read_dev_losses, save_dev_losses
from moe_models.recipes.hypermoe_card import hypermoe_card
from moe_models.recipes.hypermoe_speed import measured_rounds, ratios
from moe_models.recipes.hypermoe_study import main, read_runs, study

TASKS = np.array(["blimp", "blimp", "blimp", "svamp"])
TRAINING = {
    "steps": 2000, "decay_share": 0.5, "tokens_a_batch": 65536, "learning_rate": 3e-3, "weight_decay": 0.1,
    "dropout": 0.1, "balance": "per-layer", "balance_weight": 0.1, "train_rows": 100, "train_rows_dropped": 3,
    "seconds": 60.0, "resumed_at": [], "device": "a GPU", "torch": "2", "transformers": "5", "adapter_rate": 0.3,
}  # fmt: skip
SIZES = {
    "class": "HyperMoeForCausalLM", "parameters": 8_400_000, "vocab_size": 7616, "hidden_size": 256, "n_layers": 2,
    "n_heads": 8, "n_experts": 8, "expert_width": 128, "context_length": 512,
}  # fmt: skip


def write_run(folder, conditioning, seed, loss, *, top_k=2, effects=None, speed=1000, **training):
    """A run whose answers lose ``loss`` on each prompt, and so much more under each replacement."""
    metrics = {
        "model": SIZES | {"top_k": top_k},
        "training": TRAINING | {"seed": seed, "tokens_per_second": speed} | training,
        "hypermoe": {"conditioning": conditioning, "adapter_dim": 16, "added_parameters": 567_180},
        "load": [1.2, 1.3],
        "tasks": {
            task: {"task": task, "task_type": "classification", "licence": "CC0-1.0", "source": "made up"}
            for task in ("blimp", "svamp")
        },
        "dev": {task: {"accuracy": 0.9, "majority": 0.5, "n": 3} for task in ("blimp", "svamp")},
        "curve": [
            {"step": 2000, "written": 1.0, "read": 2.0, "dev_exact": {"blimp": 0.5, "svamp": 0.5}, "dev_load": [1.2]}
        ],
    }  # fmt: skip
    written = np.broadcast_to(np.asarray(loss, dtype=float), (4,))
    nats = {AS_TRAINED: np.stack([written, written + 1])}
    for name, effect in (effects or {}).items():
        nats[name] = np.stack([written + effect, written + 1])
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    save_dev_losses(DevLosses(tasks=TASKS, nats=nats), folder / "dev_losses.npz")
    return folder


def runs_of(folder, gaps, effect=0.1):
    """HyperMoE and control c0 for seeds 0, 1, …, apart by ``gaps``."""
    for seed, gap in enumerate(gaps):
        effects = {name: effect + 0.01 * seed for name in ("shifted", "mean", "zero", "skip")}
        write_run(folder / f"u{seed}", "unselected", seed, 1.0 + seed + gap, effects=effects, speed=850)
        write_run(folder / f"n{seed}", "none", seed, 1.0 + seed)
    return folder


def test_every_task_weighs_the_same():
    losses = DevLosses(tasks=TASKS, nats={AS_TRAINED: np.array([[1.0, 2, 3, 8], [0, 0, 0, 4]])})
    assert losses.means() == {"blimp": 2.0, "svamp": 8.0}
    assert losses.overall() == 5.0
    assert losses.overall(kind="read") == 2.0


def test_losses_come_back_from_the_disk(tmp_path):
    nats = {AS_TRAINED: np.arange(8.0).reshape(2, 4), "skip": np.ones((2, 4))}
    save_dev_losses(DevLosses(tasks=TASKS, nats=nats), tmp_path / "losses.npz")
    again = read_dev_losses(tmp_path / "losses.npz")
    assert again.tasks.tolist() == TASKS.tolist()
    assert {name: values.tolist() for name, values in again.nats.items()} == {n: v.tolist() for n, v in nats.items()}


def test_an_effect_on_every_prompt_alike_has_an_interval_of_no_width():
    nats = {AS_TRAINED: np.zeros((2, 4)), "skip": np.full((2, 4), 0.25), "mean": np.array([[0.0, 1, 2, 5], [0] * 4])}
    losses = DevLosses(tasks=TASKS, nats=nats)
    assert losses.change_interval("skip") == pytest.approx((0.25, 0.25, 0.25))
    # blimp's mean is 1 and svamp's 5; only blimp's three prompts can be resampled, between 0 and 2.
    mean, low, high = losses.change_interval("mean")
    assert mean == 3.0
    assert 2.5 <= low < 3.0 < high <= 3.5


def test_gaps_by_hand(tmp_path):
    # Seeds differ by 1, which pairing takes out: gaps −0.1, −0.2, −0.3. Student's t for 2 degrees of freedom is 4.303.
    found = study(read_runs([runs_of(tmp_path, [-0.1, -0.2, -0.3])]))
    gap = found["gaps"]["c0"]["written"]
    half = 4.303 * 0.1 / 3**0.5
    assert gap["mean"] == pytest.approx(-0.2, abs=1e-6)
    assert (gap["low"], gap["high"]) == pytest.approx((-0.2 - half, -0.2 + half), abs=1e-4)
    assert found["gaps"]["c0"]["by_task"]["svamp"]["mean"] == pytest.approx(-0.2, abs=1e-6)
    assert found["gaps"]["c0"]["per_seed"] == pytest.approx({0: -0.1, 1: -0.2, 2: -0.3}, abs=1e-6)
    # 0.10, 0.11 and 0.12 nats more without the HyperExpert.
    assert found["overrides"]["skip"]["written"]["mean"] == pytest.approx(0.11, abs=1e-6)
    assert found["speed"]["c0"]["mean"] == pytest.approx(-0.15)


def test_a_control_is_known_by_its_condition_and_its_k(tmp_path):
    write_run(tmp_path / "a", "unselected", 0, 1.0)
    for name in ("none", "adapter", "constant", "selected", "random"):
        write_run(tmp_path / name, name, 0, 1.0)
    write_run(tmp_path / "more", "none", 0, 1.5, top_k=3)
    found = study(read_runs([tmp_path]))
    assert list(found["gaps"]) == ["c0", "c1", "c2", "c3", "c4", "c5"]
    assert found["gaps"]["c1"]["written"] == {"mean": -0.5, "low": None, "high": None, "n": 1}


def test_runs_that_cannot_be_paired_are_refused(tmp_path):
    write_run(tmp_path / "a" / "method", "unselected", 0, 1.0)
    write_run(tmp_path / "a" / "longer", "none", 0, 1.0, steps=4000)
    with pytest.raises(ValueError, match=r"longer and method differ in their steps \(4000, not 2000\)"):
        study(read_runs([tmp_path / "a"]))
    write_run(tmp_path / "b" / "one", "unselected", 0, 1.0)
    write_run(tmp_path / "b" / "two", "unselected", 0, 1.0)
    with pytest.raises(ValueError, match="two and one are both hypermoe with seed 0"):
        study(read_runs([tmp_path / "b"]))
    write_run(tmp_path / "c" / "plain", "none", 0, 1.0)
    with pytest.raises(ValueError, match="None of the runs is HyperMoE itself"):
        study(read_runs([tmp_path / "c"]))
    with pytest.raises(FileNotFoundError, match="No finished run"):
        read_runs([tmp_path / "d"])


def test_the_card_of_an_effect(tmp_path):
    runs = runs_of(tmp_path / "runs", [-0.1, -0.2, -0.3])
    # 0.4 either way would hold zero; these gaps are steadier.
    steady = runs_of(tmp_path / "steady", [-0.1, -0.11, -0.12])
    assert main(["--runs", str(steady), "--checkpoint", str(steady / "u0")]) == 0
    card = (steady / "u0" / "README.md").read_text()
    assert "c0: HyperMoE's loss is lower (better), -0.1100 [-0.1348, -0.0852] over 3 seeds." in card
    assert "better: blimp, svamp" in card
    assert "The selection embedding is used" in card
    assert "All that was looked for above appeared." in card
    assert "c0 -15.0% [-15.0%, -15.0%]" in card
    assert "paper" not in card.lower()
    assert json.loads((steady / "u0" / "study.json").read_text())["gaps"]["c0"]["written"]["n"] == 3
    main(["--runs", str(runs), "--checkpoint", str(runs / "u0")])
    assert "**null**" in (runs / "u0" / "README.md").read_text()


def test_speed_is_compared_within_rounds(tmp_path):
    # 100 tokens; the second round is slow for both, and the ratio is not.
    rounds = [{"c0": 1.0, "hypermoe": 1.25}, {"c0": 2.0, "hypermoe": 2.5}, {"c0": 1.0, "hypermoe": 1.25}]
    found = ratios(rounds, n_tokens=100)
    assert found["hypermoe"]["tokens_per_second"] == 80
    assert found["hypermoe"]["against_c0"] == pytest.approx({"mean": -0.2, "low": -0.2, "high": -0.2, "n": 3})
    cost = {"device": "a GPU", "rounds": 3, "tokens_a_batch": 50, "train": found, "infer": found}
    runs = runs_of(tmp_path / "runs", [-0.1, -0.2])
    (tmp_path / "speed.json").write_text(json.dumps(cost | {"memory_bytes": {"c0": 1e9, "hypermoe": 2e9}}))
    main(["--runs", str(runs), "--checkpoint", str(runs / "u0"), "--speed", str(tmp_path / "speed.json")])
    card = (runs / "u0" / "README.md").read_text()
    assert "| hypermoe | 80 | -20.0% [-20.0%, -20.0%] | -20.0% [-20.0%, -20.0%] |" in card
    assert "c0 1.00 GB, hypermoe 2.00 GB" in card


def test_models_take_turns_in_an_order_that_moves_on():
    order = []
    turns = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    rounds = measured_rounds(turns, n_rounds=2, n_steps=2, wait=lambda: None)
    assert [list(each) for each in rounds] == [["a", "b"], ["b", "a"]]
    assert "".join(order) == "aaabbb" + "aabb" + "bbaa"


def test_the_card_of_a_null_says_so(tmp_path):
    runs = runs_of(tmp_path, [-0.1, 0.1, 0.02], effect=-0.01)
    main(["--runs", str(runs), "--checkpoint", str(runs / "u0")])
    card = (runs / "u0" / "README.md").read_text()
    assert "c0: **null**. The interval holds zero: no difference was shown over 3 seeds." in card
    assert "**not shown (null)**" in card
    assert "a gain over c0; harm from taking another set's selection embedding" in card
    assert "This checkpoint is one seed (0) of the 3 compared above." in card


def test_a_gain_that_several_comparisons_explain_does_not_stand(tmp_path):
    # p of the t-test on the gaps to c0 is .022: alone below .05, and times three not.
    runs = runs_of(tmp_path, [-0.1, -0.13, -0.17])
    for seed, (ordinary, constant) in enumerate([(0.1, -0.2), (-0.1, 0.1), (0.05, 0.02)]):
        write_run(tmp_path / f"a{seed}", "adapter", seed, 1.0 + seed + ordinary)
        write_run(tmp_path / f"k{seed}", "constant", seed, 1.0 + seed + constant)
    main(["--runs", str(runs), "--checkpoint", str(runs / "u0")])
    card = (runs / "u0" / "README.md").read_text()
    assert "c0: HyperMoE's loss is lower (better)" in card
    assert "3 controls were compared over seeds: p of Student's t, and adjusted for that (Holm): c0 0.022, " in card
    assert "adjusted 0.067" in card
    assert "**no gain stands**" in card
    assert "Adapters made from a constant (c3) do as well" in card
    assert "a gain over c0; " in card.partition("## What did not appear")[2]


def test_the_card_of_one_seed_claims_nothing(tmp_path):
    runs = runs_of(tmp_path, [-0.1])
    main(["--runs", str(runs), "--checkpoint", str(runs / "u0")])
    card = (runs / "u0" / "README.md").read_text()
    assert "c0: one seed, -0.1000; no interval, so nothing is claimed." in card
    assert "One seed: nothing is claimed." in card
    longer = write_run(tmp_path / "longer", "unselected", 0, 1.0, steps=9000)
    main(["--runs", str(runs / "u0"), str(runs / "n0"), "--checkpoint", str(longer)])
    card = (longer / "README.md").read_text()
    assert "This checkpoint was trained longer than they were, 9,000 steps." in card
    assert "one seed (0), of a longer run than those compared above" in card
    assert "## What did not appear" not in card


def test_a_card_without_a_study_says_that_nothing_was_compared(tmp_path):
    write_run(tmp_path / "alone", "unselected", 0, 1.0)
    metrics = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    card = hypermoe_card(metrics, name="alone")
    assert "Not measured: this run was compared with no control." in card
    assert "| blimp | CC0-1.0 | made up |" in card
