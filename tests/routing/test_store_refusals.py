"""What the store will not take, and what it will not open."""

import json

import numpy as np
import pandas as pd
import pytest

from routing import RecordingError, TraceError, TraceWriter, open_trace, pack_trace, save_trace, verify_trace
from routing.store.batch import TokenBatch
from tests.stored import batch_of, writer_for
from tests.traces import encoder_decoder_trace, facts_of, random_trace

TRACE = random_trace(seed=0, n_tokens=50)


def changed(batch: TokenBatch, **parts) -> TokenBatch:
    return TokenBatch(**(batch.__dict__ | parts))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_nan_logits_are_refused_with_layer_and_prompt(tmp_path, dtype):
    writer = writer_for(TRACE, tmp_path / "run", logits_dtype=dtype)
    batch = batch_of(TRACE, 10, 50)
    batch.logits[20, 1, 3] = np.nan
    prompt = TRACE.prompts["prompt"][int(batch.prompt[20])]
    with pytest.raises(RecordingError, match=f"layer L01 gave NaN logits for prompt '{prompt}', position"):
        writer.append(batch)
    writer.append(batch_of(TRACE, 0, 10))
    writer.close()
    assert open_trace(tmp_path / "run").n_tokens == 10


def test_nan_weights_are_refused_where_logits_are_not_kept(tmp_path):
    trace = random_trace(seed=0, with_logits=False)
    batch = batch_of(trace, 0, 10)
    batch.weights[4, 2, 0] = np.nan
    with writer_for(trace, tmp_path / "run") as writer, pytest.raises(RecordingError, match="L02 gave NaN weights"):
        writer.append(batch)


def test_nan_where_a_layer_does_not_route_is_no_fault(tmp_path):
    trace = encoder_decoder_trace()
    batch = batch_of(trace, 0, trace.n_tokens)
    with writer_for(trace, tmp_path / "run") as writer:
        writer.append(batch)
    decoder_row = 7
    assert trace.tokens["stack"][decoder_row] == "decoder"
    batch.logits[decoder_row, 2, 3] = np.nan
    with writer_for(trace, tmp_path / "bad") as writer, pytest.raises(RecordingError, match="dec01 gave NaN"):
        writer.append(batch)


def test_infinite_logits_are_kept(tmp_path):
    # Group-limited routers mask with minus infinity.
    batch = batch_of(TRACE, 0, 50)
    batch.logits[0, 0, 0] = -np.inf
    with writer_for(TRACE, tmp_path / "run") as writer:
        writer.append(batch)
    assert np.isneginf(open_trace(tmp_path / "run").logits.values[0, 0, 0])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"logits": None}, "lacks logits"),
        ({"experts": np.zeros((50, 3, 9), np.uint8)}, r"experts have shape \(50, 3, 9\)"),
        ({"nll": np.zeros(49, np.float32)}, "nll have shape"),
        ({"dropped": np.zeros((50, 3, 2), bool)}, "begun without"),
        ({"prompt": np.full(50, 8, np.int32)}, "names prompt 8, but the table has 8"),
    ],
)
def test_batches_that_do_not_fit_are_refused(tmp_path, parts, message):
    writer = writer_for(TRACE, tmp_path / "run")
    writer.append(batch_of(TRACE, 0, 50))
    with pytest.raises(RecordingError, match=message):
        writer.append(changed(batch_of(TRACE, 0, 50), **parts))
    writer.close()
    assert open_trace(tmp_path / "run").n_tokens == 50
    with pytest.raises(RecordingError, match="is closed"):
        writer.append(batch_of(TRACE, 0, 50))


def test_tokens_before_their_prompts_are_refused(tmp_path):
    writer = TraceWriter(tmp_path / "run", layer_facts=TRACE.layer_facts, n_ranks=TRACE.n_ranks, logits_dtype="float32")
    with pytest.raises(RecordingError, match="Set the prompts before"):
        writer.append(batch_of(TRACE, 0, 5))
    writer.close()


def test_a_folder_is_written_once(tmp_path):
    save_trace(TRACE, tmp_path / "run")
    with pytest.raises(RecordingError, match="already holds a trace"):
        TraceWriter(tmp_path / "run", layer_facts=facts_of(1))
    with pytest.raises(RecordingError, match="already holds a trace"):
        pack_trace(TRACE, tmp_path / "run")


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RecordingError, match="failed"):
        TraceWriter(tmp_path / "file" / "run", layer_facts=facts_of(1))


def test_what_is_no_trace_is_refused(tmp_path):
    with pytest.raises(TraceError, match="does not exist"):
        open_trace(tmp_path / "nowhere")
    with pytest.raises(TraceError, match=r"is no trace: it holds no header\.json"):
        open_trace(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(TraceError, match="is a file"):
        open_trace(tmp_path / "file")
    for content, message in (
        ("", "cannot be read as JSON"),
        ("[1]", "not the header of a trace"),
        ('{"format": "other/1"}', "its format is 'other/1'"),
        ('{"format": "routescope-trace/1"}', "lacks what a trace's header must hold"),
    ):
        (tmp_path / "header.json").write_text(content)
        with pytest.raises(TraceError, match=message):
            open_trace(tmp_path)


@pytest.mark.parametrize("version", ["0", "2", "12"])
def test_a_foreign_version_is_refused_with_both_numbers(tmp_path, version):
    path = save_trace(TRACE, tmp_path / "run")
    header = json.loads((path / "header.json").read_text())
    (path / "header.json").write_text(json.dumps(header | {"format": f"routescope-trace/{version}"}))
    with pytest.raises(TraceError, match=f"format version {version}, but this RouteScope reads version 1"):
        open_trace(path)


def test_unknown_keys_of_the_header_are_ignored(tmp_path):
    path = save_trace(TRACE, tmp_path / "run")
    header = json.loads((path / "header.json").read_text())
    header |= {"of_tomorrow": 1, "layers": [each | {"new_fact": 2} for each in header["layers"]]}
    (path / "header.json").write_text(json.dumps(header))
    assert open_trace(path).n_tokens == 50


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "packed"])
@pytest.mark.parametrize("name", ["trace.zarr/experts/c/0/0/0", "trace.zarr/scores/zarr.json", "prompts.parquet"])
def test_a_missing_file_is_named(tmp_path, packed, name):
    path = pack_trace(TRACE, tmp_path / "run") if packed else save_trace(TRACE, tmp_path / "run")
    (path / name).unlink()
    trace = open_trace(path)
    with pytest.raises(TraceError, match=f"{name.split('/')[-1]}|experts"):
        _ = trace.experts.values, trace.scores.values, trace.prompts


def test_changed_bytes_are_found_by_verify(tmp_path):
    path = save_trace(TRACE, tmp_path / "run")
    chunk = path / "trace.zarr/scores/c/0/0/0"
    content = bytearray(chunk.read_bytes())
    content[33] ^= 4
    chunk.write_bytes(content)
    assert any("Tokens 0 to 50 are not what was written" in each for each in verify_trace(path))
    prompts = pd.read_parquet(path / "prompts.parquet")
    prompts.assign(text="other").to_parquet(path / "prompts.parquet")
    assert any("prompts.parquet is not what was written" in each for each in verify_trace(path))
