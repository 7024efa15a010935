"""Read texts with models that stay loaded: `python -m app.tries.worker HOME SECONDS`.

Every line on the standard input names a folder in HOME with a request; how it stands is said on the standard output, a
line of JSON each. The process ends when nothing was asked for that many seconds, or when whoever started it does; then
HOME goes, too, and with it every text.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from app.tries.asked import TryRequest, leave, read_request
from routing import RecordingError, RoutingError

if TYPE_CHECKING:
    from analysis.interventions import OneText

__all__ = ["Models", "answer", "main"]

_MOST_MODELS = 2
_MOST_BYTES = 65536


class Models:
    """The models that were asked for last, loaded."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, tuple[Any, ...]], OneText] = {}

    def holds(self, folder: str) -> bool:
        """Whether a model is loaded, as its folder is now."""
        return (folder, _stamp(Path(folder))) in self._loaded

    def reader(self, folder: str) -> OneText:
        """The model of a folder.

        Raises:
            RecordingError: there is no model in the folder.
        """
        path = Path(folder)
        if not (path / "config.json").is_file():
            msg = f"There is no model in {folder} any more. Choose another one above."
            raise RecordingError(msg)
        key = folder, _stamp(path)
        found = self._loaded.pop(key, None)
        if found is None:
            from analysis.interventions import OneText
            from hooks import load_model

            while len(self._loaded) >= _MOST_MODELS:
                self._loaded.pop(next(iter(self._loaded)))
            found = OneText(*load_model(folder), name=folder)
        self._loaded[key] = found
        return found


def answer(request: TryRequest, folder: Path, reader: OneText) -> None:
    """Leave what is asked in a folder.

    Raises:
        RoutingError: the text cannot be read, or what is asked cannot be changed.
    """
    from analysis.interventions import Change

    if request.text is None:
        return
    if request.change is None:
        read = reader.read(request.text, out=folder / "trace", task=request.task)
        leave(folder, {"likeliest": read.likeliest}, why_not=reader.why_not_changed)
        return
    found = reader.changed(request.text, Change(**asdict(request.change)), out=folder / "trace")
    tables = {"likeliest": found.likeliest, "tokens": found.tokens}
    if found.runner_ups is not None:
        tables["runner_ups"] = found.runner_ups
    leave(folder, tables, taken_out=found.taken_out, put_in=found.put_in)


def main(home: Path, idle_seconds: float) -> None:
    """Answer until nobody asks."""
    # What libraries print must not be taken for our words.
    words = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    models = Models()
    for line in _lines(idle_seconds):
        folder = Path(line)
        stage, message = _worked(folder, models, words)
        if stage is not None:
            _say(words, folder, stage=stage, message=message)
        if not (folder / "wanted").exists():
            # Whoever asked has gone meanwhile: nothing of the text stays.
            shutil.rmtree(folder, ignore_errors=True)
    if _is_alone():
        shutil.rmtree(home, ignore_errors=True)


def _worked(folder: Path, models: Models, words: TextIO) -> tuple[str | None, str]:
    """Answer one request.

    Returns:
        how it ended, None where nobody waits any more · why it failed.
    """
    try:
        request = read_request(folder)
        _say(words, folder, stage="reading" if models.holds(request.model) else "loading")
        reader = models.reader(request.model)
        _say(words, folder, stage="reading")
        answer(request, folder, reader)
    except RoutingError as error:
        return "failed", " ".join([str(error), *getattr(error, "__notes__", ())])
    except Exception as error:  # noqa: BLE001 - whoever waits is told, and the next text is read
        if not (folder / "wanted").exists():
            return None, ""
        traceback.print_exc()
        return "failed", f"The text could not be read: {type(error).__name__}: {error}"
    return "done", ""


def _lines(idle_seconds: float) -> Iterator[str]:
    """What is asked, line by line, until nobody asks for a while."""
    held = b""
    until = time.monotonic() + idle_seconds
    while select.select([0], [], [], max(0.0, until - time.monotonic()))[0]:
        read = os.read(0, _MOST_BYTES)
        if not read:
            return
        *whole, held = (held + read).split(b"\n")
        for line in whole:
            yield line.decode("utf-8")
        until = time.monotonic() + idle_seconds


def _is_alone() -> bool:
    """Whether nobody can ask any more."""
    return bool(select.select([0], [], [], 0)[0]) and not os.read(0, 1)


def _say(words: TextIO, folder: Path, **told: str) -> None:
    # Nobody listens any more once the app has ended, and then so do we.
    with suppress(BrokenPipeError):
        words.write(json.dumps({"folder": folder.name} | told) + "\n")
        words.flush()


def _stamp(folder: Path) -> tuple[Any, ...]:
    """Changes when the weights in a folder do."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
    return tuple((each.name, each.stat().st_mtime_ns, each.stat().st_size) for each in files)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
