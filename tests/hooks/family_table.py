"""The families of transformers that route, one row each; docs/families.md is written from this and from the tests."""

from __future__ import annotations

from tests.hooks.families import Family
from tests.hooks.family_rows import a_to_f, g_to_l, m_to_z

__all__ = ["EXCLUDED", "FAMILIES"]

FAMILIES: tuple[Family, ...] = (*a_to_f.ROWS, *g_to_l.ROWS, *m_to_z.ROWS)

EXCLUDED: dict[str, str] = {
    "vitpose_backbone": "Picks an expert by a data set number that the caller gives; no router decides anything.",
    "granite_docling": "Its density router predicts a number for an image; it routes no token to an expert.",
}
