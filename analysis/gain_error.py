"""How sure a difference in what two runs tell about tasks is.

Legend: P prompt, B block of prompts, L layer.
"""

from __future__ import annotations

import numpy as np

from analysis.information import informed
from analysis.jackknife import blocks_of_prompts, jackknife_spread
from analysis.nulls import Dealer
from analysis.rates import Over, group_of_prompt, prompt_rates
from analysis.scan import Phase
from routing.trace import RoutingTrace

__all__ = ["gain_error"]

# A block left out takes as many permutations as tell its mean, not its tail.
_MOST_PERMUTATIONS = 60


def gain_error(
    trace: RoutingTrace,
    control: RoutingTrace,
    *,
    over: Over,
    phase: Phase | None,
    n_permutations: int,
    n_blocks: int,
    seed: int,
) -> np.ndarray:
    """Standard error of the difference of `task_information` shares, from leaving out blocks of prompts.

    A prompt that both hold is left out of both at once, so what is hard about it does not count twice.

    Returns:
        (L) standard error · share of the entropy of groups · NaN with fewer than two blocks.
    """
    block_P, n_blocks = blocks_of_prompts(trace, n_blocks=n_blocks, seed=seed)
    if n_blocks < 2:
        return np.full(trace.n_layers, np.nan)
    block_of = dict(zip(trace.prompts["prompt"], block_P, strict=True))
    # Prompts of the control alone are dealt to blocks, too.
    dealt, _ = blocks_of_prompts(control, n_blocks=n_blocks, seed=seed + 1)
    names = control.prompts["prompt"]
    blocks = (block_P, np.array([block_of.get(name, own) for name, own in zip(names, dealt, strict=True)], dtype=int))
    dealer = Dealer(n_permutations=min(n_permutations, _MOST_PERMUTATIONS), seed=seed)
    one, other = (
        _shares(each, of_prompt, over=over, phase=phase, n_blocks=n_blocks, dealer=dealer)
        for each, of_prompt in zip((trace, control), blocks, strict=True)
    )
    return jackknife_spread(one - other)


def _shares(
    trace: RoutingTrace, block_P: np.ndarray, *, over: Over, phase: Phase | None, n_blocks: int, dealer: Dealer
) -> np.ndarray:
    """(B, L) share of what there is to know about the group, with one block left out."""
    groups, group_P = group_of_prompt(trace, over=over)
    found = np.full((n_blocks, trace.n_layers), np.nan)
    for rates in prompt_rates(trace, phase=phase):
        for number in range(rates.rate_PLE.shape[1]):
            rate_PE = rates.rate_PLE[:, number]
            routed_P = np.isfinite(rate_PE).any(axis=-1)
            for block in range(n_blocks):
                kept_P = routed_P & (block_P != block)
                row = informed(np.nan_to_num(rate_PE[kept_P]), group_P[kept_P], len(groups), dealer=dealer)
                found[block, rates.layers.start + number] = row["share"]
    return found
