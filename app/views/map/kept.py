"""Maps of experts and of prompts: what is asked, what is known already, what is being computed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from analysis.agreement import Agreement, agreement
from analysis.clustering import Clustering
from analysis.instances import instance_map
from analysis.maps import routing_clusters, routing_map, stored_map
from analysis.projection import Projection
from analysis.quality import MapQuality
from analysis.signatures import Values
from analysis.specialization import specialization
from analysis.token_places import TokenPlaces, token_places
from app.jobs import Job, Jobs
from routing import RoutingTrace, load_derived, save_derived

__all__ = [
    "MapQuestion",
    "Mapped",
    "PromptGroups",
    "cloud_job",
    "groups_or_job",
    "instances_or_job",
    "make_cloud",
    "make_groups",
    "make_instances",
    "make_map",
    "strongest_groups",
    "strongest_of",
    "token_cloud",
    "umap_or_job",
]

Mapped = Literal["expert", "prompt", "token", "adapter"]
_GROUPS = "prompt-groups"
_CLOUD = "token-places"
_VERSION = {"version": 1}


@dataclass(frozen=True, kw_only=True)
class MapQuestion:
    """Which UMAP is asked for.

    Attributes:
        of: what the points are.
        values: what describes them.
        n_neighbors: how many neighbors UMAP tries to keep.
        min_dist: how close UMAP may put points.
        seed: of everything random.
        most_items: most points; of more tokens or adapters a stratified draw.
    """

    of: Mapped
    values: str
    n_neighbors: int
    min_dist: float
    seed: int
    most_items: int = 4000


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptGroups:
    """Groups of prompts that are routed alike.

    Attributes:
        clustering: the groups.
        with_tasks: how far they are the tasks that the prompts come from.
    """

    clustering: Clustering
    with_tasks: Agreement


def umap_or_job(trace: RoutingTrace, question: MapQuestion, *, jobs: Jobs) -> Projection | Job:
    """The UMAP if it was ever made of this trace with these parameters, else the job that is making it.

    Args:
        trace: a trace on disk.
        question: which map.
        jobs: of this server.
    """
    if (kept := stored_map(trace, method="umap", **asdict(question))) is not None:
        return kept
    job = _job(trace, "map", jobs=jobs, **asdict(question))
    return _read_map(job.folder) if job.state == "done" and job.folder is not None else job


def instances_or_job(trace: RoutingTrace, *, seed: int, jobs: Jobs) -> Projection | Job:
    """The UMAP of a retriever's instance vectors and prototypes if it was ever made, else the job that is making it.

    Args:
        trace: a trace on disk, with instance vectors.
        seed: of UMAP.
        jobs: of this server.
    """
    job = _job(trace, "instances", jobs=jobs, seed=seed)
    return _read_map(job.folder) if job.state == "done" and job.folder is not None else job


def groups_or_job(trace: RoutingTrace, *, values: str, seed: int, jobs: Jobs) -> PromptGroups | Job:
    """Groups of prompts if they were ever found in this trace, else the job that is finding them.

    Args:
        trace: a trace on disk.
        values: what describes the prompts.
        seed: of everything random.
        jobs: of this server.
    """
    asked = {"values": values, "seed": seed}
    kept = load_derived(trace, _GROUPS, params=asked | _VERSION)
    if kept is not None:
        return _groups(kept["labels"], kept["about"])
    job = _job(trace, "groups", jobs=jobs, **asked)
    if job.state != "done" or job.folder is None:
        return job
    return _groups(pd.read_parquet(job.folder / "labels.parquet"), _read_about(job.folder))


def cloud_job(trace: RoutingTrace, *, jobs: Jobs, **asked: Any) -> Job:
    """The job that places all tokens; when it is done, `token_cloud` has them at once.

    Args:
        trace: a trace on disk.
        jobs: of this server.
        asked: as `token_cloud` takes them.
    """
    return _job(trace, "cloud", jobs=jobs, **asked)


def token_cloud(
    trace: RoutingTrace, *, values: Literal["weight", "selected"], most_items: int, n_neighbors: int, seed: int
) -> TokenPlaces:
    """All tokens of a trace on two principal components, kept beside it."""
    asked = {"values": values, "most_items": most_items, "n_neighbors": n_neighbors, "seed": seed} | _VERSION
    if (kept := load_derived(trace, _CLOUD, params=asked)) is not None:
        about = dict(kept["about"])
        return TokenPlaces(points=kept["points"], quality=MapQuality(**about.pop("quality")), **about)
    made = token_places(trace, values=values, most_items=most_items, n_neighbors=n_neighbors, seed=seed)
    about = {"explained_share": made.explained_share, "n_fitted": made.n_fitted, "quality": asdict(made.quality)}
    save_derived(trace, _CLOUD, {"points": made.points, "about": about}, params=asked)
    return made


def make_cloud(trace: RoutingTrace, folder: Path, **asked: Any) -> None:
    """Place all tokens; leave them beside the trace."""
    token_cloud(trace, **asked)


def make_map(trace: RoutingTrace, folder: Path, **question: Any) -> None:
    """Make a UMAP; leave it beside the trace, and in a folder: a trace may lie where nothing can be written."""
    _leave(routing_map(trace, method="umap", **question), folder)


def make_instances(trace: RoutingTrace, folder: Path, *, seed: int) -> None:
    """Make a UMAP of instance vectors and prototypes; leave it beside the trace, and in a folder."""
    _leave(instance_map(trace, method="umap", seed=seed), folder)


def _leave(made: Projection, folder: Path) -> None:
    about = {"method": made.method, "options": made.options, "quality": asdict(made.quality), "note": made.note}
    made.points.to_parquet(folder / "points.parquet", index=False)
    _write_about(folder, about)


def make_groups(trace: RoutingTrace, folder: Path, *, values: Values, seed: int) -> None:
    """Find groups of prompts by all their features; leave them beside the trace, and in a folder."""
    found = routing_clusters(trace, of="prompt", values=values, seed=seed)
    with_tasks = agreement(found.labels, found.labels["task"], n_permutations=200, seed=seed)
    labels = pd.DataFrame({"item": found.labels["item"].to_numpy(), "cluster": found.labels.to_numpy()})
    figures = ("n_clusters", "silhouette", "null_95", "p_value", "stability", "method", "note")
    about = {"clustering": {name: getattr(found, name) for name in figures}, "with_tasks": asdict(with_tasks)}
    labels.to_parquet(folder / "labels.parquet", index=False)
    _write_about(folder, about)
    params = {"values": values, "seed": seed} | _VERSION
    save_derived(trace, _GROUPS, {"labels": labels, "about": _read_about(folder)}, params=params)


def strongest_groups(trace: RoutingTrace, *, over: Literal["task", "task_type"]) -> pd.DataFrame:
    """What each expert serves most, if it serves anything beyond chance.

    Returns:
        (layer, expert) · group, lift · lift in log2 ratio; group missing where no lift is significant.
    """
    return strongest_of(specialization(trace, over=over))


def strongest_of(found: xr.Dataset) -> pd.DataFrame:
    """The same of lifts that were tested already.

    Returns:
        (layer, expert) · group, lift · lift in log2 ratio; group missing where no lift is significant.
    """
    lift = found["lift"].where(found["significant"] & (found["lift"] > 0)).transpose("layer", "expert", "group")
    values = np.nan_to_num(lift.to_numpy().reshape(-1, lift.sizes["group"]), nan=-np.inf)
    known = np.isfinite(values).any(axis=1)
    best = values.argmax(axis=1)
    names = lift["group"].to_numpy().astype(object)[best]
    index = pd.MultiIndex.from_product([lift["layer"].values, lift["expert"].values], names=["layer", "expert"])
    return pd.DataFrame(
        {"group": np.where(known, names, None), "lift": np.where(known, values.max(axis=1), np.nan)}, index=index
    )


def _job(trace: RoutingTrace, kind: str, *, jobs: Jobs, **asked: Any) -> Job:
    text = json.dumps(asked, sort_keys=True)
    return jobs.ensure(
        f"{kind} {trace.digest} {text}", module="app.views.map.worker", arguments=[kind, str(trace.path), text]
    )


def _read_map(folder: Path) -> Projection:
    about = _read_about(folder)
    quality = MapQuality(**about.pop("quality"))
    return Projection(points=pd.read_parquet(folder / "points.parquet"), quality=quality, **about)


def _groups(labels: pd.DataFrame, about: dict[str, Any]) -> PromptGroups:
    array = xr.DataArray(labels["cluster"].to_numpy(), dims="item", coords={"item": labels["item"].to_numpy()})
    clustering = Clustering(labels=array, by_n_clusters=pd.Series(dtype=float), **about["clustering"])
    return PromptGroups(clustering=clustering, with_tasks=Agreement(**about["with_tasks"]))


def _write_about(folder: Path, about: dict[str, Any]) -> None:
    (folder / "about.json").write_text(json.dumps(about), "utf-8")


def _read_about(folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((folder / "about.json").read_text("utf-8"))
    return about
