"""Look at a model and tasks before they are recorded, in a process of its own: `python -m app.recordings.planner`.

The model is laid out without its weights, and the tasks are read by its tokenizer. What is found, or why nothing can be
recorded, is left in a folder.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT

from app.recordings.outlook import Outlook, TaskOutlook
from app.recordings.process import peak_bytes
from hooks.adapter_books import N_ADAPTERS_A_SITE
from hooks.conditioning import Conditioning
from hooks.encoding import context_length, encoded_prompts
from hooks.models import best_device, load_outline
from hooks.sites import Site, find_sites
from hooks.taps.hyper_moe import HyperMoeTap
from hooks.taps.task_adapters import task_adapter_taps
from routing import MAX_PARAMETERS, Prompt, RecordingError, RoutingError, Task, TaskSet, read_tasks

__all__ = ["main", "outlook"]

# Beyond these the tokens of a task are known well enough from a part of it.
_MOST_COUNTED = 1000
_SECONDS_TO_REACH = 5.0


def outlook(model: str, tasks: TaskSet, *, revision: str | None = None, trust_remote_code: bool = False) -> Outlook:
    """What a recording of a model over tasks will meet.

    Args:
        model: a local folder, or a name on the Hugging Face hub.
        tasks: what it is to be evaluated on.
        revision: branch, tag or commit on the hub.
        trust_remote_code: runs the model code of the repository itself. Off unless told.

    Raises:
        RecordingError: the model cannot be recorded, as far as that shows without its weights.
        TaskError: a prompt has no tokens.
    """
    skeleton, tokenizer = load_outline(model, revision=revision, trust_remote_code=trust_remote_code)
    sites = [] if skeleton is None else find_sites(skeleton)
    known = all(site.facts.n_experts for site in sites)
    two_stacks = bool(getattr(getattr(skeleton, "config", None), "is_encoder_decoder", False))
    return Outlook(
        model_class="the model" if skeleton is None else type(skeleton).__name__,
        layers=tuple(
            # A router that names no number of experts selects one or two; the first forward tells.
            (each.facts.label, each.facts.stack, each.facts.n_experts, each.facts.top_k or 1)
            for each in sites
            if known
        ),
        by_prompt=any(site.tap.unit == "prompt" for site in sites),
        with_capacity=any(site.facts.capacity for site in sites),
        two_stacks=two_stacks,
        writes=skeleton is None or bool(callable(getattr(skeleton, "can_generate", None)) and skeleton.can_generate()),
        n_parameters=0 if skeleton is None else sum(each.numel() for each in skeleton.parameters()),
        dtype_bytes=_dtype_bytes(getattr(skeleton, "config", None)),
        n_vocabulary=len(tokenizer) if skeleton is None else _n_vocabulary(skeleton, tokenizer),
        **_adapters(skeleton, sites),
        context=None if skeleton is None else context_length(skeleton),
        devices=_devices(),
        process_bytes=peak_bytes(),
        tasks=tuple(
            _task(each, tasks, skeleton=skeleton, tokenizer=tokenizer, apart=two_stacks) for each in tasks.tasks
        ),
    )


def _task(task: Task, tasks: TaskSet, *, skeleton: Any, tokenizer: Any, apart: bool) -> TaskOutlook:
    told = Conditioning(skeleton) if skeleton is not None else None
    read = tasks.only([task.name]) if told is None else told.as_read(tasks.only([task.name]))
    counted = _spread(read.prompts)
    encoded = encoded_prompts(
        counted, tokenizer=tokenizer, limit=None, n_new_tokens=[1] * len(counted), too_long="error", apart=apart
    )
    lengths = np.array([len(each.ids) for each in encoded])
    answers = np.array([max((len(option) for option in each.options), default=1) for each in encoded])
    options = [len(option) for each in encoded for option in each.options]
    targets = [each.target for each in counted if each.target]
    written = tokenizer(targets, add_special_tokens=False)["input_ids"] if targets else []
    limit = context_length(skeleton) if skeleton is not None else None
    over = 0 if limit is None else int((lengths + (0 if apart else answers) > limit).sum())
    return TaskOutlook(
        name=task.name,
        task_type=task.task_type,
        n_prompts=len(read),
        n_read=float(lengths.mean()),
        n_option=float(np.mean(options)) if options else 0.0,
        n_target=float(np.mean([len(each) for each in written])) if written else None,
        n_options=max((len(each.options) for each in counted), default=0),
        max_new_tokens=task.max_new_tokens,
        longest=int(lengths.max()),
        n_too_long=round(over * len(read) / len(counted)),
        n_characters=sum(len(each.text) for each in read.prompts),
        is_known=told is None or not told.is_needed or told.retrieves or told.knows(task.name),
    )


def _spread(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    """Some prompts from all over the task."""
    return prompts[:: max(1, -(-len(prompts) // _MOST_COUNTED))]


def _adapters(skeleton: Any, sites: Sequence[Site]) -> dict[str, int]:
    """What is kept of the adapters that a model generates."""
    sets = [(site.facts, site.tap) for site in sites if isinstance(site.tap, HyperMoeTap)]
    by_task = task_adapter_taps(skeleton) if skeleton is not None else []
    if not sets and not by_task:
        return {"n_adapter_sites": 0, "adapters_a_site": 0, "adapter_bytes": 0, "vector_bytes": 0}
    if sets:
        heads = sets[0][1].hyper_expert.hypernetwork.heads
        # One for each set of experts that can be selected, and no two tokens select alike for long.
        n_each = max(comb(facts.n_experts, facts.top_k or 1) for facts, _ in sets)
        vector = 0
    else:
        heads = skeleton.hypernetwork.heads
        # 0 where every prompt makes its own.
        n_each = 0 if skeleton.config.adapter_source == "instance" else len(skeleton.config.tasks)
        vector = 4 * skeleton.prototypes.weight.shape[-1]
    n_numbers = 2 * heads.hidden * heads.width + heads.hidden + heads.width
    return {
        "n_adapter_sites": len(sets or by_task),
        "adapters_a_site": min(N_ADAPTERS_A_SITE, n_each),
        "adapter_bytes": 4 * min(n_numbers, MAX_PARAMETERS),
        "vector_bytes": vector,
    }


def _dtype_bytes(config: Any) -> int:
    dtype = getattr(config, "dtype", None)
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
    return dtype.itemsize if isinstance(dtype, torch.dtype) else 4


def _n_vocabulary(skeleton: Any, tokenizer: Any) -> int:
    for holder in (skeleton.config, getattr(skeleton.config, "text_config", None)):
        if isinstance(size := getattr(holder, "vocab_size", None), int):
            return size
    return len(tokenizer)


def _devices() -> tuple[str, ...]:
    several = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    there = [*several, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]
    first = "cuda:0" if best_device() == "cuda" else best_device()
    return tuple(dict.fromkeys([first, *there]))


def main(folder: Path, asked: dict[str, Any]) -> None:
    """Leave the outlook in the folder, or a sentence on why there is none."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        _require_reachable(asked["model"])
        found = outlook(
            asked["model"],
            read_tasks(asked["tasks"]),
            revision=asked.get("revision"),
            trust_remote_code=bool(asked.get("trust_remote_code")),
        )
    except RoutingError as error:
        (folder / "problem.txt").write_text(str(error), "utf-8")
    else:
        (folder / "outlook.json").write_text(found.written(), "utf-8")


def _require_reachable(model: str) -> None:
    """Refuse a name on the hub at once where the hub's own library would try again for a minute.

    Raises:
        RecordingError: the hub cannot be reached, and nothing of the model was fetched before.
    """
    # Through a proxy the hub may be reached though its address is not known here.
    proxies = any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"))
    if Path(model).is_dir() or proxies or isinstance(try_to_load_from_cache(model, "config.json"), str):
        return
    host = urlsplit(ENDPOINT).hostname or ""
    try:
        socket.create_connection((host, urlsplit(ENDPOINT).port or 443), timeout=_SECONDS_TO_REACH).close()
    except OSError as error:
        msg = (
            f"The model hub cannot be reached from this machine, which holds no copy of {model} either. "
            "Give the path of a model folder, or check the network."
        )
        raise RecordingError(msg) from error


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
