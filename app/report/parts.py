"""What a report is made of: sections of sentences, figures and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go

__all__ = ["Panel", "Section"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """A figure with everything that belongs to it, as the app shows it.

    Attributes:
        title: what the picture shows, as Markdown.
        figure: the picture; None for a table alone.
        reading: a sentence that follows the data, as Markdown.
        table: gives the numbers of the picture; called when the report is written.
        definitions: headings of docs/metrics.md behind the numbers.
        key: name of the files that it is saved to.
    """

    title: str
    figure: go.Figure | None
    reading: str
    table: Callable[[], pd.DataFrame]
    definitions: tuple[str, ...] = ()
    key: str = "figure"


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """One question and its answers.

    Attributes:
        title: the question, as Markdown.
        sentences: answers without a figure, as Markdown.
        panels: answers with one.
    """

    title: str
    sentences: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = field(default=())
