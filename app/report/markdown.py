"""The Markdown of our own sentences and definitions as HTML, in which every text stays a text."""

from __future__ import annotations

import html

__all__ = ["blocks_html", "inline_html"]


def inline_html(markdown: str) -> str:
    """One line: escapes, **bold** and `code`; everything else is shown as it stands.

    Returns:
        HTML without any element but strong and code.
    """
    parts: list[str] = []
    is_bold = is_code = False
    place = 0
    while place < len(markdown):
        character = markdown[place]
        if character == "\\" and not is_code and place + 1 < len(markdown) and not markdown[place + 1].isalnum():
            parts.append(html.escape(markdown[place + 1]))
            place += 2
        elif character == "`":
            parts.append("</code>" if is_code else "<code>")
            is_code = not is_code
            place += 1
        elif markdown.startswith("**", place) and not is_code:
            parts.append("</strong>" if is_bold else "<strong>")
            is_bold = not is_bold
            place += 2
        else:
            parts.append(html.escape(character))
            place += 1
    return "".join(parts) + ("</code>" if is_code else "") + ("</strong>" if is_bold else "")


def blocks_html(markdown: str) -> str:
    """Paragraphs and lists; lines that belong together are joined.

    Returns:
        HTML of p, ul and li around `inline_html`.
    """
    parts: list[str] = []
    for block in markdown.strip().split("\n\n"):
        paragraph: list[str] = []
        items: list[str] = []
        for line in block.split("\n"):
            if line.startswith("- "):
                items.append(line[2:])
            elif items:
                items[-1] += " " + line.strip()
            elif line.strip():
                paragraph.append(line.strip())
        if paragraph:
            parts.append(f"<p>{inline_html(' '.join(paragraph))}</p>")
        if items:
            parts.append("<ul>" + "".join(f"<li>{inline_html(item)}</li>" for item in items) + "</ul>")
    return "\n".join(parts)
