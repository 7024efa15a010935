"""Model folders that the app can record, and what each model is in two sentences."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.recordings.kept import Request

__all__ = ["MODELS_VARIABLE", "SAMPLE_TASKS", "Model", "about", "found_models", "place_of", "request_for", "shown_path"]

MODELS_VARIABLE = "ROUTESCOPE_MODELS"
_REPOSITORY = Path(__file__).resolve().parents[2]
_SAMPLES = _REPOSITORY / "sample_checkpoints"
SAMPLE_TASKS = _REPOSITORY / "sample_tasks"
_N_SENTENCES = 2
# A sentence ends before a capital, an emphasis or the end; "13.0 M" and "e.g. this" do not end one.
_END = re.compile(r"(?<=[.!?])\s+(?=[*_`\[(]*[A-Z])")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


@dataclass(frozen=True)
class Model:
    """A folder with a model in it.

    Attributes:
        name: of the folder, and of the run that recording it makes.
        folder: where it is.
    """

    name: str
    folder: str


def found_models() -> tuple[Model, ...]:
    """The sample models, or those below the folders that the environment names; each a folder with a config.json."""
    named = os.environ.get(MODELS_VARIABLE)
    places = [Path(each).expanduser() for each in named.split(os.pathsep) if each] if named else [_SAMPLES]
    folders = [config.parent for place in places for config in sorted(place.glob("*/config.json"))]
    return tuple(Model(name, str(folder)) for name, folder in {each.name: each for each in folders}.items())


def request_for(model: Model, *, runs: Path, replaces: bool = False) -> Request:
    """What recording a model over the sample tasks asks for."""
    return Request(
        model=shown_path(Path(model.folder)),
        tasks=(shown_path(SAMPLE_TASKS),),
        out=str(runs / model.name),
        replaces=replaces,
    )


def about(folder: str | Path) -> str:
    """What a model is: the first two sentences of its card, else what its files say; plain text.

    Returns:
        text; empty where the folder says nothing.
    """
    folder = Path(folder)
    return _of_card(folder / "README.md") or _of_metrics(folder / "metrics.json") or _of_config(folder / "config.json")


def _of_card(path: Path) -> str:
    if not path.is_file():
        return ""
    text = _FRONT_MATTER.sub("", path.read_text("utf-8", "replace").replace("\r\n", "\n"))
    paragraphs = (each.strip() for each in re.split(r"\n\s*\n", text))
    first = next((each for each in paragraphs if each and each[0] not in "#<!|`-="), "")
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", first)
    plain = re.sub(r"[*`]|(?<!\w)_|_(?!\w)", "", plain)
    return " ".join(_END.split(" ".join(plain.split()))[:_N_SENTENCES])


def _of_metrics(path: Path) -> str:
    facts = _json(path).get("model", {})
    if not isinstance(facts, dict) or "class" not in facts:
        return ""
    parts = [
        f"{facts['n_layers']} layers" if "n_layers" in facts else "",
        f"{facts['n_experts']} experts a layer" if "n_experts" in facts else "",
        f"{facts['top_k']} selected" if "top_k" in facts else "",
    ]
    n_parameters = facts.get("parameters")
    size = f" with {n_parameters / 1e6:,.1f} M parameters" if isinstance(n_parameters, int) else ""
    what = ", ".join(filter(None, parts))
    return f"A {facts['class']}{size}. {f'It has {what}.' if what else ''}".strip()


def _of_config(path: Path) -> str:
    config = _json(path)
    names = config.get("architectures") or [config.get("model_type")]
    return f"A {names[0]}. The folder holds no model card." if names[0] else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def place_of(shown: str) -> Path:
    """Where a path lies that `shown_path` gave, whatever folder the app was started from."""
    return _REPOSITORY / shown


def shown_path(path: Path) -> str:
    """The path as the record should name it: within the repository, where recordings run, without the machine's."""
    return str(path.relative_to(_REPOSITORY)) if path.is_relative_to(_REPOSITORY) else str(path.resolve())
