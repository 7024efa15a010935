"""How large a recording will be, from the numbers of model and tasks alone; no forward, no torch."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.recordings.outlook import Outlook, TaskOutlook
from routing import LayerFacts
from routing.store.format import array_specs

__all__ = ["Estimate", "Options", "estimate", "free_disk", "free_memory", "limit_for"]

# Measured on recordings of the sample model: what Parquet makes of a token's row, of a prompt's row beside its text and
# of a letter of that text; how many pieces of the vocabulary a text of so many tokens shows (that times its root).
_TOKEN_BYTES, _PROMPT_BYTES, _LETTER_BYTES = 3.3, 30.0, 0.36
_PIECES, _PIECE_BYTES = 20.0, 6.0
# Header and tables with nothing in them, and the files that describe arrays.
_FIXED_BYTES, _ARRAY_BYTES, _LAYER_BYTES, _EXPERT_BYTES = 9_000, 6_000, 400, 8
# Rows that wait for the writer at most, in three buffers; as hooks.pipeline has them.
_ROWS_AT_ONCE = 3 * 8192
# Distinct adapters that are kept of a layer; as hooks.adapter_books has them.
_MOST_ADAPTERS = 2048
# Logits come in float32, and are copied once for likelihoods.
_LOGIT_BYTES, _LOGIT_COPIES = 4, 2
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
# What the first forwards of a model load beside it: kernels, buffers of threads.
_RUNNING_BYTES = 150_000_000


@dataclass(frozen=True, kw_only=True)
class Options:
    """What of a request decides its size.

    Attributes:
        level: what is kept of each decision.
        limit: most prompts a task.
        max_new_tokens: tokens to generate, instead of what the tasks say.
        n_runners_up: unselected experts kept for each decision.
        batch_size: prompts a batch.
        dtype: "auto" or a precision's name.
        device: "auto" or a device's name.
    """

    level: str = "full"
    limit: int | None = None
    max_new_tokens: int | None = None
    n_runners_up: int = 4
    batch_size: int = 16
    dtype: str = "auto"
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a recording will take.

    Attributes:
        n_prompts: prompts.
        n_rows, most_rows: rows of the trace as expected, and where no answer ends early.
        row_bytes: bytes that the level writes for a row, over all layers; 0 at level "counts".
        n_decisions: rows × layers.
        disk_bytes, most_disk_bytes: of the trace; None where the routers are not known before the first forward.
        adapter_bytes: of the generated adapters, part of the disk's.
        memory_bytes: of the process at its peak; None where the model's size is not known.
        weight_bytes: of the model's parameters, part of it.
        batch_bytes: of the largest batch, part of it.
        is_on_host: whether weights and batch lie in the machine's own memory.
    """

    n_prompts: int
    n_rows: int
    most_rows: int
    row_bytes: int
    n_decisions: int
    disk_bytes: int | None
    most_disk_bytes: int | None
    adapter_bytes: int
    memory_bytes: int | None
    weight_bytes: int
    batch_bytes: int
    is_on_host: bool


def estimate(seen: Outlook, tasks: Collection[str], options: Options) -> Estimate:
    """The size of a recording.

    Args:
        seen: model and tasks.
        tasks: names of those that are to be recorded.
        options: what is asked for.
    """
    chosen = [each for each in seen.tasks if each.name in tasks]
    counts = [_n_prompts(each, options.limit) for each in chosen]
    rows = [_rows(each, seen, options) for each in chosen]
    n_rows = round(sum(n * expected for n, (expected, _) in zip(counts, rows, strict=True)))
    most_rows = round(sum(n * most for n, (_, most) in zip(counts, rows, strict=True)))
    row_bytes = _row_bytes(seen, options)
    adapters = 0 if options.level == "counts" else _adapter_bytes(seen, n_prompts=sum(counts), n_rows=n_rows)
    beside = _beside(seen, chosen, counts, options) + adapters
    n_parameter_bytes, on_host = _precision(seen, options)
    weights = seen.n_parameters * n_parameter_bytes
    batch = _batch_bytes(seen, chosen, options)
    buffers = min(most_rows, _ROWS_AT_ONCE) * (row_bytes or 2 * _n_layers(seen))
    host = (weights + batch + _RUNNING_BYTES if on_host else _RUNNING_BYTES) + seen.process_bytes + buffers
    known = bool(seen.layers)

    def disk(n: int) -> int | None:
        a_row = row_bytes + (_TOKEN_BYTES if row_bytes else 0)
        return round(n * a_row + beside) if known else None

    return Estimate(
        n_prompts=sum(counts),
        n_rows=n_rows,
        most_rows=most_rows,
        row_bytes=row_bytes,
        n_decisions=n_rows * _n_layers(seen),
        disk_bytes=disk(n_rows),
        most_disk_bytes=disk(most_rows),
        adapter_bytes=adapters,
        memory_bytes=round(host) if seen.n_parameters else None,
        weight_bytes=weights,
        batch_bytes=round(batch),
        is_on_host=on_host,
    )


