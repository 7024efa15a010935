"""What is written is what is read."""

import json
import threading

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routing import (
    Provenance,
    RecordingError,
    TraceError,
    TraceWriter,
    from_bfloat16,
    open_trace,
    pack_trace,
    save_trace,
    to_bfloat16,
    trace_from_counts,
    verify_trace,
)
from tests.stored import append_all, batch_of, require_same, writer_for
from tests.traces import encoder_decoder_trace, facts_of, planted_trace, random_trace, texts, trace_of, traces

FILES = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(trace=traces(), n_batch=st.integers(1, 50), chunk=st.integers(1, 50))
@FILES
def test_any_trace_in_any_batches_and_chunks(tmp_path_factory, trace, n_batch, chunk):
    folder = tmp_path_factory.mktemp("trace")
    with writer_for(trace, folder / "raw", chunk_tokens=chunk) as writer:
        append_all(writer, trace, n_tokens_a_batch=n_batch)
    stored = open_trace(folder / "raw")
    require_same(trace, stored)
    assert verify_trace(folder / "raw") == []
    pack_trace(stored, folder / "packed")
    require_same(trace, open_trace(folder / "packed"))
    assert open_trace(folder / "packed").digest == stored.digest


@pytest.mark.parametrize("make", [planted_trace, encoder_decoder_trace, random_trace])
def test_saving_and_packing_keep_everything(tmp_path, make):
    trace = make(seed=1)
    raw = open_trace(save_trace(trace, tmp_path / "raw", chunk_tokens=64))
    packed = open_trace(pack_trace(trace, tmp_path / "packed"))
    for stored in (raw, packed):
        require_same(trace, stored)
        assert stored.vocabulary.equals(trace.vocabulary)
        assert stored.provenance == trace.provenance
        assert (stored.tasks, stored.task_types) == (trace.tasks, trace.task_types)
        assert verify_trace(stored.path) == []
    assert packed.digest == trace.digest


def test_a_single_token_is_read_without_the_rest(tmp_path):
    trace = random_trace(seed=0, n_tokens=100)
    stored = open_trace(save_trace(trace, tmp_path / "run", chunk_tokens=16))
    assert stored.experts.isel(token=37).values.tolist() == trace.experts.values[37].tolist()
    rows = np.array([99, 3, 3, 50])
    np.testing.assert_array_equal(stored.scores.isel(token=rows).values, trace.scores.values[rows])
    many = np.random.default_rng(0).integers(0, 100, 90)
    np.testing.assert_array_equal(stored.logits.isel(token=many).values, trace.logits.values[many])
    with pytest.raises(IndexError):
        stored.experts.isel(token=100).load()


@pytest.mark.parametrize(
    "rows",
    [[], [99], range(12, 40), [3, 4, 5, 4, 3], [14, 15, 16, 17, 2, 2, 3, 99, 98], range(99, -1, -1), [-1, 0, 1, -2]],
    ids=str,
)
def test_runs_of_rows_come_in_the_order_asked_for(tmp_path, rows):
    trace = random_trace(seed=0, n_tokens=100)
    stored = open_trace(save_trace(trace, tmp_path / "run", chunk_tokens=16))
    held = stored.storage.rows("experts")
    np.testing.assert_array_equal(held.take(np.array(rows, dtype=int)), trace.experts.values[list(rows)])


def test_scans_read_views_of_the_mapped_file(tmp_path):
    stored = open_trace(save_trace(random_trace(seed=0, n_tokens=100), tmp_path / "run"))
    chunk = next(iter(stored.chunks()))
    assert not chunk.experts.flags.owndata
    assert not chunk.experts.flags.writeable


def test_opening_reads_the_header_alone(tmp_path):
    path = save_trace(random_trace(seed=0), tmp_path / "run")
    for each in sorted(path.rglob("*"), reverse=True):
        if each.is_file() and each.name != "header.json":
            each.unlink()
    stored = open_trace(path)
    assert stored.layers == ("L00", "L01", "L02")
    assert stored.provenance.complete is not None if (path / "commits.jsonl").exists() else True
    with pytest.raises(TraceError, match=r"commits\.jsonl cannot be read"):
        _ = stored.n_tokens


