"""Sentences of the view Tasks on what hangs together: clusters, what layers tell, and whether it was learned."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from app.sentences import count, escaped, percent
from app.views.tasks.part_sentences import DECIDED_BY_TASK, is_known

__all__ = ["of_expert_clusters", "of_halves", "of_information", "of_task_clusters", "of_training_control"]

_FOUND = {"tree": "a tree of their signatures", "blocks": "spectral co-clustering", "density": "HDBSCAN"}


def of_expert_clusters(about: pd.Series, sizes: Sequence[int]) -> str:
    """Whether experts fall into groups, and whether these line up with types of tasks."""
    text = _clusters(about, "experts", sizes)
    if "explained" in about and is_known(about["explained"]):
        verdict = (
            "so these groups are for types of task"
            if about["types_p"] <= 0.05
            else "so the types that people gave the tasks are not what sets these groups apart"
        )
        text += (
            f" The types of the tasks explain {percent(float(about['explained']))} of how differently tasks use these "
            f"groups; types dealt at random explain up to {percent(float(about['types_95']))} "
            f"(p = {about['types_p']:.3f}), {verdict}."
        )
    if "ami_main" in about and is_known(about["agree_p_main"]):
        text += " " + _agreement("they", about, "_main", what="the types that their experts mainly serve")
    if "ami_layer" in about and is_known(about["agree_p_layer"]):
        text += " " + _of_layers(about)
    return text


def of_task_clusters(about: pd.Series, sizes: Sequence[int]) -> str:
    """Whether tasks fall into groups by their routes, and whether these are the types that people gave them."""
    text = _clusters(about, "tasks", sizes)
    if is_known(about["ami"]):
        text += " " + _agreement("they", about, "")
    if "ami_cut" in about and is_known(about["ami_cut"]):
        text += " " + _agreement(f"Cut into {int(about['n_types'])}, as many as there are types, they", about, "_cut")
    return text


def _clusters(about: pd.Series, noun: str, sizes: Sequence[int]) -> str:
    if not is_known(about["value"]) or not about["n_clusters"]:
        return escaped(str(about["note"] or "")) or f"There are no groups among these {noun}."
    if about["n_clusters"] < 2:
        return f"By {_FOUND[str(about['method'])]}, these {noun} do not fall into groups."
    clear = about["p_value"] <= 0.05
    many = " and ".join(str(each) for each in sizes) if len(sizes) <= 6 else f"{min(sizes)} to {max(sizes)}"
    text = (
        f"By {_FOUND[str(about['method'])]}, {noun} fall into {count(int(about['n_clusters']), 'group')} of {many}, "
        f"{'more clearly than' if clear else 'no more clearly than'} shuffled ones ({about['figure']} "
        f"{about['value']:.2f}, shuffled up to {about['null_95']:.2f}, p = {about['p_value']:.3f})."
    )
    if "again" in about and is_known(about["again"]):
        text += " " + _again(about)
    if is_known(about["stability"]):
        redrawn = "half of the features" if about["method"] == "blocks" else f"redrawn {noun}"
        text += f" Found again in {redrawn}: adjusted Rand index {about['stability']:.2f} of 1."
    return f"{text} {escaped(str(about['note']))}".strip()


def _again(about: pd.Series) -> str:
    """Whether other prompts give these groups again, beside what tasks dealt to prompts at random reach."""
    reach = f"[{about['again_low']:.2f}, {about['again_high']:.2f}]"
    text = f"Redrawn prompts give them again with an adjusted Rand index of {about['again']:.2f} {reach}"
    if not is_known(about["again_p"]):
        return f"{text}."
    verdict = "" if about["again_p"] <= 0.05 else ", so groups of nothing would be found again as well"
    return (
        f"{text}; with tasks dealt to prompts at random it reaches {about['again_95']:.2f} (p = "
        f"{about['again_p']:.3f}){verdict}."
    )


def _of_layers(about: pd.Series) -> str:
    words = f"AMI {about['ami_layer']:.2f}, ARI {about['ari_layer']:.2f}, p = {about['agree_p_layer']:.3f}"
    if about["agree_p_layer"] <= 0.05:
        return f"In part they are layers: experts of a layer stand together more than dealt ones ({words})."
    return f"Layers do not set them apart ({words})."


def _agreement(who: str, about: pd.Series, end: str, *, what: str = "the types that people gave the tasks") -> str:
    p = about[f"agree_p{end}"]
    verdict = "agree with" if p <= 0.05 else "agree no better than chance with"
    return (
        f"{who[0].upper()}{who[1:]} {verdict} {what}: AMI {about[f'ami{end}']:.2f}, "
        f"ARI {about[f'ari{end}']:.2f}; types dealt at random reach an AMI of {about[f'agree_95{end}']:.2f} "
        f"(p = {p:.3f})."
    )


def of_information(table: pd.DataFrame, *, noun: str) -> str:
    """Which layer tells most of the group, and what permuted prompts tell.

    Args:
        table: index layer · of `task_information`.
        noun: what is told: "task" or "type".
    """
    known = table.dropna(subset=["information_nats"])
    if known.empty:
        return "No token of this selection was routed."
    if not known["p_value"].notna().any():
        return DECIDED_BY_TASK
    sure = known[(known["p_value"] <= 0.05) & (known["excess_nats"] > 0)]
    if sure.empty:
        return (
            f"No layer's experts say more of the {noun} than permuted prompts do (at most "
            f"{known['null_95'].max():.2f} nats by chance)."
        )
    layer = str(sure["excess_nats"].idxmax())
    row = sure.loc[layer]
    return (
        f"**{escaped(layer)}** says most: {row['information_nats']:.2f} nats, {row['share']:.0%} of what there is to "
        f"know about the {noun}; permuted prompts stay below {row['null_95']:.2f}. Beyond chance in {len(sure)} of "
        f"{count(len(known), 'layer')}."
    )


def of_halves(table: pd.DataFrame, *, noun: str) -> str:
    """Whether another set of prompts would say the same."""
    known = table.dropna(subset=["rho"])
    if known.empty:
        return f"Halves need two prompts of a {noun} at least, and prompts that were routed one by one."
    least, most = known["rho"].idxmin(), known["rho"].idxmax()
    reach = (
        f"{known['rho'].min():.2f} (**{escaped(str(least))}**) to {known['rho'].max():.2f} (**{escaped(str(most))}**)"
        if len(known) > 1
        else f"{known['rho'].iloc[0]:.2f}"
    )
    if not known["p_value"].notna().any():
        return f"The two halves agree with a rank correlation of {reach}."
    sure = int((known["p_value"] <= 0.05).sum())
    return (
        f"Two halves of the prompts agree on which {noun} uses which expert with a rank correlation of {reach}; with "
        f"{noun}s dealt to prompts at random it stays below {known['null_95'].max():.2f}. Beyond that in {sure} of "
        f"{count(len(known), 'layer')}. Reliable is not learned: an untrained model is as reliable."
    )


def of_training_control(table: pd.DataFrame, *, control: str, noun: str, n_cells: int) -> str:
    """Whether what routing tells of the task was learned.

    Args:
        table: index layer · of `against_control`.
        control: what the other run is called.
        noun: "task" or "type".
        n_cells: cells of a layer.
    """
    known = table.dropna(subset=["share", "share_control"])
    if known.empty:
        return DECIDED_BY_TASK
    here, there = float(known["share"].mean()), float(known["share_control"].mean())
    who = escaped(control)
    begin = (
        f"On average over layers, routing tells {percent(max(there, 0.0))} of what there is to know about the {noun} "
        f"at {who}, and {percent(max(here, 0.0))} in this run, each beyond its own permuted prompts"
    )
    cells = (
        f" Large differences (10 points, q ≤ 0.05): {int(known['n_cells_control'].sum()):,} there, "
        f"{int(known['n_cells'].sum()):,} here, of {n_cells:,} cells."
    )
    n_layers = count(len(known), "layer")
    less, more = (int((known["gain_high"] < 0).sum()), int((known["gain_low"] > 0).sum()))
    if there > here and here > 0:
        factor = there / here
        verdict = (
            f"**At {who}, routing separates {noun}s about {factor:.1f}\N{NO-BREAK SPACE}× better than in this run**"
            if factor >= 1.5
            else f"At {who}, routing separates {noun}s as well as in this run"
        )
        return (
            f"{verdict}. {begin}; in {less} of {n_layers} the 95\N{NO-BREAK SPACE}% interval of the difference is "
            f"clear of 0. So telling {noun}s apart is no sign of learning by itself: where little is learned, a "
            f"token's state is mostly the words before it, and those name the {noun}.{cells}"
        )
    return (
        f"{begin}; in {more} of {n_layers} this run tells more with its whole 95\N{NO-BREAK SPACE}% interval, in "
        f"{less} less.{cells}"
    )
