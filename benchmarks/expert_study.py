"""Which experts serve which types of tasks, and what breaks without them: the tables of docs/study.md.

    python -m benchmarks.expert_study sample_checkpoints/olmoe-13m-balanced/traces/step-022000

Correlations are computed from the trace, knock-outs read from beside it, where `routescope knock-out` left them; no
model runs. Prints Markdown.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import xarray as xr

from analysis import feature_correlation, specialization
from analysis.stored_studies import StoredStudy, stored_studies
from routing import RoutingTrace, expert_name, open_trace

TYPES = ("extractive", "classification", "knowledge")
N_BEST = 3


def main() -> None:
    """Print the tables of one trace."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", type=Path)
    parser.add_argument("--types", nargs="+", default=list(TYPES))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    trace = open_trace(asked.trace)
    print(correlation_table(trace, asked.types, seed=asked.seed))
    # Larger sets first: a claim about a set is the stronger one.
    studies = sorted(stored_studies(trace, name="knock-out"), key=lambda each: (-_size(each), each.path.name))
    for study in studies:
        if set(asked.types) <= set(study.params.get("serves", {})):
            print(knock_out_tables(study, asked.types, task_types=trace.task_types))


def correlation_table(trace: RoutingTrace, types: Sequence[str], *, seed: int) -> str:
    """The experts that go best with each type over tasks, against the best of all experts in shuffled tasks.

    Where one is avoided more than any is used, it stands below them.
    """
    over_tasks = feature_correlation(trace, seed=seed)
    over_prompts = specialization(trace, over="task_type", seed=seed)
    rows = []
    for kind in types:
        found = over_tasks.sel(feature=kind)
        r = found["r"].to_series().dropna().sort_values(ascending=False, kind="stable")
        best = list(r.index[:N_BEST])
        # Of three experts a layer, to avoid one is to share the other two.
        if -r.iloc[-1] > r.iloc[0]:
            best.append(r.index[-1])
        rows += [_correlation_row(kind, str(layer), int(expert), found, over_prompts) for layer, expert in best]
    return _markdown(f"r over {len(trace.tasks)} tasks, {trace.n_prompts} prompts", pd.DataFrame(rows))


def _correlation_row(
    kind: str, layer: str, expert: int, found: xr.Dataset, over_prompts: xr.Dataset
) -> dict[str, object]:
    here = {"layer": layer, "expert": expert}
    prompt_level = over_prompts.sel(group=kind, **here)
    return {
        "type": kind,
        "tasks": int(found["n_tasks"]),
        "expert": expert_name(layer, expert),
        "r": f"{float(found['r'].sel(here)):.2f}",
        "best of all by chance, 95 %": f"{float(found['null_95']):.2f}",
        "p": _p(float(found["p_value"].sel(here))),
        "use by its prompts ÷ by all": f"{2 ** float(prompt_level['lift']):.2f}",
        "q over prompts": _p(float(prompt_level["q_value"])),
    }


def knock_out_tables(study: StoredStudy, types: Sequence[str], *, task_types: Mapping[str, str]) -> str:
    """What one study found: effects on the types and on the tasks of a set's own, inside against outside, and pairs."""
    effects, sets = study.tables["effects"], study.tables["sets"]
    chosen = sets[sets["random"] == 0]
    named = {
        str(name): ", ".join(
            expert_name(str(layer), int(expert)) for layer, expert in zip(at["layer"], at["expert"], strict=True)
        )
        for name, at in chosen.groupby("set", sort=False)
    }
    n_prompts = int(effects.loc[effects["group"] == "all", "n_prompts"].max())
    columns = ("nll_change", "low", "high", "random_mean", "random_low", "random_high", "p_value")
    rows = [
        {"without": f"{row['set']}: {named[row['set']]}", "prompts": row["group"], "n": int(row["n_prompts"])}
        | _numbers(row, columns)
        for row in effects.to_dict("records")
        if row["group"] in (*types, "all")
    ]
    size = f"{_size(study)} {'expert' if _size(study) == 1 else 'experts'} a set"
    title = f"Change of the loss, {size}, {study.params['n_random']} random sets, {n_prompts} prompts"
    parts = [_markdown(f"{title} (`{study.path.name}`)", pd.DataFrame(rows))]
    if "score_change" in effects and effects["score_change"].notna().any():
        columns = (
            "score_change", "score_low", "score_high",
            "random_score_mean", "random_score_low", "random_score_high", "score_p_value",
        )  # fmt: skip
        rows = [
            {"without": row["set"], "prompts": row["group"], "score": f"{row['score_before']:.3f}"}
            | _numbers(row, columns)
            for row in effects.to_dict("records")
            if row["group"] in (*types, "all") and math.isfinite(row["score_change"])
        ]
        parts.append(_markdown("Change of the score, prompts with options", pd.DataFrame(rows)))
    columns = ("nll_change", "low", "high", "random_mean", "random_low", "random_high", "p_value")
    rows = [
        {"without": row["set"], "its tasks": row["group"], "n": int(row["n_prompts"])} | _numbers(row, columns)
        for row in study.tables.get("by_task", pd.DataFrame()).to_dict("records")
        if study.params["serves"][row["set"]] == task_types.get(row["group"])
    ]
    if rows:
        parts.append(_markdown("Change of the loss, task by task", pd.DataFrame(rows)))
    columns = ("difference", "low", "high", "random_mean", "random_low", "random_high", "p_value")
    rows = [
        {"set": row["set"], "its prompts": f"{row['inside']:+.3f}", "others": f"{row['outside']:+.3f}"}
        | _numbers(row, columns)
        for row in study.tables["dissociation"].to_dict("records")
    ]
    parts.append(_markdown("Its own prompts less the others", pd.DataFrame(rows)))
    columns = ("interaction", "low", "high", "random_mean", "random_low", "random_high", "p_value")
    four = ("a_on_a", "a_on_b", "b_on_b", "b_on_a")
    rows = [
        {"a": row["a"], "b": row["b"]} | {name: f"{row[name]:+.3f}" for name in four} | _numbers(row, columns)
        for row in study.tables["double"].to_dict("records")
    ]
    if rows:
        parts.append(_markdown("Double dissociation", pd.DataFrame(rows)))
    return "\n".join(parts)


def _numbers(row: dict[str, float], columns: Sequence[str]) -> dict[str, str]:
    value, low, high, mean, least, most, p = (row[name] for name in columns)
    return {
        "change": f"{value:+.3f} [{low:+.3f}, {high:+.3f}]",
        "random sets": f"{mean:+.3f} [{least:+.3f}, {most:+.3f}]",
        "p": f"{p:.3f}",
    }


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _size(study: StoredStudy) -> int:
    return max(len(experts) for experts in study.params["sets"].values())


def _markdown(title: str, table: pd.DataFrame) -> str:
    lines = [f"{title}", "", " | ".join(("", *table.columns, "")).strip(), "| --- " * len(table.columns) + "|"]
    lines += [" | ".join(("", *(str(cell) for cell in row), "")).strip() for row in table.itertuples(index=False)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
