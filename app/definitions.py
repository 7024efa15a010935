"""What each number means: the sections of docs/metrics.md, the one source."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

__all__ = ["definition_of", "definitions"]

_SOURCE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
_HEADING = re.compile(r"^##+ +(?P<title>.+?) *$", re.MULTILINE)


@cache
def definitions() -> dict[str, str]:
    """Every definition by its heading.

    Returns:
        heading, as `_slug` writes it → the heading and its text, as Markdown.
    """
    if not _SOURCE.is_file():
        return {}
    text = _SOURCE.read_text("utf-8")
    found = list(_HEADING.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return {
        _slug(match["title"]): f"**{match['title'].strip('`')}**\n{text[match.end() : end].rstrip()}"
        for match, end in zip(found, ends, strict=True)
    }


def definition_of(name: str) -> str | None:
    """The definition whose heading is, or begins with, this name; None where there is none."""
    slug = _slug(name)
    known = definitions()
    if slug in known:
        return known[slug]
    return next((text for heading, text in known.items() if heading.startswith(slug)), None)


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", title.lower()).strip()
