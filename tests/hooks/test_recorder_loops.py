"""Loops that are not a plain forward: packed rows, own decoding, training, compiled models, wrappers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hooks.courier
import hooks.sinks
from hooks import Recorder
from routing import Prompt, RecordingError, TraceWriter, open_trace, verify_trace
from tests.tiny import byte_tokenizer, tiny_model

TEXTS = ("river", "the capital", "12 + 30")


def ids_of(text: str) -> list[int]:
    return byte_tokenizer()(text)["input_ids"]


def experts_of(path: Path, prompt: str) -> np.ndarray:
    trace = open_trace(path)
    number = trace.prompts["prompt"].tolist().index(prompt)
    rows = trace.tokens[trace.tokens["prompt"] == number].sort_values("position").index
    return trace.experts.values[rows][:, :, : trace.top_k]


def alone(folder: Path, texts: tuple[str, ...] = TEXTS) -> Path:
    """Each text for itself: what every other way of running it must agree with."""
    with torch.no_grad(), Recorder(tiny_model(), out=folder) as recorder:
        for text in texts:
            with recorder.labelled([Prompt(id=text, text=text)]):
                recorder.model(torch.tensor([ids_of(text)]))
    return folder


def require_as_alone(path: Path, tmp_path: Path) -> None:
    expected = alone(tmp_path / "alone")
    for text in TEXTS:
        np.testing.assert_array_equal(experts_of(path, text), experts_of(expected, text))


def test_texts_packed_into_a_row_are_told_apart(tmp_path: Path) -> None:
    rows = [ids_of(text) for text in TEXTS]
    ids = torch.tensor([sum(rows, [])])
    places = torch.cat([torch.arange(len(row)) for row in rows])[None]
    with torch.no_grad(), Recorder(tiny_model(), out=tmp_path / "packed") as recorder:
        with recorder.labelled([Prompt(id=text, text=text) for text in TEXTS]):
            # Without a cache and a mask the library, too, keeps packed texts apart by their positions.
            recorder.model(ids, position_ids=places, use_cache=False)
    require_as_alone(tmp_path / "packed", tmp_path)


def test_a_decoding_loop_of_ones_own(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad(), Recorder(model, byte_tokenizer(), out=tmp_path / "own"):
        for text in TEXTS:
            ids = torch.tensor([ids_of(text)])
            step = model(ids[:, :3], use_cache=True)  # the model makes the cache
            for place in range(3, ids.shape[1]):
                step = model(ids[:, place : place + 1], past_key_values=step.past_key_values, use_cache=True)
    trace = open_trace(tmp_path / "own")
    assert trace.prompts["text"].tolist() == [text[:3] for text in TEXTS]
    assert trace.tasks == ("unlabelled",)
    expected = alone(tmp_path / "alone")
    for number, text in enumerate(TEXTS):
        np.testing.assert_array_equal(experts_of(trace.path, f"unlabelled-{number:06d}"), experts_of(expected, text))
        phases = trace.tokens.loc[trace.tokens["prompt"] == number, "phase"].tolist()
        assert phases == ["prompt"] * 3 + ["generated"] * (len(text) - 3)


def test_a_buffer_that_a_loop_writes_into_again_is_not_what_we_hold(tmp_path: Path) -> None:
    model, buffer = tiny_model(), torch.zeros((1, 4), dtype=torch.int64)
    with torch.no_grad(), Recorder(model, out=tmp_path / "trace"):
        for start in (10, 20, 30):
            buffer.copy_(torch.arange(start, start + 4)[None])
            model(buffer)
    assert open_trace(tmp_path / "trace").tokens["token_id"].tolist() == [
        *range(10, 14),
        *range(20, 24),
        *range(30, 34),
    ]


def test_a_prompt_recorded_twice_is_two_prompts(tmp_path: Path) -> None:
    model, prompt = tiny_model(), Prompt(id="again", text="again")
    with torch.no_grad(), Recorder(model, out=tmp_path / "trace") as recorder:
        for _ in range(2):
            with recorder.labelled([prompt]):
                model(torch.tensor([ids_of("again")]))
    trace = open_trace(tmp_path / "trace")
    assert trace.prompts["prompt"].tolist() == ["again", "again#2"]
    assert trace.tokens["prompt"].tolist() == [0] * 5 + [1] * 5


def test_lengths_stand_in_for_a_mask(tmp_path: Path) -> None:
    rows = [ids_of(text) for text in TEXTS]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    with torch.no_grad(), Recorder(tiny_model(), out=tmp_path / "trace") as recorder:
        with recorder.labelled([Prompt(id=text, text=text) for text in TEXTS], n_tokens=[len(row) for row in rows]):
            recorder.model(ids)
    require_as_alone(tmp_path / "trace", tmp_path)


def test_labels_must_fit_the_batch(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="batch of 3 texts, but 1 prompts were labelled"):
        with torch.no_grad(), Recorder(tiny_model(), out=tmp_path / "trace") as recorder:
            with recorder.labelled([Prompt(id="one", text="one")]):
                recorder.model(torch.ones((3, 4), dtype=torch.int64))


def test_unrecorded_while_paused(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad(), Recorder(model, out=tmp_path / "trace") as recorder:
        model(torch.tensor([[5, 6, 7]]))
        with recorder.paused():
            model(torch.tensor([[8, 9]]))
            model.generate(torch.tensor([[8, 9]]), max_new_tokens=2, num_beams=2, do_sample=False)
    assert open_trace(tmp_path / "trace").tokens["token_id"].tolist() == [5, 6, 7]


@pytest.mark.parametrize("reentrant", [True, False])
def test_layers_recomputed_in_the_backward_pass_are_recorded_once(tmp_path: Path, reentrant: bool) -> None:
    model = tiny_model().train()
    # Named anew in 5.2x.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    ids = torch.tensor([ids_of("the capital")])
    with Recorder(model, out=tmp_path / "trace"):
        for _ in range(2):
            model(ids, labels=ids, use_cache=False).loss.backward()
    assert open_trace(tmp_path / "trace").n_tokens == 2 * ids.numel()
    assert any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
def test_a_compiled_model_is_recorded_also_when_it_was_compiled_before(tmp_path: Path) -> None:
    model = tiny_model()
    compiled = torch.compile(model, backend="eager")
    ids = torch.tensor([ids_of("the capital")])
    with torch.no_grad():
        before = compiled(ids).logits
        with Recorder(compiled, out=tmp_path / "compiled"):
            during = compiled(ids).logits
            compiled(ids)
        after = compiled(ids).logits
        with Recorder(model, out=tmp_path / "plain"):
            model(ids)
            model(ids)
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    one, other = open_trace(tmp_path / "compiled"), open_trace(tmp_path / "plain")
    assert one.n_tokens == other.n_tokens == 2 * ids.numel()
    np.testing.assert_array_equal(one.experts.values, other.experts.values)


def test_beams_and_drafts_are_refused(tmp_path: Path) -> None:
    ids = torch.tensor([ids_of("abc")])
    with Recorder(tiny_model(), out=tmp_path / "trace") as recorder:
        recorder.model(ids)
        with pytest.raises(RecordingError, match="2 beams"):
            recorder.model.generate(ids, num_beams=2, max_new_tokens=2)
        with pytest.raises(RecordingError, match="draft"):
            recorder.model.generate(ids, prompt_lookup_num_tokens=2, max_new_tokens=2)
    assert open_trace(tmp_path / "trace").n_tokens == 3


def test_data_parallel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="DataParallel copies the model"):
        Recorder(nn.DataParallel(tiny_model()), out=tmp_path / "trace")


def test_the_head_less_model_records_the_same(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad(), Recorder(model.model, out=tmp_path / "trace") as recorder:
        for text in TEXTS:
            with recorder.labelled([Prompt(id=text, text=text)]):
                model.model(torch.tensor([ids_of(text)]))
    require_as_alone(tmp_path / "trace", tmp_path)
    assert open_trace(tmp_path / "trace").tokens["nll"].isna().all()


def test_a_model_that_is_called_past_its_recorder_says_so(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(RecordingError, match="outside a forward"), Recorder(model, out=tmp_path / "trace"):
        model.model(torch.tensor([[5, 6]]))


def test_a_loop_of_new_texts_writes_its_prompts_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    whole = TraceWriter.set_prompts
    monkeypatch.setattr(
        TraceWriter, "set_prompts", lambda self, table: (written.append(len(table)), whole(self, table))
    )
    monkeypatch.setattr(hooks.sinks, "SECONDS_BETWEEN_TABLES", 1e9)
    with torch.no_grad(), Recorder(tiny_model(), out=tmp_path / "many") as recorder:
        for text in TEXTS * 4:
            recorder.model(torch.tensor([ids_of(text)]))
            recorder._pipeline.deliver()
    assert written == [1, 12], "the table is written with the first batch, and at the end"
    assert verify_trace(tmp_path / "many") == []
    assert open_trace(tmp_path / "many").n_tokens == 4 * sum(len(ids_of(text)) for text in TEXTS)


def test_rows_that_wait_for_their_prompts_are_whole_when_the_loop_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks.courier, "SECONDS_TO_REST", 0.01)
    monkeypatch.setattr(hooks.sinks, "SECONDS_BETWEEN_TABLES", 0.5)
    with torch.no_grad(), Recorder(tiny_model(), out=tmp_path / "pause") as recorder:
        for text in TEXTS:
            recorder.model(torch.tensor([ids_of(text)]))
            recorder._pipeline.deliver()
        expected = sum(len(ids_of(text)) for text in TEXTS)
        patience = time.monotonic() + 60
        while open_trace(tmp_path / "pause").n_tokens < expected and time.monotonic() < patience:
            time.sleep(0.05)
        assert open_trace(tmp_path / "pause").n_tokens == expected
