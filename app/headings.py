"""Headings in order: sections below the title of the page, parts below their section, or below the title alone.

A screen reader goes from heading to heading, and takes a level that is left out for something that is missing.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Literal

import streamlit as st

__all__ = ["begin", "part", "section"]

Width = int | Literal["stretch", "content"]

_LEVEL: ContextVar[int] = ContextVar("level", default=2)


def begin() -> None:
    """A page begins: what it has parts of is itself."""
    _LEVEL.set(2)


def section(title: str, *, width: Width = "stretch") -> None:
    """Begin a section of the page.

    Args:
        title: one of its kind on a page.
        width: as Streamlit's elements take it.
    """
    _LEVEL.set(3)
    with st.container(key=f"section_{re.sub(r'[^a-z0-9]+', '_', title.lower())}", width=width):
        st.markdown(f"## {title}")


def part(text: str, *, width: Width = "stretch") -> None:
    """Begin a part of what was begun last, such as a figure.

    Args:
        text: the heading, and after an empty line what stands below it.
        width: as Streamlit's elements take it.
    """
    st.markdown(f"{'#' * _LEVEL.get()} {text}", width=width)