def limit_for(seen: Outlook, tasks: Collection[str], options: Options, *, most_rows: int) -> int | None:
    """The most prompts a task with which a recording stays within a number of rows; None where one is too many."""
    low, high = 0, max((each.n_prompts for each in seen.tasks if each.name in tasks), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        within = Options(**{**options.__dict__, "limit": middle})
        if estimate(seen, tasks, within).n_rows <= most_rows:
            low = middle
        else:
            high = middle - 1
    return low or None


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def free_memory() -> int | None:
    """Bytes of memory that a process may still take; None where the system does not say."""
    try:
        lines = _MEMINFO.read_text("ascii").splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
    # A container may be given less than the machine has.
    allowed, used = (_number(_CGROUP / name) for name in ("memory.max", "memory.current"))
    if allowed is None or used is None:
        return free
    left = max(0, allowed - max(0, used - _held_for_files()))
    return left if free is None else min(free, left)


def _n_prompts(task: TaskOutlook, limit: int | None) -> int:
    return task.n_prompts if limit is None else min(limit, task.n_prompts)


def _rows(task: TaskOutlook, seen: Outlook, options: Options) -> tuple[float, float]:
    """Rows of a prompt, as expected and at most."""
    if seen.by_prompt:
        return 1.0, 1.0
    written, most = _written(task, seen, options)
    if not seen.two_stacks:
        return task.n_read + written, task.n_read + most
    stacks = {stack for _, stack, _, _ in seen.layers} or {"encoder", "decoder"}
    reads = task.n_read if "encoder" in stacks else 0.0
    # The decoder begins with a token of its own.
    writes = 1.0 if "decoder" in stacks else 0.0
    return reads + writes * (1 + written), reads + writes * (1 + most)


def _written(task: TaskOutlook, seen: Outlook, options: Options) -> tuple[float, float]:
    """Tokens behind a prompt that the model is fed, as expected and at most."""
    if not seen.writes or options.max_new_tokens == 0:
        return 0.0, 0.0
    if task.n_option:
        return task.n_option, task.n_option
    n_new = task.max_new_tokens if options.max_new_tokens is None else options.max_new_tokens
    # What is written last is not fed again.
    most = float(max(0, n_new - 1))
    return (most if task.n_target is None else min(task.n_target, most)), most


def _n_layers(seen: Outlook) -> int:
    return max(1, len(seen.layers))


def _n_experts(seen: Outlook) -> int:
    return max((n for _, _, n, _ in seen.layers), default=0)


def _row_bytes(seen: Outlook, options: Options) -> int:
    if options.level == "counts" or not seen.layers:
        return 0
    facts = tuple(
        LayerFacts(
            label=label, number=number, stack=stack, module="", router_class="", n_experts=n_experts, top_k=top_k
        )
        for number, (label, stack, n_experts, top_k) in enumerate(seen.layers)
    )
    top_k = max(each.top_k for each in facts)
    specs = array_specs(
        facts,
        n_ranks=min(top_k + options.n_runners_up, _n_experts(seen)),
        # Two bytes a logit, whichever of the half precisions the model has.
        logits_dtype="float16" if options.level == "full" else None,
        with_dropped=seen.with_capacity,
        n_sites=seen.n_adapter_sites,
    )
    return sum(each.row_bytes for each in specs.values())


def _beside(seen: Outlook, tasks: Sequence[TaskOutlook], counts: Sequence[int], options: Options) -> float:
    """Bytes of what does not grow with the rows."""
    n_layers, n_experts = _n_layers(seen), _n_experts(seen)
    n_letters = sum(
        each.n_characters * count / each.n_prompts for each, count in zip(tasks, counts, strict=True) if each.n_prompts
    )
    n_read = sum(each.n_read * count for each, count in zip(tasks, counts, strict=True))
    n_pieces = min(seen.n_vocabulary, _PIECES * n_read**0.5)
    texts = sum(counts) * _PROMPT_BYTES + n_letters * _LETTER_BYTES + n_pieces * _PIECE_BYTES
    described = _FIXED_BYTES + n_layers * (_LAYER_BYTES + n_experts * _EXPERT_BYTES)
    # How alike the experts' weights are is kept, too.
    similarity = n_layers * n_experts**2 * 4
    vectors = sum(counts) * seen.vector_bytes if options.level != "counts" else 0
    counted = len(tasks) * n_layers * n_experts * 2 if options.level == "counts" else _ARRAY_BYTES
    return texts + described + similarity + vectors + counted


def _adapter_bytes(seen: Outlook, *, n_prompts: int, n_rows: int) -> int:
    each = min(seen.adapters_a_site or n_prompts, n_rows if seen.adapters_a_site else _MOST_ADAPTERS)
    return seen.n_adapter_sites * each * seen.adapter_bytes


def _precision(seen: Outlook, options: Options) -> tuple[int, bool]:
    """Bytes of a parameter once it is loaded, and whether it lies in the machine's own memory."""
    device = seen.devices[0] if options.device == "auto" else options.device
    # Apple's devices share the machine's memory.
    on_host = not device.startswith("cuda")
    named: dict[str, Any] = {"float32": 4, "bfloat16": 2, "float16": 2}
    if options.dtype in named:
        return named[options.dtype], on_host
    return (4 if device == "cpu" else seen.dtype_bytes), on_host


def _batch_bytes(seen: Outlook, tasks: Sequence[TaskOutlook], options: Options) -> float:
    """Logits of the largest batch: what a forward holds most of, wherever the vocabulary is large."""
    widest = 1.0
    for each in tasks:
        _, written = _written(each, seen, options)
        # Where answers are generated, transformers keeps the logits of the last place only.
        generates = written > 0 and not each.n_option and not seen.by_prompt
        widest = max(widest, 1.0 if generates else each.longest + written)
    return options.batch_size * widest * seen.n_vocabulary * _LOGIT_BYTES * _LOGIT_COPIES


def _held_for_files() -> int:
    """Bytes of a container that hold files read before, which the system gives back to whoever asks."""
    try:
        lines = (_CGROUP / "memory.stat").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