def test_bfloat16_logits_come_back_as_float32(tmp_path):
    trace = random_trace(seed=0, n_tokens=40)
    with writer_for(trace, tmp_path / "run", logits_dtype="bfloat16", chunk_tokens=16) as writer:
        append_all(writer, trace, n_tokens_a_batch=11)
    stored = open_trace(tmp_path / "run")
    assert stored.logits.dtype == np.float32
    expected = from_bfloat16(to_bfloat16(trace.logits.values))
    np.testing.assert_array_equal(stored.logits.values, expected)
    assert json.loads((tmp_path / "run/trace.zarr/logits/zarr.json").read_text())["attributes"] == {
        "encoding": "bfloat16"
    }
    packed = open_trace(pack_trace(stored, tmp_path / "packed"))
    np.testing.assert_array_equal(packed.logits.values, expected)


@given(values=st.lists(st.floats(width=32), min_size=1, max_size=30))
@settings(deadline=None)
def test_bfloat16_rounds_like_torch(values):
    torch = pytest.importorskip("torch")
    array = np.array(values, dtype=np.float32)
    oracle = torch.from_numpy(array).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(from_bfloat16(to_bfloat16(array)), oracle)


@given(words=st.lists(texts, min_size=1, max_size=5))
@FILES
def test_any_text_comes_back(tmp_path_factory, words):
    trace = trace_of(
        [[0, 1]] * len(words),
        prompts=range(len(words)),
        tasks=[f"task {word}" for word in words],
        vocabulary=dict(enumerate(words)),
    )
    trace.prompts["text"] = trace.prompts["target"] = pd.Series(words, dtype="str")
    folder = tmp_path_factory.mktemp("trace")
    for stored in (save_trace(trace, folder / "raw"), pack_trace(trace, folder / "packed")):
        read = open_trace(stored)
        assert read.prompts["text"].tolist() == words
        assert read.vocabulary.tolist() == words
        assert read.tasks == trace.tasks


def test_markup_and_control_characters_come_back(tmp_path):
    nasty = "<script>alert(1)</script>\x00\x07\u202e\u2028\r\n\t&amp; \U0001f9ff e\u0301"
    trace = trace_of([[0, 1]], tasks=[nasty], vocabulary={7: nasty})
    trace.prompts["text"] = pd.Series([nasty], dtype="str")
    read = open_trace(save_trace(trace, tmp_path / "run"))
    assert read.prompts["text"].tolist() == [nasty] == read.vocabulary.tolist() == list(read.tasks)


def test_half_a_surrogate_pair_is_refused(tmp_path):
    trace = trace_of([[0, 1]])
    trace.prompts["text"] = pd.Series(["\ud800"], dtype=object)
    with pytest.raises(TraceError, match="column 'text' is not Unicode"):
        save_trace(trace, tmp_path / "run")


def test_predictions_and_scores_may_arrive_late(tmp_path):
    trace = random_trace(seed=0, n_prompts=3)
    prompts = trace.prompts.copy()
    with writer_for(trace, tmp_path / "run") as writer:
        append_all(writer, trace, n_tokens_a_batch=50)
        before = open_trace(tmp_path / "run").digest
        prompts["prediction"], prompts["score"] = " yes", [1.0, np.nan, 0.5]
        prompts["n_words"] = [1, 2, 3]
        writer.set_prompts(prompts)
        with pytest.raises(RecordingError, match="has 1 rows, but 3 were set"):
            writer.set_prompts(prompts.iloc[:1])
    stored = open_trace(tmp_path / "run")
    assert stored.prompts["score"].fillna(-1).tolist() == [1, -1, 0.5]
    assert stored.prompts["n_words"].tolist() == [1, 2, 3]
    assert stored.digest != before
    assert verify_trace(tmp_path / "run") == []


def begun_with_one_prompt(trace, path):
    """A writer that knows one prompt of a trace and has its tokens, and their number."""
    first = int((trace.tokens["prompt"] == 0).sum())
    writer = TraceWriter(path, layer_facts=trace.layer_facts, n_ranks=trace.n_ranks, logits_dtype="float32")
    writer.set_prompts(trace.prompts.iloc[:1])
    writer.append(batch_of(trace, 0, first))
    return writer, first


