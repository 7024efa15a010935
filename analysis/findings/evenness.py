"""Experts with far too much of the work, with hardly any, and with none."""

from __future__ import annotations

import math

import numpy as np

from analysis.findings.finding import Family, Finding, beyond, interval, p_text, some
from analysis.load import idle_experts, load_balance
from analysis.rates import decided_by_task, prompt_rates
from routing.selection import Selection, expert_name
from routing.trace import RoutingTrace

__all__ = ["cold", "idle", "uneven"]

UNEVEN = 1.5
COLD = 0.1
MOST_NAMED = 4


def uneven(trace: RoutingTrace, *, seed: int) -> Family | None:
    """One question a layer: does its busiest expert do more than 1.5 times the mean?"""
    table = load_balance(trace, seed=seed)
    table = table[table["max_over_mean"].notna()]
    if table.empty:
        return None
    value, low, high = (table[f"max_over_mean{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    p = beyond(value, low, high, limit=UNEVEN)
    # Of counts alone there is no interval, so the figure itself must be far beyond.
    p = np.where(np.isnan(low), np.where(value > UNEVEN**2, 0.0, 1.0), p)
    sure = np.where(np.isnan(low), value / UNEVEN, low)
    over = sure > UNEVEN
    number = int(np.argmax(np.where(over, value, -np.inf)))
    if not over[number]:
        return Family(kind="uneven", p_values=p, candidates=())
    layer, hottest = str(table.index[number]), int(table["hottest"].iloc[number])
    ends = (None, None) if np.isnan(low[number]) else (float(low[number]), float(high[number]))
    finding = Finding(
        kind="uneven",
        sentence=(
            f"{expert_name(layer, hottest, names=trace.expert_names)} takes {value[number]:.1f}{interval(*ends)} times "
            f"the mean load of its layer; {some(int(over.sum()), 'layer')} of {len(table)} "
            f"{'is' if over.sum() == 1 else 'are'} above {UNEVEN:g} times."
        ),
        effect=float(value[number]),
        effect_low=ends[0],
        effect_high=ends[1],
        unit="times the mean load",
        strength=float(1 - 1 / sure[number]),
        p_value=float(p[number]),
        uncertainty=(
            f"95 % interval from redrawn {'tasks' if decided_by_task(trace) else 'prompts'}; "
            f"p {p_text(p[number])} against {UNEVEN:g} times the mean"
            if ends[0] is not None
            else f"no interval, for the trace holds counts only: said above {UNEVEN**2:.2f} times"
        ),
        view="load",
        selection_query=Selection(layers=(layer,), experts=((layer, hottest),)).to_query(),
    )
    return Family(kind="uneven", p_values=p, candidates=((number, finding),))


def idle(trace: RoutingTrace, *, seed: int) -> Family | None:  # noqa: ARG001 (families are asked alike)
    """One question an expert: would a fair one be passed over by so many prompts?"""
    exists_LE = trace.expert_exists.to_numpy()
    p_LE = np.where(exists_LE, 1.0, np.nan)
    table = idle_experts(trace)
    layer_number = {label: number for number, label in enumerate(trace.layers)}
    candidates = []
    for row in table.to_dict("records"):
        p_LE[layer_number[row["layer"]], row["expert"]] = row["chance_idle_prompts"]
    for layer, part in table.groupby("layer", sort=False):
        chance = part["chance_idle_prompts"]
        numbers = part["expert"].tolist()
        row = part.iloc[0]
        in_layer = int(exists_LE[layer_number[layer]].sum())
        finding = Finding(
            kind="idle",
            sentence=(
                f"{some(len(numbers), 'expert')} of {in_layer} in {layer} ({_names(trace, str(layer), numbers)}) never "
                f"worked: none of {row['n_tokens']:,} {trace.unit}s of {row['n_prompts']:,} prompts chose "
                f"{'it' if len(numbers) == 1 else 'them'}."
            ),
            effect=float(len(numbers)),
            unit="experts",
            strength=len(numbers) / in_layer,
            p_value=float(chance.max()),
            uncertainty=(
                f"a fair expert would be idle with p {p_text(float(chance.max()))}, even if all tokens of a prompt "
                "went one way"
            ),
            view="load",
            selection_query=Selection(layers=(str(layer),)).to_query(),
        )
        at = int(part["chance_idle_prompts"].idxmax())
        cell = layer_number[layer] * exists_LE.shape[1] + int(table.loc[at, "expert"])
        candidates.append((cell, finding))
    return Family(kind="idle", p_values=p_LE.ravel(), candidates=candidates)


def cold(trace: RoutingTrace, *, seed: int) -> Family | None:  # noqa: ARG001 (families are asked alike)
    """One question an expert that works at all: is its rate below a tenth of the mean?"""
    if trace.level == "counts" or trace.n_prompts < 2:
        return None
    exists_LE = trace.expert_exists.to_numpy()
    p_LE, mean_LE, high_LE = (np.full(exists_LE.shape, np.nan) for _ in range(3))
    fair_L = np.full(trace.n_layers, np.nan)
    for block in prompt_rates(trace):
        there = np.isfinite(block.rate_PLE)
        n = there.sum(axis=0)
        mean = np.where(there, block.rate_PLE, 0.0).sum(axis=0) / np.maximum(n, 1)
        squares = (np.where(there, block.rate_PLE - mean, 0.0) ** 2).sum(axis=0)
        error = np.sqrt(squares / np.maximum(n - 1, 1) / np.maximum(n, 1))
        fair = mean.sum(axis=1) / np.maximum(exists_LE[block.layers].sum(axis=1), 1)
        fair_L[block.layers] = fair
        asked = (mean > 0) & (error > 0) & (n > 1)
        z = (COLD * fair[:, None] - mean) / np.where(error > 0, error, 1.0)
        tail = np.array([0.5 * math.erfc(each / math.sqrt(2)) for each in z.ravel()]).reshape(z.shape)
        p_LE[block.layers] = np.where(asked, tail, np.nan)
        mean_LE[block.layers], high_LE[block.layers] = mean, mean + 1.96 * error
    candidates = []
    for layer, label in enumerate(trace.layers):
        numbers = np.flatnonzero(high_LE[layer] < COLD * fair_L[layer])
        numbers = numbers[np.isfinite(p_LE[layer, numbers])]
        if not len(numbers):
            continue
        # The least sure of those that are named decides.
        least = int(numbers[np.argmax(p_LE[layer, numbers])])
        share = mean_LE[layer, least] / fair_L[layer]
        finding = Finding(
            kind="cold",
            sentence=(
                f"{some(len(numbers), 'expert')} of {int(exists_LE[layer].sum())} in {label} "
                f"({_names(trace, label, numbers.tolist())}) hardly "
                f"{'works' if len(numbers) == 1 else 'work'}: at most {share:.0%} of the mean rate."
            ),
            effect=float(share),
            effect_low=0.0,
            effect_high=float(high_LE[layer, least] / fair_L[layer]),
            unit="share of the mean rate",
            strength=len(numbers) / int(exists_LE[layer].sum()) * (1 - float(high_LE[layer, least] / fair_L[layer])),
            p_value=float(p_LE[layer, least]),
            uncertainty=f"p {p_text(p_LE[layer, least])} against {COLD:.0%} of the mean, from the scatter of prompts",
            view="load",
            selection_query=Selection(layers=(label,), experts=tuple((label, int(e)) for e in numbers[:20])).to_query(),
        )
        candidates.append((layer * exists_LE.shape[1] + least, finding))
    return Family(kind="cold", p_values=p_LE.ravel(), candidates=candidates)


def _names(trace: RoutingTrace, layer: str, numbers: list[int]) -> str:
    names = [expert_name(layer, number, names=trace.expert_names).partition("·")[2] for number in numbers]
    return ", ".join(names[:MOST_NAMED]) + (", …" if len(names) > MOST_NAMED else "")
