"""What goes wrong is said in a sentence, and what was committed before can be opened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import hooks.pipeline
from hooks import Recorder
from routing import RecordingError, open_trace, verify_trace
from tests.tiny import tiny_model

BATCH = torch.arange(4, 24).reshape(2, 10)


@pytest.fixture
def one_pass_a_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks.pipeline, "N_PASSES_A_DELIVERY", 1)


def n_hooks(model: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_a_model_without_experts_is_refused_by_name(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    with (
        pytest.raises(RecordingError, match="LlamaForCausalLM has no router"),
        Recorder(LlamaForCausalLM(config), out=tmp_path / "trace"),
    ):
        pass
    assert not (tmp_path / "trace").exists()


def test_a_folder_is_recorded_into_once(tmp_path: Path) -> None:
    model = tiny_model()
    with Recorder(model, out=tmp_path / "trace"):
        model(BATCH)
    with pytest.raises(RecordingError, match="already holds a trace"), Recorder(model, out=tmp_path / "trace"):
        pass
    assert n_hooks(model) == 0


def test_a_recording_of_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="Nothing was recorded"), Recorder(tiny_model(), out=tmp_path / "trace"):
        pass


@pytest.mark.parametrize("error", [ValueError("the user's own"), KeyboardInterrupt()])
def test_an_exception_leaves_what_was_recorded_and_no_hook(tmp_path: Path, error: BaseException) -> None:
    model = tiny_model()
    with pytest.raises(type(error)), Recorder(model, out=tmp_path / "trace"):
        model(BATCH)
        model(BATCH)
        raise error
    trace = open_trace(tmp_path / "trace")
    assert trace.n_tokens == 2 * BATCH.numel()
    assert not trace.provenance.complete
    assert n_hooks(model) == 0
    assert "generate" not in model.__dict__


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_forward_that_raises_is_no_record(tmp_path: Path, error: type[BaseException]) -> None:
    model = tiny_model()

    def fail(*_: object) -> None:
        raise error

    with Recorder(model, out=tmp_path / "trace"):
        model(BATCH)
        handle = model.model.layers[2].register_forward_pre_hook(fail)
        with pytest.raises(error):
            model(BATCH)
        handle.remove()
        model(BATCH)
    trace = open_trace(tmp_path / "trace")
    assert verify_trace(trace.path) == []
    assert trace.n_tokens == 2 * BATCH.numel()


def test_numbers_that_are_not_finite_name_layer_and_text(tmp_path: Path) -> None:
    model = tiny_model()
    with (
        pytest.raises(RecordingError, match=r"L01 .*not finite for token 0 of prompt"),
        Recorder(model, out=tmp_path / "trace"),
    ):
        model(BATCH)
        with torch.no_grad():
            model.model.layers[1].mlp.gate.weight[3] = torch.nan
        model(BATCH)
    assert n_hooks(model) == 0


def test_bad_numbers_surface_at_the_next_forward(tmp_path: Path, one_pass_a_delivery: None) -> None:
    model = tiny_model()
    with torch.no_grad(), pytest.raises(RecordingError, match="not finite"), Recorder(model, out=tmp_path / "trace"):
        model(BATCH)
        model.model.layers[0].mlp.gate.weight[0] = torch.inf
        model(BATCH)
        for _ in range(1000):
            model(BATCH)
        pytest.fail("the failure never surfaced")
    trace = open_trace(tmp_path / "trace")
    assert trace.n_tokens == BATCH.numel()
    assert not trace.provenance.complete


def test_padding_may_hold_any_number(tmp_path: Path) -> None:
    model = tiny_model()
    mask = torch.ones_like(BATCH)
    mask[0, :4] = 0
    with torch.no_grad(), Recorder(model, out=tmp_path / "trace"):
        model(BATCH, attention_mask=mask)
        handle = model.model.layers[2].mlp.register_forward_pre_hook(_spoil_padding)
        model(BATCH, attention_mask=mask)
        handle.remove()
    assert open_trace(tmp_path / "trace").n_tokens == 2 * int(mask.sum())


def _spoil_padding(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    hidden = args[0].clone()
    hidden[0, 0] = torch.nan  # in the last layer, where no attention spreads it
    return (hidden, *args[1:])


def test_a_logit_beyond_the_kept_precision_is_said_not_clipped(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.gate.weight.mul_(1e5)
    with (
        torch.no_grad(),
        pytest.raises(RecordingError, match="logits='float32'"),
        Recorder(model, out=tmp_path / "half"),
    ):
        model(BATCH)
    with torch.no_grad(), Recorder(model, out=tmp_path / "single", logits="float32"):
        model(BATCH)
    assert verify_trace(tmp_path / "single") == []


def test_a_router_that_goes_silent_is_named(tmp_path: Path) -> None:
    model = tiny_model()
    block = model.model.layers[1].mlp
    with (
        torch.no_grad(),
        pytest.raises(RecordingError, match=r"L01 .*was not heard in a forward of 20 rows"),
        Recorder(model, out=tmp_path / "trace"),
    ):
        model(BATCH)
        block.forward = lambda hidden: hidden  # as a fused kernel would
        try:
            model(BATCH)
        finally:
            del block.forward
    assert open_trace(tmp_path / "trace").n_tokens == BATCH.numel()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_stops_the_run_and_keeps_what_was_whole(
    tmp_path: Path, one_pass_a_delivery: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, written = tiny_model(), []
    pwrite = os.pwrite

    def until_full(fd: int, content: object, offset: int) -> int:
        written.append(1)
        if len(written) > 40:
            with open("/dev/full", "wb", buffering=0) as full:
                full.write(b"x")  # the kernel's own "No space left on device"
        return pwrite(fd, content, offset)

    monkeypatch.setattr(os, "pwrite", until_full)
    with (
        torch.no_grad(),
        pytest.raises(RecordingError, match="no room left") as caught,
        Recorder(model, out=tmp_path / "trace"),
    ):
        for _ in range(1000):
            model(BATCH)
    assert "can be opened" in str(caught.value)
    trace = open_trace(tmp_path / "trace")
    assert 0 < trace.n_tokens < 1000 * BATCH.numel()
    assert trace.n_tokens % BATCH.numel() == 0
    assert n_hooks(model) == 0


def test_the_writer_is_waited_for_never_dropped(
    tmp_path: Path, one_pass_a_delivery: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from hooks.sinks import TraceSink

    take, model = TraceSink.take, tiny_model()

    def slowly(self: TraceSink, batch: object) -> None:
        time.sleep(0.02)
        take(self, batch)

    monkeypatch.setattr(TraceSink, "take", slowly)
    with torch.no_grad(), Recorder(model, out=tmp_path / "trace"):
        for _ in range(20):
            model(BATCH)
    assert open_trace(tmp_path / "trace").n_tokens == 20 * BATCH.numel()


@pytest.mark.slow
@pytest.mark.parametrize("waits, n_least", [(False, 400), (True, 20)])
def test_a_kill_leaves_the_committed_prefix(tmp_path: Path, waits: bool, n_least: int) -> None:
    # Texts that nobody named are whole with their table, which is written every other second unless told otherwise.
    at_once = "" if waits else "hooks.sinks.SECONDS_BETWEEN_TABLES = hooks.sinks.TIMES_ITS_OWN = 0"
    program = f"""
        import torch
        import hooks.pipeline
        import hooks.sinks
        from hooks import Recorder
        from tests.tiny import tiny_model

        {at_once}
        hooks.pipeline.N_PASSES_A_DELIVERY = 1
        model = tiny_model()
        with torch.no_grad(), Recorder(model, out={str(tmp_path / "trace")!r}) as recorder:
            for number in range(100000):
                model(torch.arange(4, 24).reshape(2, 10))
                if recorder.n_tokens > 400:
                    print("ready", flush=True)
    """
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGKILL)
    trace = open_trace(tmp_path / "trace")
    assert trace.n_tokens >= n_least
    assert trace.n_tokens % 20 == 0
    assert not trace.provenance.complete
    assert [each for each in verify_trace(trace.path) if "did not come to its end" not in each] == []