def test_rows_of_announced_prompts_are_whole_with_the_table(tmp_path):
    trace = random_trace(seed=0, n_prompts=3)
    late, first = begun_with_one_prompt(trace, tmp_path / "late")
    with late:
        with pytest.raises(RecordingError, match="the table has 1 prompts"):
            late.append(batch_of(trace, first, trace.n_tokens))
        late.announce_prompts(trace.prompts["prompt"].tolist()[1:])
        late.append(batch_of(trace, first, first + 1))
        late.append(batch_of(trace, first + 1, trace.n_tokens))
        assert (late.n_tokens, open_trace(tmp_path / "late").n_tokens) == (first, first)
        late.set_prompts(trace.prompts)
        assert open_trace(tmp_path / "late").n_tokens == trace.n_tokens
    require_same(trace, open_trace(tmp_path / "late"))
    assert verify_trace(tmp_path / "late") == []


def test_rows_whose_table_never_came_are_no_part_of_the_trace(tmp_path):
    trace = random_trace(seed=0, n_prompts=3)
    writer, first = begun_with_one_prompt(trace, tmp_path / "run")
    with writer:
        writer.announce_prompts(trace.prompts["prompt"].tolist()[1:])
        writer.append(batch_of(trace, first, trace.n_tokens))
    stored = open_trace(tmp_path / "run")
    assert not stored.provenance.complete
    assert stored.n_tokens == first
    assert stored.tokens.equals(trace.tokens.iloc[:first])
    np.testing.assert_array_equal(stored.experts.values, trace.experts.values[:first])


def test_a_running_trace_can_be_read(tmp_path):
    trace = random_trace(seed=0, n_tokens=100)
    writer = writer_for(trace, tmp_path / "run", chunk_tokens=32)
    writer.append(batch_of(trace, 0, 40))
    running = open_trace(tmp_path / "run")
    require_same(trace, running, n_tokens=40)
    assert not running.provenance.complete
    writer.append(batch_of(trace, 40, 100))
    assert running.n_tokens == 40
    require_same(trace, open_trace(tmp_path / "run"))
    writer.close()
    require_same(trace, open_trace(tmp_path / "run"))


