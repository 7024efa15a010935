"""Pieces of text for token ids, as a reader wants to see them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["pieces_of"]


def pieces_of(tokenizer: Any, ids: Iterable[int]) -> dict[int, str]:
    r"""The text of each token with the space that it carries; its raw name where it has no text of its own.

    Half a character of a byte-level tokenizer is no text; its raw bytes are shown as \xNN.
    """
    wanted = [each for each in dict.fromkeys(int(each) for each in ids) if 0 <= each < len(tokenizer)]
    raw = tokenizer.convert_ids_to_tokens(wanted)
    return {each: _piece(tokenizer, each, name) for each, name in zip(wanted, raw, strict=True)}


def _piece(tokenizer: Any, each: int, name: str | None) -> str:
    text = tokenizer.decode([each], clean_up_tokenization_spaces=False)
    if name is None:
        return text
    if name.startswith("▁"):
        # SentencePiece drops the space in front when a token is decoded alone.
        return " " + text.lstrip(" ")
    if "\ufffd" in text:
        return "".join(f"\\x{byte:02x}" for byte in _bytes_of(name)) or name
    return text or name


def _bytes_of(name: str) -> bytes:
    """The bytes behind a byte-level name ("ä" stands for 0xE4, "Ġ" for a space, "<0xE4>" for itself)."""
    if name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:-1], 16)])
    try:
        return bytes(_BYTE_OF[character] for character in name)
    except KeyError:
        return b""


def _byte_table() -> dict[str, int]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return table | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_table()
