"""A last touch after training: routers whose load is uneven on rows as they are.

Training balances load over what training sees: made-up questions, rows seen anew, span tasks drawn often. On plain
rows, every task as often as any other, a layer can come out less even than that. Then its router alone is moved, on
train rows, just far enough, and held near what it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import OlmoeForCausalLM, PreTrainedTokenizerFast

from .balance import assignment_counts, balance_loss, max_over_mean
from .corpus import Row
from .evaluation import packed_passes


@dataclass(frozen=True, kw_only=True)
class SettledRouter:
    """What settling did to one layer's router."""

    layer: int
    load_before: float
    load_after: float
    n_steps: int
    changed_share: float


def settle_routers(
    model: OlmoeForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[Row],
    *,
    highest: float = 1.4,
    n_steps: int = 400,
    learning_rate: float = 1e-3,
    nearness: float = 1.0,
) -> list[SettledRouter]:
    """Move the routers of the layers that are less even than wanted, first layer first, and return what was done.

    Args:
        model: changed in place, in its router weights alone.
        tokenizer: its tokenizer.
        rows: train rows, the same number of each task.
        highest: the load, maximum over mean, at which a layer is left alone and moving stops.
        n_steps: most steps for one router.
        learning_rate: Adam's.
        nearness: weight of the divergence from the router as trained.
    """
    done: list[SettledRouter] = []
    first = 0
    while True:
        inputs, loads = _router_inputs(model, tokenizer, rows, first=first)
        uneven = [number for number in range(first, len(loads)) if loads[number] > highest]
        if not uneven:
            return done
        number = uneven[0]
        gate = model.model.layers[number].mlp.gate
        done.append(
            _settled(
                gate.weight,
                inputs[number],
                layer=number,
                top_k=model.config.num_experts_per_tok,
                highest=highest,
                n_steps=n_steps,
                learning_rate=learning_rate,
                nearness=nearness,
            )
        )
        # What later layers read has changed with it, so they are measured again.
        first = number + 1
        if first == len(loads):
            return done


@torch.inference_mode()
def _router_inputs(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], *, first: int
) -> tuple[dict[int, torch.Tensor], list[float]]:
    """Return what each router from a layer on reads, (token, hidden), and each layer's load, maximum over mean."""
    read: dict[int, list[torch.Tensor]] = {}
    caught: dict[int, torch.Tensor] = {}
    handles = [
        layer.mlp.gate.register_forward_pre_hook(
            lambda _, arguments, number=number: caught.__setitem__(number, arguments[0])
        )
        for number, layer in enumerate(model.model.layers)
        if number >= first
    ]
    counts = torch.zeros((), dtype=torch.int64, device=model.device)
    try:
        for _, router_logits, valid in packed_passes(model, tokenizer, rows):
            kept = valid.reshape(-1)
            counts = counts + assignment_counts(router_logits, kept, top_k=model.config.num_experts_per_tok)
            for number, states in caught.items():
                read.setdefault(number, []).append(states[kept].clone())
    finally:
        for handle in handles:
            handle.remove()
    return {number: torch.cat(parts) for number, parts in read.items()}, max_over_mean(counts).tolist()


def _settled(
    weight: torch.nn.Parameter,
    inputs: torch.Tensor,
    *,
    layer: int,
    top_k: int,
    highest: float,
    n_steps: int,
    learning_rate: float,
    nearness: float,
) -> SettledRouter:
    """Move one router's weight in place until its load is even enough, and return what that took."""
    inputs = inputs.clone().float()
    valid = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
    moved = weight.detach().float().clone().requires_grad_()
    with torch.no_grad():
        logits = functional.linear(inputs, moved)
        trained = functional.log_softmax(logits, dim=-1)
        chosen = torch.topk(logits, top_k, dim=-1).indices.sort(-1).values
    before = load = float(max_over_mean(assignment_counts([logits], valid, top_k=top_k)))
    optimizer = torch.optim.Adam([moved], lr=learning_rate)
    step = 0
    while load > highest and step < n_steps:
        logits = functional.linear(inputs, moved)
        near = functional.kl_div(
            functional.log_softmax(logits, dim=-1), trained, log_target=True, reduction="batchmean"
        )
        (balance_loss([logits], valid.float(), balance="per-layer", top_k=top_k) + nearness * near).backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        with torch.no_grad():
            # As it will be kept: a weight that is even only in float32 would not stay even.
            logits = functional.linear(inputs, moved.to(torch.bfloat16).float())
            load = float(max_over_mean(assignment_counts([logits], valid, top_k=top_k)))
    with torch.no_grad():
        weight.copy_(moved.to(torch.bfloat16))
        changed = (torch.topk(logits, top_k, dim=-1).indices.sort(-1).values != chosen).any(-1)
    return SettledRouter(
        layer=layer,
        load_before=round(before, 3),
        load_after=round(load, 3),
        n_steps=step,
        changed_share=round(float(changed.double().mean()), 4),
    )