def test_scores_may_arrive_from_another_thread(tmp_path):
    trace = random_trace(seed=0, n_tokens=200)
    writer = writer_for(trace, tmp_path / "run", chunk_tokens=16)
    threads = [
        threading.Thread(target=lambda: [writer.set_prompts(trace.prompts) for _ in range(5)]),
        threading.Thread(target=lambda: append_all(writer, trace, n_tokens_a_batch=10)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    require_same(trace, open_trace(tmp_path / "run"))
    assert verify_trace(tmp_path / "run") == []


def test_an_exception_leaves_a_readable_trace_that_says_so(tmp_path):
    trace = random_trace(seed=0, n_tokens=100)
    with pytest.raises(KeyboardInterrupt), writer_for(trace, tmp_path / "run") as writer:  # noqa: PT012
        writer.append(batch_of(trace, 0, 30))
        raise KeyboardInterrupt
    stored = open_trace(tmp_path / "run")
    require_same(trace, stored, n_tokens=30)
    assert not stored.provenance.complete
    assert verify_trace(tmp_path / "run") == ["The run did not come to its end; what was committed is the trace."]


def test_counts_are_kept_without_tokens(tmp_path):
    facts = facts_of(2, n_experts=3, top_k=1)
    counts = np.arange(12).reshape(2, 2, 3)
    with TraceWriter(tmp_path / "run", layer_facts=facts, level="counts") as writer:
        writer.set_prompts(pd.DataFrame({"prompt": ["a", "b"], "task": ["x", "y"]}))
        writer.set_counts(counts, tasks=["x", "y"], n_tokens=40)
        with pytest.raises(RecordingError, match="keeps no tokens"):
            writer.append(batch_of(random_trace(seed=0), 0, 1))
        with pytest.raises(RecordingError, match="Counts of shape"):
            writer.set_counts(counts[:, :1], tasks=["x", "y"], n_tokens=40)
    stored = open_trace(tmp_path / "run")
    assert stored.counts.sel(task="y", layer="L01").values.tolist() == [9, 10, 11]
    assert (stored.n_tokens, stored.level, len(stored.tokens), stored.experts) == (40, "counts", 0, None)
    packed = open_trace(pack_trace(stored, tmp_path / "packed"))
    assert packed.counts.equals(stored.counts)
    memory = trace_from_counts(counts, layer_facts=facts, tasks=["x", "y"], n_tokens=40)
    assert open_trace(save_trace(memory, tmp_path / "saved")).counts.equals(memory.counts)


def test_the_token_table_is_there_for_readers_of_parquet(tmp_path):
    trace = encoder_decoder_trace()
    path = save_trace(trace, tmp_path / "run", chunk_tokens=16)
    assert len(list((path / "tokens").glob("part-*.parquet"))) == 5  # 66 tokens
    table = pq.read_table(path / "tokens").to_pandas()
    assert table["token"].tolist() == list(range(66))
    for name in trace.tokens:
        np.testing.assert_array_equal(table[name].astype(trace.tokens[name].dtype), trace.tokens[name])


@pytest.mark.parametrize("form", [save_trace, pack_trace])
def test_zarr_and_xarray_open_the_same_files(tmp_path, form):
    trace = encoder_decoder_trace()
    path = form(trace, tmp_path / "run") / "trace.zarr"
    assert zarr.open_group(path, mode="r")["weights"].metadata.dimension_names == ("token", "layer", "selected_rank")
    opened = xr.open_zarr(path, consolidated=False)
    for name in ("experts", "scores", "weights", "dropped", "logits"):
        np.testing.assert_array_equal(opened[name].values, getattr(trace, name).values)
    assert opened["experts"].dims == ("token", "layer", "rank")
    assert opened.attrs["layers"] == list(trace.layers)
    np.testing.assert_array_equal(opened["prompt"].values, trace.tokens["prompt"])


def test_zarr_sees_the_full_chunks_of_a_running_trace(tmp_path):
    trace = random_trace(seed=0, n_tokens=100)
    writer = writer_for(trace, tmp_path / "run", chunk_tokens=32)
    append_all(writer, trace, n_tokens_a_batch=25)
    seen = zarr.open_group(tmp_path / "run" / "trace.zarr", mode="r")["experts"]
    assert seen.shape[0] == 96
    np.testing.assert_array_equal(seen[:], trace.experts.values[:96])


def test_a_small_trace_is_small_on_disk(tmp_path):
    # A chunk is 65,536 rows of 18 bytes; 50 tokens must not take a megabyte of zeros along.
    path = save_trace(random_trace(seed=0, n_tokens=50), tmp_path / "run")
    assert (path / "trace.zarr/experts/c/0/0/0").stat().st_size == 50 * 3 * 4


def test_rounded_scores_keep_their_order_and_make_a_smaller_folder(tmp_path):
    trace = random_trace(seed=0, n_tokens=2000, with_logits=False)
    sizes = {}
    for bits in (10, 4, 0):
        path = pack_trace(trace, tmp_path / str(bits), score_mantissa_bits=bits)
        sizes[bits] = sum(each.stat().st_size for each in (path / "trace.zarr/scores").rglob("*") if each.is_file())
        scores = open_trace(path).scores.values.astype(np.float32)
        assert (np.diff(scores, axis=2) <= 0).all()
        np.testing.assert_allclose(scores, trace.scores.values, rtol=2.0 ** -(bits + 1))
    assert sizes[10] > sizes[4] > sizes[0]
    with pytest.raises(TraceError, match="0 to 10"):
        pack_trace(trace, tmp_path / "x", score_mantissa_bits=11)


def test_provenance_is_completed_at_the_end(tmp_path):
    trace = random_trace(seed=0)
    writer = writer_for(trace, tmp_path / "run", provenance=Provenance(model="tiny", seed=3))
    append_all(writer, trace, n_tokens_a_batch=64)
    writer.close(finished="2026-11-22T10:00:00+00:00", self_check={"replay": "passed"})
    writer.close()
    made = open_trace(tmp_path / "run").provenance
    assert (made.model, made.complete, made.n_tokens, made.self_check) == ("tiny", True, 120, {"replay": "passed"})
    assert made.n_bytes == writer.n_bytes > 0
