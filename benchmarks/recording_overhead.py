"""What recording costs: the same batches with and without a recorder, by turns, in one process.

    python -m benchmarks.recording_overhead                        # a small model, where you are
    python -m benchmarks.recording_overhead --shape olmoe-1b-7b    # for a GPU of 40 GB or more

Weights are random: time does not depend on what they say. Every variant writes a whole trace to the disk through the
writing thread, runners-up and provenance included, and the trace is verified afterwards.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import DynamicCache, OlmoeConfig, OlmoeForCausalLM

from hooks import Recorder, kernels
from hooks.overhead import Overhead, measure_overhead
from hooks.pipeline import Pipeline
from routing import open_trace, verify_trace


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model and its batches."""

    config: dict[str, Any]
    prefill: tuple[int, int]
    n_prefill_batches: int
    decode: tuple[int, int, int]  # batch, prefix, steps
    goals: tuple[float, float] | None = None


SHAPES = {
    "small": Shape(
        config={
            "vocab_size": 2048,
            "hidden_size": 512,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "num_experts": 32,
            "num_experts_per_tok": 4,
        },
        prefill=(8, 128),
        n_prefill_batches=2,
        decode=(8, 16, 16),
    ),
    "olmoe-1b-7b": Shape(
        config={
            "vocab_size": 50304,
            "hidden_size": 2048,
            "intermediate_size": 1024,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "num_experts": 64,
            "num_experts_per_tok": 8,
        },
        prefill=(16, 1024),
        n_prefill_batches=12,
        decode=(64, 128, 64),
        goals=(1.01, 1.03),
    ),
}
KEPT: dict[str, dict[str, Any]] = {
    "full": {"level": "full"},
    "full, no runners-up": {"level": "full", "n_runners_up": 0},
    "assignments": {"level": "assignments"},
    "counts": {"level": "counts"},
}
CASES: dict[str, dict[str, Any]] = {
    **{f"prefill, {name}": kept for name, kept in KEPT.items()},
    "prefill with head and likelihoods, full": KEPT["full"],
    **{f"decode, {name}": kept for name, kept in KEPT.items()},
}


def built(shape: Shape, *, device: torch.device, dtype: torch.dtype) -> OlmoeForCausalLM:
    """The model with random weights, made where it runs."""
    config = OlmoeConfig(**shape.config, max_position_embeddings=4096, pad_token_id=None, eos_token_id=None)
    torch.manual_seed(0)
    with torch.device(device):
        return OlmoeForCausalLM._from_config(config, dtype=dtype).eval()


def prefill_batches(shape: Shape, *, device: torch.device) -> list[dict[str, Tensor]]:
    """Batches of whole texts."""
    generator = torch.Generator().manual_seed(1)
    size = (shape.n_prefill_batches, *shape.prefill)
    ids = torch.randint(0, shape.config["vocab_size"], size, generator=generator).to(device)
    return [{"input_ids": each, "use_cache": False} for each in ids]


def decoding(model: OlmoeForCausalLM, n_steps: int) -> Callable[[dict[str, Tensor]], None]:
    """A greedy loop of one-token steps behind a prefix, which is recorded and timed with them."""

    def run(batch: dict[str, Tensor]) -> None:
        cache = DynamicCache(config=model.config)
        step = model(input_ids=batch["input_ids"], past_key_values=cache, use_cache=True, logits_to_keep=1)
        for _ in range(n_steps):
            token = step.logits[:, -1:].argmax(-1)
            step = model(input_ids=token, past_key_values=cache, use_cache=True)

    return run


def checked(model: torch.nn.Module, batch: dict[str, Tensor], *, folder: Path) -> dict[str, Any]:
    """One recorded batch, verified, and compared with what plain hooks saw of the routers."""
    seen: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda _m, _a, output: seen.append(output[0].detach().float().cpu()))
        for name, module in model.named_modules()
        if name.endswith(".gate")
    ]
    path = folder / "checked"
    with torch.no_grad(), Recorder(model, out=path):
        model(**batch)
    for handle in handles:
        handle.remove()
    trace = open_trace(path)
    found: dict[str, Any] = {"violations": verify_trace(path), "proof": sorted({f.proof for f in trace.layer_facts})}
    if trace.logits is not None:
        kept = torch.from_numpy(trace.logits.values.astype("float32"))
        stored = torch.float16 if next(model.parameters()).dtype == torch.float32 else torch.bfloat16
        found["logits_equal"] = torch.equal(kept, torch.stack(seen, 1).to(stored).float())
    if trace.experts is not None:
        top_k = trace.top_k
        chosen = torch.from_numpy(trace.experts.values[:, :, :top_k].astype("int64")).sort(-1).values
        scores = torch.stack(seen, 1)
        threshold = scores.gather(-1, chosen).amin(-1)
        others = scores.scatter(-1, chosen, -torch.inf).amax(-1)
        found["experts_are_the_top_k"] = bool((threshold >= others).all())
    found["bytes_a_token"] = trace.provenance.n_bytes / trace.n_tokens
    shutil.rmtree(path)
    return found


