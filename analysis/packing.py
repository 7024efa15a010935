"""Putting experts into slots: replicas of the busy ones, packs of even load, packs of experts that come together.

Legend: E expert, S slot, N pack.
"""

from __future__ import annotations

import numpy as np

__all__ = ["even_packs", "packs_together", "replicated"]


def replicated(load_E: np.ndarray, *, n_slots: int) -> np.ndarray:
    """(S) the expert in each slot: each once, then again and again the one with most load a replica."""
    n_replicas = np.ones(len(load_E), dtype=np.int64)
    for _ in range(n_slots - len(load_E)):
        n_replicas[np.argmax(load_E / n_replicas)] += 1
    return np.repeat(np.arange(len(load_E)), n_replicas)


def even_packs(weight_S: np.ndarray, *, n_packs: int) -> np.ndarray:
    """(S) the pack of each thing: the heaviest first, each into the lightest pack that has room.

    All packs hold as many things, so their number must divide them.
    """
    room = len(weight_S) // n_packs
    pack_S = np.full(len(weight_S), -1, dtype=np.int64)
    total, held = np.zeros(n_packs), np.zeros(n_packs, dtype=np.int64)
    for thing in np.argsort(-weight_S, kind="stable"):
        pack = int(np.argmin(np.where(held < room, total, np.inf)))
        pack_S[thing] = pack
        total[pack] += weight_S[thing]
        held[pack] += 1
    return pack_S


def packs_together(together_EE: np.ndarray, *, load_E: np.ndarray, n_packs: int, slack: float) -> np.ndarray:
    """(E) the pack of each expert: even packs, then swaps that bring experts together that tokens choose together.

    A swap is made only while no pack grows beyond the heaviest of the even packs or (1 + slack) times the mean,
    whichever is more.
    """
    pack_E = even_packs(load_E, n_packs=n_packs)
    member_EN = np.eye(n_packs)[pack_E]
    limit = max((load_E @ member_EN).max(), (1 + slack) * load_E.sum() / n_packs)
    together_EE = together_EE - np.diag(np.diag(together_EE))
    for _ in range(4 * len(load_E)):
        member_EN = np.eye(n_packs)[pack_E]
        tied_EN = together_EE @ member_EN
        total_N = load_E @ member_EN
        own_E = tied_EN[np.arange(len(pack_E)), pack_E]
        # What both gain in the other's pack, less the tie between the two, which stays cut.
        gain_EE = tied_EN[:, pack_E] + tied_EN[:, pack_E].T - own_E[:, None] - own_E - 2 * together_EE
        moved_EE = load_E - load_E[:, None]
        heavier_EE = np.maximum(total_N[pack_E][:, None] + moved_EE, total_N[pack_E] - moved_EE)
        allowed = (pack_E[:, None] != pack_E) & (heavier_EE <= limit + 1e-9)
        gain_EE = np.where(allowed, gain_EE, -np.inf)
        one, other = np.unravel_index(int(gain_EE.argmax()), gain_EE.shape)
        if not gain_EE[one, other] > 1e-9:
            break
        pack_E[one], pack_E[other] = pack_E[other], pack_E[one]
    return pack_E
