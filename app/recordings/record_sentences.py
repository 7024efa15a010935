"""What the page says of recordings: how large one will be and why, how far it is, how it ended."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from app.commands.terminal import bytes_in_words
from app.recordings.estimate import Estimate, Options
from app.recordings.listed import State
from app.recordings.live import Live
from app.recordings.outlook import Outlook
from app.sentences import and_list, count, escaped, times
from routing import expert_name

__all__ = [
    "ICONS",
    "duration",
    "first_and_rest",
    "of_disk",
    "of_foreign",
    "of_live",
    "of_memory",
    "of_prompts",
    "of_rest",
    "of_room",
    "why_no_name",
]

ICONS: dict[State, tuple[str, str]] = {
    "under way": (":material/radio_button_checked:", "blue"),
    "finished": (":material/check_circle:", "green"),
    "cancelled": (":material/stop_circle:", "orange"),
    "failed": (":material/error:", "red"),
    "cut off": (":material/content_cut:", "orange"),
}
_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z“])")
# Other letters take several bytes, nine in the name of the folder that says how far it is.
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,79}", re.ASCII)


def duration(seconds: float) -> str:
    """A time as it is said: 40 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def first_and_rest(message: str) -> tuple[str, str]:
    """The sentence that says what is wrong, and what follows it."""
    first, *rest = _END.split(" ".join(message.split()), maxsplit=1)
    return first, " ".join(rest)


def of_prompts(size: Estimate, *, unit: str) -> str:
    """How much is recorded."""
    about = f"{count(size.n_prompts, 'prompt')}"
    if unit == "prompt":
        return f"{about}, one row each: these routers decide once a prompt."
    bound = f", at most {size.most_rows:,}" if size.most_rows > size.n_rows else ""
    return f"{about}, about {size.n_rows:,} tokens{bound}."


def of_disk(size: Estimate, seen: Outlook, options: Options) -> str:
    """How the size on disk is computed."""
    if size.disk_bytes is None:
        return "How many experts there are shows in the first forward only, so the size is not known before."
    n_layers = len(seen.layers)
    unit = "prompt" if seen.by_prompt else "token"
    adapters = (
        f" Generated adapters, each kept once, take {bytes_in_words(size.adapter_bytes)} of it."
        if size.adapter_bytes
        else ""
    )
    if not size.row_bytes:
        return (
            f"Level counts keeps a number for each task, layer and expert, however many {unit}s there are; the rest is "
            f"the prompts' texts and how alike the experts' weights are.{adapters}"
        )
    layer_bytes = size.row_bytes / n_layers
    kept = "ids, scores, weights and logits" if options.level == "full" else "ids, scores and weights"
    bound = ""
    if size.most_disk_bytes is not None and size.most_rows > size.n_rows:
        bound = f" At most {bytes_in_words(size.most_disk_bytes)}, if no answer ends before its limit."
    return (
        f"{size.n_rows:,} {unit}s × {count(n_layers, 'layer')} × {layer_bytes:,.0f} bytes: {kept} of "
        f"{_experts(seen)} as level {options.level} writes them, and the {unit}'s own columns. "
        f"Texts and tables are added.{bound}{adapters}"
    )


def of_memory(size: Estimate, seen: Outlook, options: Options) -> str:
    """How the memory is computed."""
    if size.memory_bytes is None:
        return "The model's size is not known without its weights, so its memory cannot be told beforehand."
    where = "" if size.is_on_host else f" The weights and the batch lie on {_device(seen, options)}, not counted here."
    return (
        f"{seen.n_parameters / 1e6:,.1f} M parameters take {bytes_in_words(size.weight_bytes)}, the logits of a batch "
        f"of {options.batch_size} up to {bytes_in_words(size.batch_bytes)}, the libraries "
        f"{bytes_in_words(seen.process_bytes)}; what a forward needs beside them is added.{where}"
    )


def of_room(size: Estimate, *, free: int, memory: int | None, folder: str) -> tuple[str, str]:
    """Why it does not fit.

    Returns:
        a sentence if the disk is too small, and one if the memory may be; each empty where there is room.
    """
    most = size.most_disk_bytes or 0
    disk = memory_short = ""
    if most > free:
        disk = (
            f"The disk of {escaped(folder)} has {bytes_in_words(free)} free, but this recording may take "
            f"{bytes_in_words(most)}: lower the level or the limits, or make room."
        )
    if memory is not None and size.memory_bytes is not None and size.memory_bytes > memory:
        memory_short = (
            f"This machine has {bytes_in_words(memory)} of memory free, but the recording will take about "
            f"{bytes_in_words(size.memory_bytes)}, so the system may end it: lower the batch size."
        )
    return disk, memory_short


def of_rest(*, free: int, memory: int | None, folder: str) -> str:
    """What is free."""
    ram = f", and {bytes_in_words(memory)} of memory" if memory is not None else ""
    return f"{bytes_in_words(free)} are free in {escaped(folder)}{ram}."


def of_foreign(seen: Outlook, unknown: Sequence[str]) -> str:
    """Which tasks the model cannot be told."""
    names = and_list([escaped(each) for each in unknown])
    them = "it is" if len(unknown) == 1 else "they are"
    return f"This {seen.model_class} is told the task of each text, and was not trained on {names}: {them} not offered."


def of_live(live: Live) -> str:
    """What stands out of the load so far."""
    share = live.load.to_numpy()
    factor = share * np.isfinite(share).sum(axis=1, keepdims=True)
    seen = f"After {count(live.n_rows, live.unit)}"
    if not np.isfinite(factor).any():
        return f"{seen} no expert was chosen yet."
    layer, expert = np.unravel_index(int(np.nanargmax(factor)), factor.shape)
    name = escaped(expert_name(str(live.load["layer"].values[layer]), int(expert)))
    idle = int((factor == 0).sum())
    rest = f"; {count(idle, 'expert')} {'was' if idle == 1 else 'were'} not chosen yet" if idle else ""
    return (
        f"{seen}, **{name}** is the busiest: {times(float(factor[layer, expert]))} the even share of its layer{rest}. "
        "These are counts of a run under way, without intervals; the Load view judges them once it is finished."
    )


def why_no_name(name: str, taken: Sequence[str]) -> str:
    """Why a trace cannot have this name, empty where it can."""
    if not name:
        return "The trace needs a name."
    if not _NAME.fullmatch(name):
        return (
            f"“{escaped(name)}” cannot name a folder: use letters from A to Z, digits, dots, dashes and "
            "underscores, 80 at most, and begin with a letter or a digit."
        )
    if name in taken:
        return f"There is a recording named “{escaped(name)}” already: choose another name, or delete that one first."
    return ""


def _experts(seen: Outlook) -> str:
    sizes = sorted({n for _, _, n, _ in seen.layers})
    return f"{sizes[0]} experts" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} experts"


def _device(seen: Outlook, options: Options) -> str:
    return seen.devices[0] if options.device == "auto" else options.device
