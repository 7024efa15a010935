"""Tables of keys and shapes, and what a state dict says when it is read against one.

A table is a list of parts. A part is a set of keys that come together below a prefix with numbers in it; its shapes are
written in names of dimensions ("adapter bottleneck", "hidden*adapter"), so reading the shapes recovers the dimensions,
and two keys that disagree about one are found.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from moe_models.authors.errors import AuthorsFileError, listed

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """Keys that come together: where one key of ``used`` is, all of them must be.

    Attributes:
        name: what the part is called in messages and in ``Reading.places``.
        prefix: the beginning that its keys share; ``{…}`` stands for a number.
        used: the rest of each key, and its shape in names of dimensions.
        optional: keys that may be left out because they repeat others.
        unused: keys that the authors' code saves and never computes with.
        why_unused: the reason, as the end of a sentence.
        counts: the dimension that the last number of the prefix counts, from 0 and without a gap.
        needed: whether the part must be there at all.
    """

    name: str
    prefix: str
    used: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)
    why_unused: str = ""
    counts: str | None = None
    needed: bool = True

    def every(self) -> dict[str, str]:
        """All keys' ends and shapes."""
        return {**self.used, **self.optional, **self.unused}


@dataclass(frozen=True)
class Reading:
    """What a state dict says, read against a table.

    Attributes:
        dims: every dimension named in the table, recovered from shapes and numbering.
        places: for each part, the numbers of its prefix wherever it occurs, in order.
        unused: keys the authors' code never computes with, by reason.
        not_understood: keys that no part of the table names.
    """

    dims: dict[str, int]
    places: dict[str, tuple[tuple[int, ...], ...]]
    unused: dict[str, tuple[str, ...]]
    not_understood: tuple[str, ...]


def reading(table: Sequence[Part], shapes: Mapping[str, Shape], *, what: str, known: Mapping[str, int]) -> Reading:
    """Read the shapes of a state dict against a table of ``what``; ``known`` are dimensions found before.

    Raises:
        AuthorsFileError: keys of a part are missing, numbers have a gap, or shapes disagree.
    """
    found, unused, not_understood = _assigned(table, shapes)
    _require_whole(table, found, what=what)
    dims = dict(known)
    said_by = dict.fromkeys(known, "the numbering of its layers")
    for part in table:
        if part.counts:
            _count(part, found[part.name], dims, said_by, what=what)
    _read_dims(table, found, shapes, dims, said_by)
    places = {part.name: tuple(sorted(found[part.name])) for part in table}
    return Reading(dims, places, unused, not_understood)


def _assigned(
    table: Sequence[Part], shapes: Mapping[str, Shape]
) -> tuple[dict[str, dict[tuple[int, ...], set[str]]], dict[str, tuple[str, ...]], tuple[str, ...]]:
    patterns = [
        (re.compile(re.sub(r"\\\{\w+\\\}", r"(\\d+)", re.escape(part.prefix)) + "(.+)"), part) for part in table
    ]
    found = {part.name: defaultdict(set) for part in table}
    unused, not_understood = defaultdict(list), []
    for key in shapes:
        for pattern, part in patterns:
            match = pattern.fullmatch(key)
            if match and (end := match.groups()[-1]) in part.every():
                found[part.name][tuple(map(int, match.groups()[:-1]))].add(end)
                if end in part.unused:
                    unused[part.why_unused].append(key)
                break
        else:
            not_understood.append(key)
    return found, {why: tuple(keys) for why, keys in unused.items()}, tuple(not_understood)


def _require_whole(table: Sequence[Part], found: Mapping, *, what: str) -> None:
    missing = [part.prefix + next(iter(part.used)) for part in table if part.needed and not found[part.name]]
    for part in table:
        for numbers, ends in found[part.name].items():
            missing += [key_of(part, numbers) + end for end in part.used if end not in ends]
    if missing:
        msg = (
            f"This looks like {what}, but {len(missing)} of its keys are missing: {listed(missing)}. "
            "Give the whole state dict, as the training script saved it."
        )
        raise AuthorsFileError(msg)


def key_of(part: Part, numbers: tuple[int, ...]) -> str:
    """The prefix of a part with its numbers filled in."""
    left = iter(numbers)
    return re.sub(r"\{\w+\}", lambda _: str(next(left)), part.prefix)


def _count(part: Part, places: Mapping, dims: dict[str, int], said_by: dict[str, str], *, what: str) -> None:
    series = defaultdict(list)
    for numbers in sorted(places):
        series[numbers[:-1]].append(numbers[-1])
    for before, numbers in series.items():
        here = key_of(part, (*before, numbers[-1]))
        if numbers != list(range(len(numbers))):
            gap = next(number for number in range(len(numbers) + 1) if number not in numbers)
            msg = (
                f"This looks like {what}, but {key_of(part, (*before, gap))}… is missing while {here}… is there. "
                "Give the whole state dict, as the training script saved it."
            )
            raise AuthorsFileError(msg)
        _agree(part.counts, len(numbers), f"{here}…", dims, said_by)


def _read_dims(
    table: Sequence[Part],
    found: Mapping,
    shapes: Mapping[str, Shape],
    dims: dict[str, int],
    said_by: dict[str, str],
) -> None:
    derived = []
    for part in table:
        for numbers, ends in found[part.name].items():
            for end in ends:
                key, wanted = key_of(part, numbers) + end, part.every()[end].split()
                if len(shapes[key]) != len(wanted):
                    msg = (
                        f"{key} has shape {shapes[key]}, but it should have {len(wanted)} dimensions. "
                        "Give the whole state dict, as the training script saved it."
                    )
                    raise AuthorsFileError(msg)
                for name, size in zip(wanted, shapes[key], strict=True):
                    if name.isidentifier():
                        _agree(name, size, key, dims, said_by)
                    else:
                        derived.append((name, size, key))
    for name, size, key in derived:
        if (should := _value(name, dims)) is not None and should != size:
            msg = (
                f"{key} has {size} where {name} = {should} was expected. "
                "Give the whole state dict, as the training script saved it."
            )
            raise AuthorsFileError(msg)


def _value(expression: str, dims: Mapping[str, int]) -> int | None:
    operation, parts = (sum, expression.split("+")) if "+" in expression else (prod, expression.split("*"))
    values = [int(part) if part.isdigit() else dims.get(part) for part in parts]
    return None if None in values else operation(values)


def _agree(name: str, size: int, source: str, dims: dict[str, int], said_by: dict[str, str]) -> None:
    if dims.setdefault(name, size) != size:
        msg = (
            f"{source} says that {name} is {size}, but {said_by[name]} says {dims[name]}. "
            "Give the whole state dict, as the training script saved it."
        )
        raise AuthorsFileError(msg)
    said_by.setdefault(name, source)
