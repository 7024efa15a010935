"""Adapters and vectors: by hand, stored, killed, joined, selected; and what is refused."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from routing import (
    AdapterSite,
    RecordingError,
    Selection,
    TokenBatch,
    TraceError,
    TraceWriter,
    adapters_of,
    expert_name,
    flattened_adapter,
    open_trace,
    pack_trace,
    recover_trace,
    save_trace,
    selected_set_key,
    summary,
    verify_trace,
    violations,
)
from routing.adapters import stored_parameters
from tests.adapter_traces import N_PARAMETERS, hyper_moe_trace, pha_trace, site_of, task_moe_trace
from tests.stored import batch_of, require_same, writer_for
from tests.traces import facts_of, random_trace, trace_of

MAKERS = {
    "hyper_moe": hyper_moe_trace,
    "pha": pha_trace,
    "task_moe": task_moe_trace,
    "soft": lambda: task_moe_trace(soft=True),
}


def tiny(**parts):
    """Three tokens that select {0, 1}, {0, 1}, {1, 2} of three experts, and an adapter for each set."""
    sites = [AdapterSite(label="L00", hidden=2, width=1, n_parameters=7, made_from="selected_set")]
    keys = pd.DataFrame({"site": ["L00", "L00"], "key": ["0 1", "1 2"]})
    given = {
        "adapters": adapters_of(sites, keys, np.arange(14.0).reshape(2, 7)),
        "adapter_index": [[0], [0], [1]],
        "adapter_ratio": [[0.5], [0.25], [1.0]],
    }
    return trace_of([[0, 1], [1, 0], [2, 1]], n_experts=3, weights=[[0.6, 0.4]] * 3, **(given | parts))


def writer_of(trace, path, **options):
    return writer_for(trace, path, adapter_sites=trace.adapters.sites, **options)


def rows_of(trace, start, stop):
    keys = list(trace.adapters.keys.iloc[start:stop].itertuples(index=False, name=None))
    of = {name: values[start:stop].values for name, values in trace.adapters.conditioning.items()}
    return keys, trace.adapters.parameters[start:stop].values, of


def require_same_adapters(one, other):
    if one.adapters is None:
        assert other.adapters is None
    else:
        assert one.adapters.sites == other.adapters.sites
        assert one.adapters.table.equals(other.adapters.table)
        np.testing.assert_array_equal(one.adapters.parameters, other.adapters.parameters)
        assert list(one.adapters.conditioning) == list(other.adapters.conditioning)
        for name, values in one.adapters.conditioning.items():
            np.testing.assert_array_equal(values, other.adapters.conditioning[name])
    assert one.vectors.keys() == other.vectors.keys()
    for name, table in one.vectors.items():
        assert table.identical(other.vectors[name]), name


def test_uses_are_counted_by_hand():
    trace = tiny()
    assert trace.adapters.table.to_numpy().tolist() == [["L00", "0 1", 2], ["L00", "1 2", 1]]
    assert trace.adapter_index.sel(site="L00").values.tolist() == [0, 0, 1]
    (chunk,) = trace.chunks(fields=("adapter_index", "adapter_ratio"))
    assert chunk.experts is None
    assert chunk.adapter_ratio[:, 0].tolist() == [0.5, 0.25, 1.0]


def test_flattening_is_the_documented_order():
    down, up = np.array([[1, 2], [3, 4], [5, 6]]), np.array([[7, 8, 9], [10, 11, 12]])
    flat = flattened_adapter(down, up, np.array([13, 14]), np.array([15, 16, 17]))
    assert flat.tolist() == list(range(1, 18))
    assert flattened_adapter(down, up).tolist()[12:] == [0] * 5
    assert selected_set_key([7, 3]) == "3 7"


@pytest.mark.parametrize("name", list(MAKERS))
def test_saving_and_packing_keep_everything(tmp_path, name):
    trace = MAKERS[name]()
    raw = open_trace(save_trace(trace, tmp_path / "raw", chunk_tokens=16))
    packed = open_trace(pack_trace(raw, tmp_path / "packed"))
    again = open_trace(save_trace(packed, tmp_path / "again"))
    for stored in (raw, packed, again):
        require_same(trace, stored)
        require_same_adapters(trace, stored)
        assert stored.expert_names == trace.expert_names
        assert verify_trace(stored.path) == []
    assert packed.digest == raw.digest == again.digest


def test_the_digest_knows_adapters_and_vectors(tmp_path):
    one, other = hyper_moe_trace(), hyper_moe_trace()
    other.vectors["expert_embedding"].values[0, 0, 0] += 1
    assert one.digest != other.digest
    assert tiny().digest != tiny(adapter_index=[[0], [0], [-1]], adapter_ratio=None).digest
    digests = {open_trace(save_trace(each, tmp_path / str(n))).digest for n, each in enumerate((one, other, tiny()))}
    assert len(digests) == 3


def test_a_large_adapter_is_projected_and_says_so(tmp_path):
    rng = np.random.default_rng(0)
    sites = [AdapterSite(label="dec00", hidden=64, width=32, n_parameters=4192, made_from="task")]
    values = rng.normal(0, 1, (3, 4192))
    values[1] = values[0] + 0.5 * values[1]
    keys = pd.DataFrame({"site": "dec00", "key": ["a", "b", "c"]})
    adapters = adapters_of(sites, keys, values, max_parameters=1024, seed=3)
    assert adapters.projected
    assert adapters.parameters.attrs == {
        "unit": "parameter", "projected": True, "n_parameters_full": 4192, "seed": 3,
    }  # fmt: skip
    kept = adapters.parameters.values
    full = np.corrcoef(values)
    # A cosine of projections is off by about 1/sqrt(1024).
    np.testing.assert_allclose(np.corrcoef(kept), full, atol=4 / 32)
    np.testing.assert_array_equal(kept, stored_parameters(values, max_parameters=1024, seed=3))
    assert (kept != stored_parameters(values, max_parameters=1024, seed=4)).any()
    trace = trace_of([[0], [1]], adapters=adapters, adapter_index=[[0], [2]])
    raw = open_trace(save_trace(trace, tmp_path / "raw"))
    packed = open_trace(pack_trace(raw, tmp_path / "packed"))
    for stored in (raw, packed):
        require_same_adapters(trace, stored)
        assert "1,024 random projections kept" in summary(stored).adapters
        assert verify_trace(stored.path) == []
    with TraceWriter(
        tmp_path / "streamed", layer_facts=facts_of(1), adapter_sites=sites, adapter_seed=3, max_adapter_parameters=1024
    ) as writer:
        writer.add_adapters([("dec00", "a"), ("dec00", "b"), ("dec00", "c")], values)
    np.testing.assert_array_equal(open_trace(tmp_path / "streamed").adapters.parameters, kept)


def test_a_projection_is_right_on_average():
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (2, 200))
    exact = float(values[0] @ values[1])
    found = [np.prod(stored_parameters(values, max_parameters=50, seed=seed), axis=0).sum() for seed in range(300)]
    assert abs(np.mean(found) - exact) < 4 * np.std(found) / np.sqrt(300)


def test_a_killed_run_says_which_adapters_are_missing(tmp_path):
    trace = hyper_moe_trace()
    writer = writer_of(trace, tmp_path / "killed", chunk_tokens=8)
    writer.add_adapters(rows_of(trace, 0, 5)[0], rows_of(trace, 0, 5)[1], conditioning=rows_of(trace, 0, 5)[2])
    writer.append(batch_of(trace, 0, 100))
    writer.add_adapters(rows_of(trace, 5, 12)[0], rows_of(trace, 5, 12)[1], conditioning=rows_of(trace, 5, 12)[2])
    # No close: this is what a kill leaves.
    stored = open_trace(tmp_path / "killed")
    assert len(stored.adapters) == 12
    expected = np.where(trace.adapter_index.values[:100] >= 12, -2, trace.adapter_index.values[:100])
    np.testing.assert_array_equal(stored.adapter_index, expected)
    np.testing.assert_array_equal(stored.adapters.parameters, trace.adapters.parameters.values[:12])
    assert any("does not hold" in each for each in verify_trace(stored.path))
    writer._log.close()
    digest = stored.digest
    assert recover_trace(tmp_path / "killed") == 100
    recovered = open_trace(tmp_path / "killed")
    assert recovered.digest == digest
    require_same_adapters(stored, recovered)


def test_a_torn_or_changed_end_of_the_dictionary_is_left_out(tmp_path):
    trace = hyper_moe_trace()
    writer = writer_of(trace, tmp_path / "killed")
    for start in (0, 4, 8):
        keys, parameters, of = rows_of(trace, start, start + 4)
        writer.add_adapters(keys, parameters, conditioning=of)
    writer.append(batch_of(trace, 0, 50))
    log = tmp_path / "killed" / "adapters" / "commits.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[:-9])
    assert len(open_trace(tmp_path / "killed").adapters) == 8
    log.write_bytes(whole)
    chunk = tmp_path / "killed" / "adapters" / "parameters" / "c" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[11 * 4 * N_PARAMETERS] ^= 1  # within the last batch
    chunk.write_bytes(content)
    assert len(open_trace(tmp_path / "killed").adapters) == 8
    writer.close()
    assert any("Adapters 8 to 12 are not what was written" in each for each in verify_trace(tmp_path / "killed"))


def test_wherever_the_dictionary_is_cut_off_what_is_left_is_right(tmp_path):
    trace = hyper_moe_trace()
    writer = writer_of(trace, tmp_path / "killed")
    for start in range(0, 12, 3):
        keys, parameters, of = rows_of(trace, start, start + 3)
        writer.add_adapters(keys, parameters, conditioning=of)
    writer.append(batch_of(trace, 0, 40))
    log = tmp_path / "killed" / "adapters" / "commits.jsonl"
    whole, index = log.read_bytes(), trace.adapter_index.values[:40]
    for cut in range(0, len(whole), 17):
        log.write_bytes(whole[:cut])
        stored = open_trace(tmp_path / "killed")
        n = len(stored.adapters)
        assert n == 3 * whole[:cut].count(b"\n")
        assert stored.adapters.keys.equals(trace.adapters.keys.iloc[:n])
        np.testing.assert_array_equal(stored.adapters.parameters, trace.adapters.parameters.values[:n])
        np.testing.assert_array_equal(stored.adapter_index, np.where(index >= n, -2, index))
        assert violations(stored) == []
    writer.close()


def test_an_adapter_left_out_on_purpose_is_no_fault(tmp_path):
    trace = tiny(adapter_index=[[0], [0], [-2]])
    stored = open_trace(save_trace(trace, tmp_path / "trace"))
    assert stored.adapter_index.values.ravel().tolist() == [0, 0, -2]
    assert stored.adapters.table["n_uses"].tolist() == [2, 0]
    assert verify_trace(stored.path) == []


def test_adapters_may_come_after_their_rows(tmp_path):
    trace = pha_trace()
    with writer_of(trace, tmp_path / "late") as writer:
        writer.append(batch_of(trace, 0, trace.n_tokens))
        writer.set_vectors(trace.vectors)
        keys, parameters, of = rows_of(trace, 0, len(trace.adapters))
        assert writer.add_adapters(keys, parameters, conditioning=of).tolist() == list(range(len(keys)))
    stored = open_trace(tmp_path / "late")
    require_same(trace, stored)
    require_same_adapters(trace, stored)


def test_changed_vectors_are_found(tmp_path):
    path = save_trace(pha_trace(), tmp_path / "trace")
    table = path / "vectors" / "prototype.npy"
    content = bytearray(table.read_bytes())
    content[-1] ^= 1
    table.write_bytes(content)
    assert any("'prototype'" in each for each in verify_trace(path))
    with pytest.raises(TraceError, match="prototype"):
        _ = open_trace(path).vectors


def test_parts_are_joined(tmp_path):
    trace = hyper_moe_trace()
    half = 72
    for number, (start, stop) in enumerate(((0, half), (half, trace.n_tokens))):
        part = trace.select(Selection(prompts=tuple(trace.prompts["prompt"][9 * number : 9 * number + 9])))
        # Each part knows the adapters that it met, in its own order.
        met = np.unique(part.adapter_index.values)[::-1]
        batch = batch_of(part, 0, stop - start)
        with writer_of(part, tmp_path / "run" / f"part-{number}") as writer:
            order = {int(old): new for new, old in enumerate(met)}
            index = np.vectorize(order.get)(batch.adapter_index).astype(np.int32)
            writer.append(TokenBatch(**{**batch.__dict__, "adapter_index": index}))
            keys = [tuple(part.adapters.keys.iloc[row]) for row in met]
            of = {name: values.values[met] for name, values in part.adapters.conditioning.items()}
            writer.add_adapters(keys, part.adapters.parameters.values[met], conditioning=of)
            writer.set_vectors(part.vectors)
    joined = open_trace(tmp_path / "run")
    assert violations(joined) == []
    one = trace.adapters.table.set_index(["site", "key"])["n_uses"].sort_index()
    assert one.equals(joined.adapters.table.set_index(["site", "key"])["n_uses"].sort_index())
    kept = trace.adapters.parameters.values[trace.adapter_index.values[:, 1]]
    np.testing.assert_array_equal(joined.adapters.parameters.values[joined.adapter_index.values[:, 1]], kept)
    assert joined.vectors["expert_embedding"].identical(trace.vectors["expert_embedding"])


def test_instance_vectors_of_parts_are_joined(tmp_path):
    trace = pha_trace()
    for number in range(2):
        part = trace.select(Selection(prompts=tuple(trace.prompts["prompt"][28 * number : 28 * number + 28])))
        save_trace(part, tmp_path / "run" / f"part-{number}")
    joined = open_trace(tmp_path / "run")
    assert joined.vectors["instance"].identical(trace.vectors["instance"])
    require_same_adapters(trace, joined)


def test_a_selection_takes_its_sites_and_vectors_along():
    trace = hyper_moe_trace()
    part = trace.select(Selection(tasks=("facts",), layers=("L02",)))
    assert violations(part) == []
    assert [site.label for site in part.adapters.sites] == ["L02"]
    assert part.adapters.table["n_uses"].sum() == part.n_tokens
    rows = trace.tokens["prompt"].isin(np.flatnonzero(trace.prompts["task"] == "facts")).to_numpy()
    kept = trace.adapters.parameters.values[trace.adapter_index.values[rows, 1]]
    np.testing.assert_array_equal(part.adapters.parameters.values[part.adapter_index.values[:, 0]], kept)
    assert part.vectors["expert_embedding"].sizes["layer"] == 1
    # A site that bears no layer's label stays.
    retriever = pha_trace().select(Selection(tasks=("spans",)))
    assert [site.label for site in retriever.adapters.sites] == ["dec00", "dec01"]
    assert retriever.vectors["instance"].sizes == {"prompt": 8, "feature": 8}
    assert retriever.vectors["prototype"].sizes["prototype"] == 6


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"adapter_index": [[0], [0], [2]]}, "outside the table"),
        ({"adapter_index": [[0], [0], [-3]]}, "outside the table"),
        ({"adapter_index": [[0], [1], [1]]}, "was used where 0 1 were selected"),
        ({"adapter_index": [[0], [0], [-1]]}, "a ratio, but no adapter"),
        ({"adapter_ratio": [[0.5], [-1.0], [1.0]]}, "negative or infinite"),
        ({"adapter_ratio": [[0.5], [np.inf], [1.0]]}, "negative or infinite"),
        ({"vectors": {"v": xr.DataArray(np.array([np.inf]), dims=("x",))}}, "infinite"),
    ],
)
def test_what_is_wrong_is_said(parts, message):
    with pytest.raises(TraceError, match=message):
        tiny(**parts)


def test_adapters_of_another_site_are_found():
    sites = [site_of("dec00", 0, made_from="task"), site_of("dec01", 1, made_from="task")]
    keys = pd.DataFrame({"site": ["dec00", "dec01"], "key": ["task", "task"]})
    adapters = adapters_of(sites, keys, np.zeros((2, N_PARAMETERS)))
    with pytest.raises(TraceError, match="another site"):
        trace_of([[0]], adapters=adapters, adapter_index=[[1, 1]])
    unknown = adapters_of(sites, keys.assign(site="dec09"), np.zeros((2, N_PARAMETERS)))
    with pytest.raises(TraceError, match="dec09"):
        trace_of([[0]], adapters=unknown)
    twice = adapters_of(sites, keys.assign(site="dec00"), np.zeros((2, N_PARAMETERS)))
    with pytest.raises(TraceError, match="there twice"):
        trace_of([[0]], adapters=twice)


def test_the_writer_refuses_what_does_not_fit(tmp_path):
    trace = hyper_moe_trace()
    keys, parameters, of = rows_of(trace, 0, 2)
    plain = writer_for(random_trace(seed=0), tmp_path / "plain")
    with pytest.raises(RecordingError, match="without sites"):
        plain.add_adapters(keys, parameters)
    writer = writer_of(trace, tmp_path / "trace")
    with pytest.raises(RecordingError, match="adapter_index"):
        writer.append(TokenBatch(**{**batch_of(trace, 0, 4).__dict__, "adapter_index": None}))
    with pytest.raises(RecordingError, match="none of the sites"):
        writer.add_adapters([("L09", "0 1")], parameters[:1])
    with pytest.raises(RecordingError, match="same site and key"):
        writer.add_adapters([keys[0], keys[0]], parameters)
    with pytest.raises(RecordingError, match="not finite"):
        writer.add_adapters(keys, np.full_like(parameters, np.nan))
    with pytest.raises(RecordingError, match="shape"):
        writer.add_adapters(keys, parameters[:, :-1])
    writer.add_adapters(keys, parameters, conditioning=of)
    with pytest.raises(RecordingError, match="is there already"):
        writer.add_adapters(keys, parameters, conditioning=of)
    with pytest.raises(RecordingError, match="same arrays"):
        writer.add_adapters(rows_of(trace, 2, 4)[0], parameters)
    for name, table in (("a b", xr.DataArray([1.0])), ("text", xr.DataArray(["a"])), ("inf", xr.DataArray([np.inf]))):
        with pytest.raises(RecordingError):
            writer.set_vectors({name: table})
    writer.close()
    assert len(open_trace(tmp_path / "trace").adapters) == 2


def test_dense_routing_and_names():
    assert task_moe_trace(soft=True).dense_routing
    assert not task_moe_trace().dense_routing
    assert not trace_of([[0], [0]], n_experts=1).dense_routing
    trace = pha_trace()
    assert expert_name("retriever", 1, names=trace.expert_names) == "retriever·sentiment"
    assert expert_name("retriever", 1) == expert_name("retriever", 1, names={"L00": ("a",)}) == "retriever·E1"
    with pytest.raises(TraceError, match="names 1 of 4 experts"):
        trace_of([[0]], layer_facts=facts_of(1, n_experts=4, top_k=1, expert_names=["a"]))