def profiled(model: torch.nn.Module, batches: list[dict[str, Tensor]], *, folder: Path) -> None:
    """Where the time of a recording goes: the calling thread, the writing thread, kernels on the device."""
    spent: dict[str, list[float]] = {"deliver": [], "_write": []}

    def clocked(name: str) -> Any:
        inner = getattr(Pipeline, name)

        def call(self: Pipeline, *args: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(self, *args)
            finally:
                spent[name].append(time.perf_counter() - began)

        return inner, call

    originals = {}
    for name in spent:
        originals[name], call = clocked(name)
        setattr(Pipeline, name, call)
    times: dict[str, list[float]] = {}
    for number, recording in enumerate((False, True)):
        with torch.no_grad(), ExitStack() as opened:
            if recording:
                opened.enter_context(Recorder(model, out=folder / "profiled"))
                model(**batches[0])
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            with torch.profiler.profile(activities=activities) as profile:
                for batch in batches:
                    model(**batch)
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
            for event in profile.key_averages():
                micro = event.self_device_time_total if torch.cuda.is_available() else event.self_cpu_time_total
                times.setdefault(event.key, [0.0, 0.0])[number] += micro / 1000 / len(batches)
    for name, original in originals.items():
        setattr(Pipeline, name, original)
    print("\nms a delivery, calling thread:", [round(1000 * each, 2) for each in spent["deliver"]])
    print(
        "ms a delivery, writing thread (its wait for the device included):",
        [round(1000 * each, 1) for each in spent["_write"]],
    )
    more = sorted(((on - off, name) for name, (off, on) in times.items() if on - off > 0.01), reverse=True)
    print(f"\n| kernel | ms a forward more with recording (sum {sum(each for each, _ in more):.2f}) |\n|---|---|")
    for each, name in more[:14]:
        print(f"| {name[:100]} | {each:.3f} |")


def row_of(name: str, found: Overhead, *, per: int) -> str:
    """A line of the table."""
    return (
        f"| {name} | {1000 * found.seconds_off / per:.2f} | {1000 * found.seconds_on / per:.2f} | "
        f"{found.ratio:.4f} | {found.low:.4f}–{found.high:.4f} | {found.cpu_ratio:.3f} | "
        f"{found.seconds_to_finish:.2f} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--folder", type=Path, default=None, help="where traces are written and removed again")
    parser.add_argument("--profile", action="store_true", help="also show where the time goes")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures there")
    options = parser.parse_args(arguments)
    device, shape = torch.device(options.device), SHAPES[options.shape]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = built(shape, device=device, dtype=dtype)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name} · torch {torch.__version__} · transformers {transformers.__version__} · {options.shape}, {dtype}")
    figures: dict[str, Any] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder) as parent:
        batches = prefill_batches(shape, device=device)
        print("check:", checked(model.model, batches[0], folder=Path(parent)))
        print("\n| what | off, ms | on, ms | ratio | 90 % interval | cpu ratio | s to finish |")
        print("|---|---|---|---|---|---|---|")

        def measured(label: str, module: Any, inputs: Any, per: int, **more: Any) -> None:
            found = measure_overhead(module, inputs, n_rounds=options.rounds, folder=parent, **more)
            figures[label] = found.to_json()
            print(row_of(label, found, per=per), flush=True)

        n_batch, n_prefix, n_steps = shape.decode
        prefix = [{"input_ids": batches[0]["input_ids"].reshape(-1)[: n_batch * n_prefix].reshape(n_batch, n_prefix)}]
        loops = {"run": decoding(model, n_steps), "warm_up": decoding(model, 4)}
        for case in options.only:
            kept = CASES[case]
            if case.startswith("decode"):
                measured(case, model, prefix, n_steps, **loops, **kept)
            else:
                # Without the head, as in most published measurements: a head makes recording look cheaper.
                measured(case, model if "head" in case else model.model, batches, len(batches), **kept)
        if options.profile:
            profiled(model.model, batches, folder=Path(parent))
    if device.type == "cuda":
        print("fused kernels:", {key[0]: used for key, used in kernels._verdicts.items()})
    print(f"\n{time.monotonic() - began:.0f} s in all")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
