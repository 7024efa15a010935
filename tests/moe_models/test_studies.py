import json

import pytest
from scipy.stats import t as student_t

from moe_models.recipes.adaptation import relative_gain
from moe_models.recipes.intervals import Interval, holm_adjusted, mean_interval, paired_interval
from moe_models.recipes.pha_card import verdict as pha_verdict
from moe_models.recipes.pha_study import read_runs as read_pha_runs
from moe_models.recipes.pha_study import study as pha_study
from moe_models.recipes.task_moe_card import verdict as task_moe_verdict
from moe_models.recipes.task_moe_study import study as task_moe_study


def pha_metrics(method, n, seed, score):
    training = {"method": method, "n_examples": str(n), "seed": seed, "steps": 10, "learning_rate": 1e-3, "warmup": 1}
    training |= {"decay_share": 0.5, "dropout": 0.1, "examples_a_batch": 8, "source_length": 64, "examples": {"a": n}}
    vectors = {"retrieval": {"accuracy": 0.9}, "silhouette": 0.5}
    return {"training": training, "mean_score": score, "test": {"a": {"accuracy": score}}, "vectors": vectors}


def pha_runs(gains):
    """Two seeds at n = 32 and 2000; the control scores .5 and PHA this much more, by size and seed."""
    runs = {}
    for n, by_seed in gains.items():
        for seed, gain in enumerate(by_seed):
            runs.setdefault(("pha", str(n)), {})[seed] = pha_metrics("pha", n, seed, 0.5 + gain)
            runs.setdefault(("no-contrast", str(n)), {})[seed] = pha_metrics("no-contrast", n, seed, 0.5)
    return runs


def test_intervals_by_hand():
    # Mean 2, standard deviation 1, so 1 / √3 · 4.303 to each side.
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2
    assert interval.high - 2 == pytest.approx(4.303 / 3**0.5)
    assert not interval.excludes_zero
    assert mean_interval([1.0]) == Interval(mean=1.0, low=None, high=None, n=1)
    assert not mean_interval([1.0]).excludes_zero
    paired = paired_interval({0: 1.0, 1: 2.0, 5: 9.0}, {0: 0.5, 1: 1.5, 7: 0.0})
    assert (paired.mean, paired.n) == (0.5, 2)
    with pytest.raises(ValueError, match="none in common"):
        paired_interval({0: 1.0}, {1: 1.0})


def test_several_comparisons_are_adjusted_for_their_number():
    samples = {"a": [1.0, 1.1, 1.2], "b": [1.0, 2.0, 3.0], "c": [0.3, 0.5, -0.1], "alone": [5.0]}
    found = holm_adjusted(samples)
    p = {name: its["p"] for name, its in found.items()}
    assert list(found) == ["a", "b", "c"]
    assert p["b"] == pytest.approx(2 * (1 - student_t.cdf(2 * 3**0.5, df=2)))
    assert p["a"] < p["b"] < p["c"]
    assert found["a"]["adjusted"] == pytest.approx(3 * p["a"])
    assert found["b"]["adjusted"] == pytest.approx(2 * p["b"])
    assert found["c"]["adjusted"] == pytest.approx(p["c"])
    # No later one is surer than one before it, and no chance is above one.
    near = holm_adjusted({"a": [1.0, -0.9, 0.2], "b": [1.0, -0.9, 0.21]})
    assert {its["adjusted"] for its in near.values()} == {1.0}


def test_the_gap_is_paired_by_seed_and_its_trend_is_fewest_less_most():
    found = pha_study(pha_runs({32: [0.10, 0.12], 2000: [0.02, 0.02]}))
    assert found["sizes"] == ["32", "2000"]
    assert found["gaps"]["no-contrast"]["32"]["mean"] == pytest.approx(0.11)
    assert found["gaps"]["no-contrast"]["2000"]["mean"] == pytest.approx(0.02)
    # (.10 − .02 and .12 − .02): mean .09, half-width 12.706 · (.01·√2 / √2).
    assert found["trend"]["mean"] == pytest.approx(0.09)
    assert found["trend"]["high"] - found["trend"]["mean"] == pytest.approx(12.706 * 0.01)


