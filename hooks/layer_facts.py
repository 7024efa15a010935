"""What can be told of a router before it has run: its place, its name, its numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from hooks.selection_rule import Grouping
from hooks.taps.tap import Tap
from routing.facts import LayerFacts

__all__ = ["clean_path", "groupings_named", "layer_facts", "layer_labels"]

# What wrappers (compile, FSDP, DDP, PEFT) put into a path.
WRAPPER_PARTS = frozenset(
    {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module", "base_layer"}
)
STACKS = {
    "vision": "vision",
    "visual": "vision",
    "image": "vision",
    "audio": "audio",
    "talker": "talker",
    "encoder": "encoder",
}
PREFIXES = {"encoder": "enc", "vision": "vis", "audio": "aud", "talker": "talker"}
SUFFIXES = {"attn": "attn", "attention": "attn", "vision": "vis"}

N_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
TOP_K = ("top_k", "num_experts_per_tok", "moe_topk", "moe_top_k", "top_k_experts", "num_selected_experts")
N_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
N_GROUPS = ("num_group", "n_group", "num_expert_groups")
TOP_GROUPS = ("topk_group", "top_groups", "num_limited_groups")


def clean_path(path: str) -> str:
    """A module's path without the parts that wrappers add, so that the same model has the same paths."""
    path = path.removeprefix("base_model.model.")
    return ".".join(part for part in path.split(".") if part not in WRAPPER_PARTS)


def layer_facts(tap: Tap, path: str, config: object | None) -> LayerFacts:
    """Facts of one router from the modules and the configuration; the first forward completes them."""
    holders = (tap.router, tap.experts, tap.block, config)
    number, stack = _place(path)
    return LayerFacts(
        label="",
        number=number,
        stack=stack,
        module=path,
        router_class=type(tap.router).__name__,
        n_experts=_first_number(holders, N_EXPERTS) or 0,
        n_zero_experts=tap.n_zero_experts,
        n_shared_experts=_n_shared(tap.block, config),
        top_k=_first_number(holders, TOP_K) or 0,
        note=tap.note,
    )


def layer_labels(sites: Sequence[tuple[str, str, int]]) -> list[str]:
    """Distinct labels of sites given as (path, stack, number).

    "L07" where the decoder is the only text stack, "enc03" and "dec03" where there are two, "vis03" for a vision
    tower; a second router in one layer carries a suffix, "L05attn".

    Returns:
        (site) · label · distinct.
    """
    two_stacks = any(stack == "encoder" for _, stack, _ in sites)
    labels: list[str] = []
    for path, stack, number in sites:
        prefix = PREFIXES.get(stack, "dec" if two_stacks else "L")
        label = f"{prefix}{number:02d}"
        tail = path.split(str(number), 1)[-1]
        suffix = next((short for word, short in SUFFIXES.items() if word in tail), "")
        # One router a layer needs no suffix, whatever its module is called.
        shared_layer = sum((other_stack, other) == (stack, number) for _, other_stack, other in sites) > 1
        label += suffix if shared_layer else ""
        while label in labels:
            label += "b"
        labels.append(label)
    return labels


def groupings_named(tap: Tap, config: object | None) -> list[Grouping]:
    """The groupings that the router's or the configuration's numbers allow, to be tried against what it did."""
    holders = (tap.router, tap.block, config)
    n_groups, top_groups = _first_number(holders, N_GROUPS), _first_number(holders, TOP_GROUPS)
    if not n_groups or not top_groups or n_groups < 2 or top_groups >= n_groups:
        return []
    return [
        Grouping(n_groups, top_groups, group_score, excluded)
        for excluded in (float("-inf"), 0.0)
        for group_score in (2, 1)
    ]


def _place(path: str) -> tuple[int, str]:
    parts = path.split(".")
    at = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    number = 0 if at is None else int(parts[at])
    before = parts[:at]
    for part in reversed(before):
        for word, stack in STACKS.items():
            if re.search(word, part):
                return number, stack
        if "decoder" in part:
            return number, "decoder"
    return number, "decoder"


def _first_number(holders: Sequence[object | None], names: Sequence[str]) -> int | None:
    for holder in holders:
        for name in names:
            value: Any = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return None


def _n_shared(block: nn.Module, config: object | None) -> int:
    if not any("shared" in name and child is not None for name, child in block.named_children()):
        return 0
    return _first_number((config,), N_SHARED) or 1
