"""Parts of a parallel run are one trace."""

import numpy as np
import pytest

from routing import Selection, TraceError, open_trace, pack_trace, save_trace, verify_trace
from routing.store.pack import save_trace as save
from tests.stored import require_same
from tests.traces import planted_trace, random_trace


def halves(trace):
    """The two halves of a planted trace, each a part with its own prompts."""
    ids = trace.prompts["prompt"].tolist()
    return [trace.select(Selection(prompts=tuple(part))) for part in (ids[: len(ids) // 2], ids[len(ids) // 2 :])]


def test_parts_are_joined_end_to_end(tmp_path):
    trace = planted_trace(seed=0, n_tasks=2, n_prompts_a_task=3)
    for number, part in enumerate(halves(trace)):
        save(part, tmp_path / "run" / f"part-{number:04d}", chunk_tokens=16)
    joined = open_trace(tmp_path / "run")
    require_same(trace, joined)
    assert joined.vocabulary.equals(trace.vocabulary)
    assert joined.provenance.n_tokens == trace.n_tokens
    rows = np.array([70, 3, -1])
    np.testing.assert_array_equal(joined.scores.isel(token=rows).values, trace.scores.values[rows])
    assert [part.n_tokens for part in joined.chunks(n_tokens=50)] == [50, 34]
    assert verify_trace(tmp_path / "run") == []
    require_same(trace, open_trace(pack_trace(joined, tmp_path / "packed")))


def test_parts_of_different_runs_are_refused(tmp_path):
    save_trace(random_trace(seed=0), tmp_path / "run/part-0000")
    save_trace(random_trace(seed=0, n_experts=9), tmp_path / "run/part-0001")
    with pytest.raises(TraceError, match="parts of one trace agree"):
        open_trace(tmp_path / "run")


def test_prompts_that_two_parts_share_are_refused(tmp_path):
    for number in range(2):
        save_trace(random_trace(seed=0), tmp_path / f"run/part-{number:04d}")
    joined = open_trace(tmp_path / "run")
    with pytest.raises(TraceError, match="occurs more than once"):
        _ = joined.prompts


def test_a_damaged_part_is_named_by_verify(tmp_path):
    for number, part in enumerate(halves(planted_trace(seed=0, n_tasks=2, n_prompts_a_task=2))):
        save_trace(part, tmp_path / "run" / f"part-{number:04d}")
    chunk = tmp_path / "run/part-0001/trace.zarr/experts/c/0/0/0"
    content = bytearray(chunk.read_bytes())
    content[0] ^= 1
    chunk.write_bytes(content)
    assert any("not what was written" in each for each in verify_trace(tmp_path / "run"))
