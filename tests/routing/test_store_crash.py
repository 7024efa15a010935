"""Cut off, killed, out of room: the committed prefix is the trace, or one clear error says why not."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from routing import RecordingError, TraceError, open_trace, pack_trace, recover_trace, save_trace, verify_trace
from tests.stored import append_all, batch_of, require_same, writer_for
from tests.traces import random_trace

ROOT = Path(__file__).resolve().parents[2]
TRACE = random_trace(seed=5, n_tokens=60)


def write_whole(path, *, form):
    """A small trace: closed, still being written, or packed."""
    if form == "packed":
        return pack_trace(TRACE, path)
    if form == "closed":
        return save_trace(TRACE, path, chunk_tokens=32)
    writer = writer_for(TRACE, path, chunk_tokens=32)
    writer.set_vocabulary(TRACE.vocabulary.to_dict())
    append_all(writer, TRACE, n_tokens_a_batch=13)
    writer._log.close()  # the process is gone
    return path


def require_prefix(path):
    """Everything that can be read is a prefix of what was written."""
    trace = open_trace(path)
    require_same(TRACE, trace, n_tokens=trace.n_tokens)
    assert trace.vocabulary.equals(TRACE.vocabulary)
    return trace.n_tokens


@pytest.mark.parametrize("form", ["closed", "running", "packed"])
def test_any_file_cut_off_anywhere(tmp_path, form):
    whole = write_whole(tmp_path / "whole", form=form)
    assert require_prefix(whole) == 60
    rng = np.random.default_rng(0)
    files = sorted(each.relative_to(whole) for each in whole.rglob("*") if each.is_file())
    outcomes = {"whole": 0, "prefix": 0, "error": 0}
    for name in files:
        size = (whole / name).stat().st_size
        cuts = {0, size - 1, int(rng.integers(0, max(size, 1)))}
        content = (whole / name).read_bytes()
        for cut in sorted(cuts):
            (whole / name).write_bytes(content[: max(cut, 0)])
            try:
                n_read = require_prefix(whole)
                outcomes["whole" if n_read == 60 else "prefix"] += 1
            except TraceError:
                outcomes["error"] += 1
        (whole / name).write_bytes(content)
    assert outcomes["error"] > 0
    if form != "packed":
        assert outcomes["prefix"] > 0


def test_the_commit_log_cut_at_every_byte(tmp_path):
    path = write_whole(tmp_path / "run", form="running")
    log = (path / "commits.jsonl").read_bytes()
    found = set()
    for cut in range(len(log) + 1):
        (path / "commits.jsonl").write_bytes(log[:cut])
        found.add(open_trace(path).n_tokens)
    assert found == {0, 13, 26, 39, 52, 60}


def test_a_log_ahead_of_its_data_is_not_believed(tmp_path):
    # A power loss may keep the log and lose the data that it speaks of.
    path = write_whole(tmp_path / "run", form="running")
    chunk = path / "trace.zarr/scores/c/1/0/0"
    chunk.write_bytes(b"\0" * chunk.stat().st_size)  # rows 32 to 63: all batches from row 26 on
    assert require_prefix(path) == 26


def test_a_changed_packed_chunk_is_refused(tmp_path):
    path = write_whole(tmp_path / "run", form="packed")
    chunk = path / "trace.zarr/scores/c/0/0/0"
    content = bytearray(chunk.read_bytes())
    for place in range(0, len(content), 97):
        damaged = content.copy()
        damaged[place] ^= 0x10
        chunk.write_bytes(damaged)
        with pytest.raises(TraceError, match="cannot be decompressed"):
            _ = open_trace(path).scores.values


WRITING = """
    import itertools, sys
    from tests.stored import batch_of, writer_for
    from tests.traces import random_trace
    trace = random_trace(seed=7, n_tokens=4000)
    writer = writer_for(trace, sys.argv[1], chunk_tokens=256)
    for start in range(0, 4000, 40):
        writer.append(batch_of(trace, start, start + 40))
        print(writer.n_tokens, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("n_lines", [1, pytest.param(37, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_what_it_committed(tmp_path, n_lines):
    xarray = pytest.importorskip("xarray")
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITING), str(path)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = [int(process.stdout.readline()) for _ in range(n_lines)][-1]
    with pytest.raises(TraceError, match="still being written"):
        recover_trace(path)
    process.kill()
    process.communicate()
    trace = random_trace(seed=7, n_tokens=4000)
    stored = open_trace(path)
    assert said <= stored.n_tokens <= 4000
    require_same(trace, stored, n_tokens=stored.n_tokens)
    assert not stored.provenance.complete

    assert recover_trace(path) == stored.n_tokens
    require_same(trace, open_trace(path), n_tokens=stored.n_tokens)
    assert open_trace(path).digest == stored.digest
    found = zarr.open_group(path / "trace.zarr", mode="r")["experts"][:]
    np.testing.assert_array_equal(found, stored.experts.values)
    opened = xarray.open_zarr(path / "trace.zarr", consolidated=False)
    np.testing.assert_array_equal(opened["weights"].values, stored.weights.values)
    assert verify_trace(path) == ["The run did not come to its end; what was committed is the trace."]


def test_killed_before_the_first_batch(tmp_path):
    writer = writer_for(TRACE, tmp_path / "run")
    writer._log.close()
    stored = open_trace(tmp_path / "run")
    assert (stored.n_tokens, len(stored.tokens), stored.experts) == (0, 0, None)
    assert list(stored.chunks()) == []
    assert recover_trace(tmp_path / "run") == 0
    assert open_trace(tmp_path / "run").n_prompts == 8


def test_recovery_refuses_what_needs_none(tmp_path):
    with pytest.raises(TraceError, match="only a raw trace"):
        recover_trace(write_whole(tmp_path / "packed", form="packed"))
    path = write_whole(tmp_path / "closed", form="closed")
    assert recover_trace(path) == 60
    require_same(TRACE, open_trace(path))


def test_recovery_refuses_a_chunk_that_was_cut_off(tmp_path):
    path = write_whole(tmp_path / "run", form="closed")
    chunk = path / "trace.zarr/scores/c/1/0/0"
    chunk.write_bytes(chunk.read_bytes()[:10])
    before = {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}
    with pytest.raises(TraceError, match="It was cut off"):
        recover_trace(path)
    assert {each: each.read_bytes() for each in path.rglob("*") if each.is_file()} == before


def test_a_full_disk_stops_the_writer_and_keeps_the_prefix(tmp_path, monkeypatch):
    room = [20_000]
    write = os.pwrite

    def into_little_room(fd, content, offset):
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = write(fd, content[: room[0]], offset)
        room[0] -= count
        return count

    writer = writer_for(TRACE, tmp_path / "run", chunk_tokens=16)
    monkeypatch.setattr(os, "pwrite", into_little_room)
    with pytest.raises(RecordingError, match=r"no room left\. The first \d+ tokens are whole"):
        append_all(writer, random_trace(seed=5, n_tokens=2000), n_tokens_a_batch=10)
    with pytest.raises(RecordingError, match="no room left"):
        writer.append(batch_of(TRACE, 0, 1))
    monkeypatch.undo()
    kept = writer.n_tokens
    assert kept > 0
    stored = open_trace(tmp_path / "run")
    require_same(random_trace(seed=5, n_tokens=2000), stored, n_tokens=kept)
    writer.close()
    stored = open_trace(tmp_path / "run")
    require_same(random_trace(seed=5, n_tokens=2000), stored, n_tokens=kept)
    assert not stored.provenance.complete


LIMITED = """
    import resource, sys
    from tests.stored import batch_of, writer_for
    from tests.traces import random_trace
    from routing import RecordingError
    trace = random_trace(seed=7, n_tokens=4000)
    writer = writer_for(trace, sys.argv[1], chunk_tokens=int(sys.argv[2]))
    writer.append(batch_of(trace, 0, 40))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
    try:
        with writer:
            for start in range(40, 4000, 40):
                writer.append(batch_of(trace, start, start + 40))
    except RecordingError as error:
        print(error)
"""


@pytest.mark.parametrize("limit", [900, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_limit_on_files_stops_the_writer_and_keeps_the_prefix(tmp_path, limit):
    path = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), str(path), "64", str(limit)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "there is no room left" in done.stdout, done.stderr
    stored = open_trace(path)
    assert stored.n_tokens >= 40
    require_same(random_trace(seed=7, n_tokens=4000), stored, n_tokens=stored.n_tokens)
