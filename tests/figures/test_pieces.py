import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from figures.pieces import plotly_text, shown_piece, shown_text, snippet


@pytest.mark.parametrize(
    ("piece", "text", "name"),
    [
        (" the", " the", None),
        (" ", "␣", "space"),
        ("    ", "␣␣␣␣", "space × 4"),
        ("\n", "⏎\n", "newline"),
        (":\n", ":⏎\n", None),
        ("\t", "⇥", "tab"),
        ("", "∅", "empty token"),
        ("<0x0A>", "⟨0A⟩", "part of a character, 0A"),
        (r"\xe6\x9d", "⟨E6 9D⟩", "part of a character, E6 9D"),
        ("\ufffd", "\ufffd", "part of a character"),
        ("\x07", "␇", "control character u+0007"),
        ("\u202e", "[U+202E]", "control character right-to-left override"),
        ("\u202eevil", "[U+202E]evil", None),
        ("\u0301", "◌\u0301", "combining mark"),
        ("<script>", "<script>", None),
        ("می\u200cخواهم", "می\u200cخواهم", None),
    ],
)
def test_a_piece_is_shown_so_that_nothing_hides(piece, text, name):
    shown = shown_piece(piece)
    assert (shown.text, shown.name) == (text, name)


@given(st.text())
def test_no_shown_text_turns_what_stands_beside_it(text):
    turning = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
    assert not turning & set(shown_text(text))
    assert not turning & set(shown_piece(text).text)


@given(st.text(min_size=1))
def test_every_piece_has_a_picture_or_a_name(piece):
    shown = shown_piece(piece)
    assert shown.text
    assert shown.name or shown.text.strip()


def test_a_label_keeps_its_markup_as_text():
    assert plotly_text("<b>bold</b> & <a href='x'>") == "&lt;b&gt;bold&lt;/b&gt; &amp; &lt;a href='x'&gt;"
    go.Figure().add_annotation(text=plotly_text("<img src=x onerror=alert(1)>"))


def test_long_words_are_broken_into_lines():
    assert plotly_text("aaaa bb cccccccc", width=4) == "aaaa<br>bb<br>cccc<br>cccc"


def test_a_snippet_says_where_it_cuts():
    assert snippet("one\n two   three", n_characters=20) == "one two three"
    assert snippet("x" * 50, n_characters=10) == "x" * 9 + "…"
