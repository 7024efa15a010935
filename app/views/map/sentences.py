"""What a map says, and how far it may be believed, in Markdown with every text escaped."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.agreement import Agreement
from analysis.clustering import Clustering
from analysis.projection import Projection
from analysis.quality import MapQuality
from analysis.token_places import TokenPlaces
from app.sentences import and_list, count, escaped, percent

__all__ = [
    "OF_SHARED_WORDS",
    "OF_TWO_RUNS",
    "of_agreement",
    "of_cloud",
    "of_clusters",
    "of_colors",
    "of_map",
    "of_picked",
]

OF_SHARED_WORDS = (
    "Prompts of one task share its instruction, and equal words tend to be routed alike: some of what lies together "
    "here is wording, in an untrained model too."
)

OF_TWO_RUNS = (
    "Each map is laid out by itself: left and right, near and far mean nothing from one to the other. What is selected "
    "is marked in both, by name."
)


def of_cloud(cloud: TokenPlaces, *, n_tokens: int) -> str:
    """How many tokens are shown, what the two components hold, and how many neighborhoods survive.

    Args:
        cloud: the map.
        n_tokens: tokens of the trace.
    """
    n_shown = len(cloud.points)
    drawn = (
        f"{n_shown:,} of {n_tokens:,} tokens, drawn at random: as many of each task and phase. "
        if n_shown < n_tokens
        else ""
    )
    quality = cloud.quality
    fitted = f"found in {cloud.n_fitted:,} tokens, as many of each task and phase"
    if not np.isfinite(quality.trustworthiness):
        return f"{drawn}The two components were {fitted}; too few to say how far the map may be believed."
    return (
        f"{drawn}The two components, {fitted}, hold {percent(cloud.explained_share)} of the variance; on these "
        f"trustworthiness **{quality.trustworthiness:.2f}**, and **{percent(quality.neighbor_preservation)}** of each "
        f"token's {quality.n_neighbors} nearest are nearest here too. With its places shuffled the map would keep "
        f"{_shuffled(quality)}. Drag to draw around tokens, click one for its neighbors."
    )


def of_map(projection: Projection, *, noun: str, beside: MapQuality | None = None) -> str:
    """How many neighborhoods survive on the map, beside what it keeps with its places shuffled.

    Args:
        projection: the map.
        noun: what a point is.
        beside: quality of the principal components of the same items.
    """
    quality = projection.quality
    if not np.isfinite(quality.trustworthiness):
        return f"{count(len(projection.points), noun)} are too few to say how far this map may be believed."
    explained = projection.options.get("explained_share")
    share = f"The two components hold {percent(explained)} of the variance. " if explained is not None else ""
    compared = (
        ""
        if beside is None or not np.isfinite(beside.trustworthiness)
        else f"; the principal components keep {_three(beside)}"
    )
    return (
        f"{share}Trustworthiness **{quality.trustworthiness:.2f}**, continuity **{quality.continuity:.2f}**; of each "
        f"{noun}'s {quality.n_neighbors} nearest in truth, **{percent(quality.neighbor_preservation)}** are nearest "
        f"here too. With its places shuffled this map would keep {_shuffled(quality)}{compared}."
    )


def _three(quality: MapQuality) -> str:
    return f"{quality.trustworthiness:.2f}, {quality.continuity:.2f} and {percent(quality.neighbor_preservation)}"


def _shuffled(quality: MapQuality) -> str:
    return (
        f"{quality.shuffled_trustworthiness:.2f}, {quality.shuffled_continuity:.2f} and "
        f"{percent(quality.shuffled_preservation)}"
    )


def of_colors(kinds: pd.Series, *, noun: str, what: str) -> str:
    """Which kinds there are most of."""
    known = kinds.dropna()
    if known.empty:
        return f"No {noun} has a {what} that stands out beyond chance."
    counts = known.astype(str).value_counts()
    most = and_list([f"{escaped(str(name))} ({number})" for name, number in counts.items()], most=3)
    rest = len(kinds) - len(known)
    return f"By {what}: {most}" + (f"; {rest} with none beyond chance (gray)." if rest else ".")


def of_clusters(clustering: Clustering, *, noun: str, n_features: int) -> str:
    """How many clusters were found where, and whether shuffled features would give as good ones."""
    if not np.isfinite(clustering.silhouette):
        return clustering.note
    verdict = "no better than" if clustering.silhouette <= clustering.null_95 else "against"
    return (
        f"{clustering.n_clusters} clusters of {noun}s, found in all {n_features} features and not on this picture: "
        f"silhouette {clustering.silhouette:.2f}, {verdict} {clustering.null_95:.2f} where features are shuffled; "
        f"drawn again, they come back with an adjusted Rand index of {clustering.stability:.2f}. "
        f"{clustering.note}"
    ).strip()


def of_agreement(found: Agreement, *, what: str) -> str:
    """How far clusters agree with groups that people made."""
    if not np.isfinite(found.ami):
        return ""
    verdict = "beyond" if found.ami > found.null_95 else "within"
    return (
        f"They agree with {what} at an adjusted mutual information of {found.ami:.2f}, {verdict} chance "
        f"(95th percentile {found.null_95:.2f})."
    )


def of_picked(n_picked: int, *, noun: str, most: int) -> str:
    """That a lasso took in more than a link can carry."""
    return (
        f"The lasso took in {count(n_picked, noun)}; a selection carries up to {most}, for it is part of the link. "
        "Draw a smaller one, or filter by task or layer."
    )
