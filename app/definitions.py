"""What each number means: the sections of docs/metrics.md, the one source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Definition", "column_meaning", "definition_of", "definitions", "resolved"]

_SOURCE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
_HEADING = re.compile(r"^##+ +(?P<title>.+?) *$", re.MULTILINE)
_PART = re.compile(r"^- \*\*(?P<label>[^*]+?)\.\*\* +(?P<text>.*?)(?=^- |\Z)", re.MULTILINE | re.DOTALL)
_COLUMN = re.compile(r"`(?P<name>\w+)`: (?P<meaning>.*?)(?=; `\w+`: |\.?\Z)", re.DOTALL)
_COMMON_COLUMN = re.compile(r"^- (?P<names>`\w+`(?:, `\w+`)*): (?P<meaning>.*?)(?=^- |\Z)", re.MULTILINE | re.DOTALL)
_COMMON = "common columns"
# "As `n_dead`." sends the reader elsewhere; what stands there is shown in its place.
_REFERENCE = re.compile(r"(?:That of |As )?`(?P<name>\w+)`\.")
_CHANCE = ("Null", "Interval")
_INTERVAL = re.compile(r"_(low|high)$")


@dataclass(frozen=True)
class Definition:
    """One section of docs/metrics.md.

    Attributes:
        name: its heading, without the marks of code.
        parts: label → text, as Markdown, in the order of the section; what the section defines of columns is apart.
        columns: column of its table → what it holds.
        text: the whole section as Markdown, the heading in bold.
    """

    name: str
    parts: dict[str, str]
    columns: dict[str, str]
    text: str

    @property
    def short(self) -> str:
        """Definition and unit in one paragraph, for a hint."""
        told = [self.parts[label] for label in ("Definition", "Unit") if label in self.parts]
        return " ".join(told) or self.text


@cache
def definitions() -> dict[str, Definition]:
    """Every definition by its heading.

    Returns:
        heading, in lower case and with blanks for what is neither letter nor digit → its section.
    """
    if not _SOURCE.is_file():
        return {}
    text = _SOURCE.read_text("utf-8")
    found = list(_HEADING.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return {
        _slug(match["title"]): _section(match["title"].strip("`"), text[match.end() : end])
        for match, end in zip(found, ends, strict=True)
    }


def definition_of(name: str) -> Definition | None:
    """The definition whose heading is, or begins with, this name; None where there is none."""
    slug = _slug(name)
    known = definitions()
    if slug in known:
        return known[slug]
    return next((section for heading, section in known.items() if slug and heading.startswith(slug)), None)


def column_meaning(column: str, *, within: Sequence[str] = ()) -> str | None:
    """What a column of a table holds.

    Args:
        column: its name; ends of intervals are told by the column that they belong to.
        within: headings that the table belongs to, which are asked before all others.

    Returns:
        a phrase as Markdown, None where no section tells.
    """
    plain = _INTERVAL.sub("", column)
    told = _meaning(plain, within)
    if told is None or plain == column:
        return told
    end = "Lower" if column.endswith("low") else "Upper"
    return f"{end} end of the 95 % interval of {plain}: {told}"


def _meaning(column: str, within: Sequence[str]) -> str | None:
    sections = [section for name in within if (section := definition_of(name)) is not None]
    for section in sections:
        if column in section.columns:
            return section.columns[column]
    known = definitions()
    if (own := known.get(_slug(column))) is not None:
        return own.short
    for section in sections:
        # A column that the definition speaks of by name is told by the definition.
        if f"`{column}`" in section.text:
            return section.short
    return known[_COMMON].columns.get(column) if _COMMON in known else None


def _section(title: str, body: str) -> Definition:
    if _slug(title) == _COMMON:
        columns = {
            name: _joined(match["meaning"])
            for match in _COMMON_COLUMN.finditer(body)
            for name in re.findall(r"`(\w+)`", match["names"])
        }
        return Definition(title, {}, columns, f"**{title}**\n{body.rstrip()}")
    parts = {match["label"]: _joined(match["text"]) for match in _PART.finditer(body)}
    columns = {match["name"]: match["meaning"] for match in _COLUMN.finditer(parts.pop("Columns", ""))}
    return Definition(title, parts, columns, f"**{title}**\n{body.rstrip()}")


def resolved(section: Definition, label: str) -> str:
    """A part of a section; where it only names another section, with what stands there."""
    text = section.parts[label]
    reference = _REFERENCE.fullmatch(text)
    other = definition_of(reference["name"]) if reference else None
    if other is None or other.name == section.name:
        return text
    for wanted in (label, *(_CHANCE if label in _CHANCE else ())):
        if wanted in other.parts:
            return f"{text[:-1]}: {other.parts[wanted]}"
    return text


def _joined(text: str) -> str:
    return " ".join(text.split())


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", title.lower()).strip()
