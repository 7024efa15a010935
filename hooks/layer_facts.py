"""What can be told of a router before it has run: its place, its name, its numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from hooks.selection_rule import Grouping
from hooks.taps.tap import Tap
from routing.facts import LayerFacts

__all__ = ["clean_path", "groupings_named", "in_order", "layer_facts", "layer_labels"]

# What wrappers (compile, FSDP, DDP, PEFT) put into a path.
WRAPPER_PARTS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module", "base_layer"})
STACKS = {
    "vision": "vision",
    "visual": "vision",
    "image": "vision",
    "audio": "audio",
    "talker": "talker",
    "encoder": "encoder",
    "decoder": "decoder",
}
WORDS_OF_CLASS = re.compile("Vision|Audio|Talker")
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


def layer_facts(tap: Tap, path: str, *, ancestors: Sequence[nn.Module] = ()) -> LayerFacts:
    """Facts of one router from the modules and the configuration; the first forward completes them.

    Args:
        tap: the reader of the router.
        path: path of its block, cleaned.
        ancestors: the modules around the block, the nearest first.
    """
    owner = next((module for module in (tap.block, *ancestors) if hasattr(module, "config")), None)
    config = getattr(owner, "config", None)
    # Shared experts lie in the block or beside it.
    layer = next(iter(ancestors), None)
    holders = (tap.router, tap.experts, tap.block, config)
    number, stack = _place(path, owner_class=type(owner).__name__)
    return LayerFacts(
        label="",
        number=number,
        stack=stack,
        module=path,
        router_class=type(tap.router).__name__,
        n_experts=_first_number(holders, N_EXPERTS) or 0,
        n_zero_experts=tap.n_zero_experts,
        n_shared_experts=_n_shared((tap.block, layer), config),
        top_k=_first_number(holders, TOP_K) or 0,
        capacity=_capacity(tap.router),
        note=tap.note,
    )


def in_order(facts: Sequence[LayerFacts]) -> list[int]:
    """The order in which routers decide: stack by stack, layer by layer, attention before the rest of its layer.

    Returns:
        (site) · place among the given · a permutation.
    """
    stacks = list(dict.fromkeys(each.stack for each in facts))

    def key(place: int) -> tuple[int, int, bool]:
        each = facts[place]
        return stacks.index(each.stack), each.number, "att" not in each.module.rsplit(".", 1)[-1]

    return sorted(range(len(facts)), key=key)


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


def _place(path: str, *, owner_class: str) -> tuple[int, str]:
    parts = path.split(".")
    at = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    number = 0 if at is None else int(parts[at])
    # A tower that is a model of its own tells by its class alone.
    for part in (*reversed(parts[:at]), *WORDS_OF_CLASS.findall(owner_class)):
        for word, stack in STACKS.items():
            if word in part.lower():
                return number, stack
    return number, "decoder"


def _first_number(holders: Sequence[object | None], names: Sequence[str]) -> int | None:
    for holder in holders:
        for name in names:
            value: Any = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return None


def _capacity(router: nn.Module) -> int | None:
    # Where the capacity is a share of the batch, it is another number in every forward.
    by_share = getattr(router, "moe_eval_capacity_token_fraction", 0) > 0
    return None if by_share else _first_number((router,), ("expert_capacity",))


def _n_shared(holders: Sequence[nn.Module | None], config: object | None) -> int:
    children = [name for holder in holders if holder is not None for name, _ in holder.named_children()]
    if not any("shared" in name for name in children):
        return 0
    return _first_number((config,), N_SHARED) or 1
