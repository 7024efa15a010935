"""The HTML of a report: one file with its figures, their numbers, plotly.js once, and no address of anything else."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from app.definitions import definition_of
from app.report.markdown import blocks_html, inline_html
from app.report.parts import Panel, Section
from figures.pieces import shown_text
from figures.theme import Mode

__all__ = ["report_page"]

_HERE = Path(__file__).parent
# A page of many thousand rows is slow to open; what is cut is said, and the CSV beside it holds all rows up to this.
_MOST_ROWS = 200
_MOST_CSV_ROWS = 20_000
# So many points a browser draws as vectors, which print well and need no graphics card.
_MOST_VECTORS = 3000
# At the end of a reading, and of nothing that is quoted.
_HINT, _HINT_AFTER = re.compile(r"\s+(?:Click|Drag over) [^“”]*\Z"), re.compile(r"; click [^“”]*\Z")


def report_page(
    title: str,
    *,
    subtitle: str,
    sections: Sequence[Section],
    facts: Mapping[str, Mapping[str, str]],
    mode: Mode = "light",
) -> str:
    """One self-contained HTML page.

    Every text is escaped; scripts run only with the page's own nonce, and its policy forbids every request, so that
    not even a text that slipped through could reach anything.

    Args:
        title: of the page, as plain text.
        subtitle: below it, as plain text.
        sections: what is said and shown.
        facts: tables of name and value for the end of the page, by their heading, as plain text.
        mode: look of the figures, which the page takes on.

    Returns:
        the page as text, to be written as UTF-8.
    """
    panels = [panel for section in sections for panel in section.panels]
    numbers = {id(panel): number for number, panel in enumerate(panels)}
    body = [f"<header><h1>{_text(title)}</h1><p>{_text(subtitle)}</p></header>", _contents(sections)]
    for place, section in enumerate(sections):
        # The report of one view has its question as the title already.
        heading = f"<h2>{inline_html(section.title)}</h2>" if section.title != title else ""
        body.append(f'<section id="s{place}">{heading}')
        body += [f"<p>{inline_html(sentence)}</p>" for sentence in section.sentences]
        level = 3 if heading else 2
        body += [_panel(panel, numbers[id(panel)], level=level) for panel in section.panels]
        body.append("</section>")
    body += [_definitions(panels), *(_facts(heading, rows) for heading, rows in facts.items())]
    written = "\n".join(part for part in body if part)
    specs = "\n".join(_spec(panel.figure, numbers[id(panel)]) for panel in panels if panel.figure is not None)
    # Known to nobody before the page is written, for it depends on all of it.
    nonce = hashlib.sha256((written + specs).encode("utf-8", "replace")).hexdigest()[:32]
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}' 'unsafe-eval'; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; form-action 'none'; base-uri 'none'"
    )
    style, script = ((_HERE / name).read_text("utf-8") for name in ("report.css", "report.js"))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{style}</style>
</head>
<body class="{mode}">
<noscript><p>Figures need JavaScript; sentences and tables are here without it.</p></noscript>
<main>
{written}
</main>
{specs}
<script nonce="{nonce}">{get_plotlyjs()}</script>
<script nonce="{nonce}">{script}</script>
</body>
</html>
"""


def _contents(sections: Sequence[Section]) -> str:
    links = "".join(
        f'<li><a href="#s{place}">{inline_html(section.title)}</a></li>' for place, section in enumerate(sections)
    )
    return f'<nav aria-label="Contents"><ol>{links}</ol></nav>' if len(sections) > 1 else ""


def _panel(panel: Panel, number: int, *, level: int) -> str:
    parts = [f'<figure id="p{number}"><h{level}>{inline_html(panel.title)}</h{level}>']
    if panel.figure is not None:
        height = int(panel.figure.layout.height or 450)
        label = html.escape(_plain(panel.title), quote=True)
        parts.append(
            f'<div class="plot" id="f{number}" role="img" aria-label="{label}" style="height:{height}px"></div>'
        )
    parts.append(f"<figcaption>{inline_html(_without_hints(panel.reading))}</figcaption>")
    parts.append(_table(panel, number))
    return "\n".join([*parts, "</figure>"])


def _without_hints(reading: str) -> str:
    """A sentence without what it says of clicks at its end: they are answered in the app only."""
    return _HINT_AFTER.sub(".", _HINT.sub("", reading))


def _table(panel: Panel, number: int) -> str:
    rows = panel.table()
    shown = rows.head(_MOST_ROWS)
    said = f"{len(rows):,} rows" if len(shown) == len(rows) else f"the first {len(shown):,} of {len(rows):,} rows"
    head = "".join(f"<th>{_text(name)}</th>" for name in shown.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(_value(value))}</td>" for value in row) + "</tr>"
        for row in shown.itertuples(index=False)
    )
    csv = rows.head(_MOST_CSV_ROWS).to_csv(index=False)
    kept = "" if len(rows) <= _MOST_CSV_ROWS else f" (the first {_MOST_CSV_ROWS:,} rows)"
    name = html.escape(panel.key, quote=True)
    return f"""<details><summary>Numbers: {said}</summary>
<button type="button" class="csv" data-of="c{number}" data-name="{name}.csv">Save CSV{kept}</button>
<div class="rows"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>
<script type="application/json" id="c{number}">{_json(csv)}</script>
</details>"""


def _definitions(panels: Sequence[Panel]) -> str:
    names = dict.fromkeys(name for panel in panels for name in panel.definitions)
    texts = [blocks_html(section.text) for name in names if (section := definition_of(name))]
    if not texts:
        return ""
    entries = "".join(f'<div class="definition">{text}</div>' for text in texts)
    return f'<section id="definitions"><h2>What the numbers mean</h2>{entries}</section>'


def _facts(heading: str, rows: Mapping[str, str]) -> str:
    body = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows.items())
    return f'<section><h2>{_text(heading)}</h2><table class="facts"><tbody>{body}</tbody></table></section>'


def _spec(figure: go.Figure, number: int) -> str:
    spec = json.loads(figure.to_json())
    n_points = sum(len(trace.x) for trace in figure.data if trace.type == "scattergl" and trace.x is not None)
    if n_points <= _MOST_VECTORS:
        for trace in spec["data"]:
            if trace.get("type") == "scattergl":
                trace["type"] = "scatter"
    # The page decides how wide a figure is.
    spec.get("layout", {}).pop("width", None)
    return f'<script type="application/json" id="d{number}">{_json(spec)}</script>'


def _json(value: object) -> str:
    """JSON that no text can end before its time."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return (
        written.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def _text(value: object) -> str:
    return html.escape(shown_text(str(value)))


def _plain(markdown: str) -> str:
    """Markdown without its marks, for an attribute."""
    return html.unescape(inline_html(markdown).replace("<strong>", "").replace("</strong>", "")
                         .replace("<code>", "").replace("</code>", ""))  # fmt: skip


def _value(value: object) -> str:
    if value is None or (isinstance(value, float) and value != value) or value is pd.NA:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
