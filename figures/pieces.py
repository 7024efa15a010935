"""Text as it may be shown: nothing invisible, nothing that an axis label or a page would execute."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Piece", "plotly_text", "shown_piece", "shown_text", "snippet"]

_BLANKS = {" ": "␣", "\n": "⏎\n", "\r": "␍", "\t": "⇥", "\u00a0": "⍽", "\u3000": "⬚"}
_BLANK_NAMES = {
    " ": "space",
    "\n": "newline",
    "\r": "carriage return",
    "\t": "tab",
    "\u00a0": "no-break space",
    "\u3000": "ideographic space",
}
# Joiners are part of Persian words and of emoji: they stay where letters stand beside them.
_JOINERS = {"\u200c", "\u200d"}
# Format characters (Cf) hold the overrides that reverse what follows; the others have no glyph anywhere.
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn")
# Half a character, as the recorder writes it and as SentencePiece names it.
_BYTES = re.compile(r"(?:\\x[0-9a-f]{2})+|<0x[0-9A-Fa-f]{2}>")


class Piece(NamedTuple):
    """A token's text for the eye, and a name for it where the eye (or a screen reader) would find none."""

    text: str
    name: str | None
    kind: str  # "text", "blank", "bytes", "control"


def _code(character: str) -> str:
    return f"[U+{ord(character):04X}]"


def _visible(character: str) -> str:
    """A stand-in for what has no picture of its own, or would turn the text around it."""
    point = ord(character)
    if character in "\n\t":
        return {"\n": "⏎\n", "\t": "⇥\t"}[character]
    if point < 0x20:
        return chr(0x2400 + point)
    if point == 0x7F:
        return "␡"
    if unicodedata.category(character) in _UNSEEN and character not in _JOINERS:
        return _code(character)
    return character


@lru_cache(maxsize=1 << 16)
def shown_piece(piece: str) -> Piece:
    """One token of the vocabulary as it is shown in a passage.

    Blank tokens get a sign (␣ ⏎ ⇥), control and direction characters their code, and a lone part of a
    character (a byte-level token inside an emoji, say) is named as such.

    Returns:
        text, accessible name (None where the text speaks for itself), kind.
    """
    if piece == "":
        return Piece("∅", "empty token", "blank")
    if _BYTES.fullmatch(piece):
        codes = " ".join(re.findall(r"x([0-9A-Fa-f]{2})", piece)).upper()
        return Piece(f"⟨{codes}⟩", f"part of a character, {codes}", "bytes")
    if set(piece) <= {"\ufffd"}:
        return Piece("\ufffd" * len(piece), "part of a character", "bytes")
    if set(piece) <= set(_BLANKS):
        text = "".join(_BLANKS[character] for character in piece)
        names = [_BLANK_NAMES[character] for character in piece]
        if len(set(names)) == 1 and len(names) > 1:
            return Piece(text, f"{names[0]} × {len(names)}", "blank")
        return Piece(text, ", ".join(names), "blank")
    if set(piece) <= _JOINERS:
        return Piece("".join(_code(character) for character in piece), "joiner", "control")
    text = "".join(map(_visible, piece))
    if all(unicodedata.category(character) in ("Mn", "Me") for character in piece):
        # An accent of its own would climb onto the token before it.
        return Piece("◌" + text, "combining mark", "bytes")
    if all(unicodedata.category(character) in _UNSEEN for character in piece):
        names = [unicodedata.name(character, f"U+{ord(character):04X}").lower() for character in piece]
        return Piece(text, "control character " + ", ".join(names), "control")
    return Piece(text, None, "text")


def shown_text(text: str) -> str:
    """A text with its control and direction characters made visible; line breaks stay line breaks.

    Returns:
        the text, safe to set as the content of an element (not as markup).
    """
    # Most lines hold nothing to replace, and a map shows thousands.
    return "\n".join(
        line if line.isprintable() else "".join(each if each == "\t" else _visible(each) for each in line)
        for line in text.split("\n")
    )


def snippet(text: str, *, n_characters: int = 120) -> str:
    """The beginning of a text on one line, for a list or a tooltip.

    Returns:
        at most n_characters characters, with … where something was cut.
    """
    # Cutting first keeps a list of ten thousand long prompts cheap.
    line = " ".join(shown_text(text[: 4 * n_characters]).split())
    return line if len(line) <= n_characters else line[: n_characters - 1].rstrip() + "…"


def plotly_text(text: str, *, width: int | None = None) -> str:
    """A text as a Plotly label or hover: its markup is shown, never obeyed.

    Plotly reads a subset of HTML in every label and tooltip.

    Returns:
        escaped text, broken into lines of about `width` characters where one is given.
    """
    lines = shown_text(text).split("\n") if width is None else _wrapped(shown_text(text), width)
    return "<br>".join(html.escape(line, quote=False) for line in lines)


def _wrapped(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        while len(word) > width:
            word, rest = word[:width], word[width:]
            lines += [line, word] if line else [word]
            line, word = "", rest
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line or not lines else lines
