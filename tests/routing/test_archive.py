"""Yesterday's traces open for ever, and hold what they held."""

from pathlib import Path

import numpy as np
import pytest

from routing import open_trace, verify_trace
from tests.archive.write_fixtures import (
    TEXTS,
    known_adapter_rows,
    known_adapters,
    known_arrays,
    known_facts,
    known_prompts,
    known_sites,
    known_vectors,
)

ARCHIVE = Path(__file__).resolve().parents[1] / "archive" / "v1"
OF_TOKENS = ("full", "assignments", "full-packed", "assignments-packed", "full-killed")


@pytest.mark.parametrize("name", OF_TOKENS)
def test_a_trace_of_version_1_opens(name):
    trace = open_trace(ARCHIVE / name)
    arrays = known_arrays()
    assert trace.n_tokens == 20
    assert trace.layers == ("L03", "L04")
    assert trace.layer_facts == tuple(known_facts())
    for part in ("experts", "scores", "weights", "dropped"):
        np.testing.assert_array_equal(getattr(trace, part).values, arrays[part], err_msg=part)
    if name.startswith("full"):
        np.testing.assert_array_equal(trace.logits.values, arrays["logits"])  # small integers, so exact in bfloat16
    else:
        assert trace.logits is None
    assert trace.tokens["position"].tolist() == arrays["position"].tolist()
    assert (trace.tokens["phase"] == "generated").tolist() == (arrays["phase"] == 1).tolist()
    np.testing.assert_array_equal(trace.tokens["nll"], arrays["nll"])
    assert trace.prompts["text"].tolist() == TEXTS
    assert trace.prompts["prediction"].fillna("-").tolist() == [" 4", " ?", "-"]
    assert trace.prompts["difficulty"].tolist() == known_prompts()["difficulty"].tolist()
    assert trace.vocabulary.loc[5] == " p5"
    assert trace.task_types == {"a": "maths", "b": "knowledge"}
    assert trace.provenance.seed == 7


@pytest.mark.parametrize("name", [name for name in OF_TOKENS if name != "full-killed"])
def test_its_checksums_and_invariants_hold(name):
    assert verify_trace(ARCHIVE / name) == []


def test_numbers_worked_out_by_hand():
    trace = open_trace(ARCHIVE / "full")
    # Token 3, second layer: 3·3 + 5·1 = 14, and 14 mod 8 = 6; the ranks after it follow.
    assert trace.experts.isel(token=3).sel(layer="L04").values.tolist() == [6, 7, 0]
    # 7·3 + 3·1 + 5·2 = 34, and 34 mod 11 − 5 = −4.
    assert float(trace.logits.isel(token=3).sel(layer="L04", expert=2)) == -4
    assert trace.dropped.sum("token").sel(layer="L04").values.tolist() == [0, 4]


def test_counts_of_version_1_open():
    trace = open_trace(ARCHIVE / "counts")
    assert (trace.level, trace.n_tokens, trace.tasks) == ("counts", 20, ("a", "b"))
    # Task b is the 8 tokens of prompt 1, two selected experts each.
    assert trace.counts.sel(task="b").sum("expert").values.tolist() == [16, 16]
    experts = known_arrays()["experts"][8:16, 0, :2]
    assert trace.counts.sel(task="b", layer="L03").values.tolist() == np.bincount(experts.ravel(), minlength=8).tolist()


def test_the_killed_trace_says_that_it_is_not_complete():
    assert not open_trace(ARCHIVE / "full-killed").provenance.complete
    assert open_trace(ARCHIVE / "full").provenance.complete


@pytest.mark.parametrize("name", ("adapters", "adapters-packed", "adapters-killed"))
def test_adapters_and_vectors_of_version_1_open(name):
    trace = open_trace(ARCHIVE / name)
    keys, parameters, conditioning = known_adapters()
    n_adapters = 8 if name == "adapters-killed" else len(keys)
    assert trace.adapters.sites == tuple(known_sites())
    assert trace.adapters.keys.to_numpy().tolist() == [list(key) for key in keys[:n_adapters]]
    np.testing.assert_array_equal(trace.adapters.parameters, parameters[:n_adapters])
    of = trace.adapters.conditioning["selection_embedding"]
    np.testing.assert_array_equal(of, conditioning["selection_embedding"][:n_adapters])
    rows = known_adapter_rows()
    index = np.where(rows["adapter_index"] >= n_adapters, -2, rows["adapter_index"])
    np.testing.assert_array_equal(trace.adapter_index, index)
    np.testing.assert_array_equal(trace.adapter_ratio, rows["adapter_ratio"])
    assert trace.vectors["instance"].identical(known_vectors()["instance"])
    said = " ".join(verify_trace(trace.path))
    assert ("does not hold" in said) == (name == "adapters-killed")
    assert name == "adapters-killed" or said == ""


def test_fixtures_are_small():
    for folder in ARCHIVE.iterdir():
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 60_000, folder.name