def test_the_card_calls_an_effect_an_effect_and_a_null_a_null():
    grew = pha_study(pha_runs({32: [0.10, 0.101], 2000: [0.02, 0.02]}))
    assert pha_verdict(grew).startswith("**The effect appeared**")
    level = pha_study(pha_runs({32: [0.10, 0.101], 2000: [0.10, 0.101]}))
    assert pha_verdict(level).startswith("**The effect appeared in part**")
    null = pha_study(pha_runs({32: [0.10, -0.10], 2000: [0.02, 0.02]}))
    assert pha_verdict(null).startswith("**The effect did not appear**")
    assert "+0.000 [" in pha_verdict(null)
    worse = pha_study(pha_runs({32: [-0.10, -0.101], 2000: [0.02, 0.02]}))
    assert "the other way round" in pha_verdict(worse)
    alone = {key: its for key, its in pha_runs({32: [0.1, 0.1]}).items() if key[0] == "pha"}
    assert "nothing is said" in pha_verdict(pha_study(alone))


def test_runs_that_differ_in_more_than_the_method_are_not_compared():
    runs = pha_runs({32: [0.1, 0.1]})
    runs["no-contrast", "32"][0]["training"]["steps"] = 20
    with pytest.raises(ValueError, match="differ in steps"):
        pha_study(runs)


def test_two_runs_of_one_kind_are_refused(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(pha_metrics("pha", 32, 0, 0.5)))
    with pytest.raises(ValueError, match="second run of pha"):
        read_pha_runs([tmp_path])


def task_moe_metrics(routes, seed, score, *, p=0.5, out=0.5, gain=0.0):
    training = {"routes": routes, "task_embedding": "random", "instruction": "off", "seed": seed, "steps": 5}
    training |= {"learning_rate": 1e-3, "dropout": 0.1, "source_length": 64, "rows": 8, "new_tasks": ["new"]}
    training |= {"adapt_steps": 2, "adapt_examples": 4}
    feature = {"r": 0.6, "p_value": p, "untrained_p_value": p}
    routes_told = {"entropy": 0.5, "mean_route_entropy": 1.0, "specialization": 0.5, "n_distinct_hard_routes": 3}
    knock_out = {"experts": [[0, 1]], "nll": {"p_value": out, "specificity": 0.2 if out < 0.05 else 0.0}}
    return {
        "training": training,
        "mean_score": score,
        "test": {"a": {"accuracy": score}, "b": {"token_f1": 0.01, "exact_match": 0.0}},
        "routes": routes_told | {"soft": {"features": {"extractive": feature}}},
        "knock_outs": {"extractive": knock_out},
        "new_tasks": {"new": {"zero_shot": score / 2 + gain, "adapted": score + gain}},
    }


def task_moe_runs(**changes):
    learned = {seed: task_moe_metrics("learned", seed, 0.6, **changes) for seed in range(3)}
    return {"learned": learned, "dense": {seed: task_moe_metrics("dense", seed, 0.5) for seed in range(2)}}


def test_gains_are_relative_and_paired_by_seed():
    found = task_moe_study(task_moe_runs())
    # (.6 − .5) / .5 on task a; task b scores below .02 with the control and is left out.
    assert found["gains"]["training tasks"]["dense"]["mean"] == pytest.approx(0.2)
    assert found["gains"]["training tasks"]["dense"]["n"] == 2
    assert found["gains"]["new tasks, adapted"]["dense"]["mean"] == pytest.approx(0.2)
    assert found["scores"]["learned"]["n"] == 3
    assert relative_gain({"a": 1.0}, {"a": 0.0}) is None


@pytest.mark.parametrize(
    ("p", "out", "words"),
    [(0.01, 0.01, "**appeared**"), (0.01, 0.5, "routes follow it, but"), (0.5, 0.01, "no more than chance"),
     (0.5, 0.5, "**did not appear**")],
)  # fmt: skip
def test_the_card_says_feature_by_feature_what_appeared(p, out, words):
    told = task_moe_verdict(task_moe_study(task_moe_runs(p=p, out=out)))
    assert words in told
    n = 3 if p < 0.05 else 0
    assert f"p < .05 in {n} of 3 seeds" in told
