from __future__ import annotations

import ast
import time
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

from analysis.load import load_balance
from app.status import _Line, doing
from app.status_sentences import WORDS, computing
from tests.traces import trace_of

APP = Path(__file__).parents[2] / "app"
# Asked through a name of their own; what is done is said where they are asked.
_CALLED = {"function"}


class Paper:
    """Keeps what is written, as a place on the page would show it."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def html(self, text: str) -> None:
        self.written.append(text)

    def empty(self) -> None:
        self.written.append("")


def until(paper: Paper, n_written: int) -> None:
    end = time.monotonic() + 20
    while len(paper.written) < n_written and time.monotonic() < end:
        time.sleep(0.02)


def test_what_takes_long_is_said_and_taken_back_and_what_is_quick_is_not():
    paper = Paper()
    line = _Line(paper)
    line.begin("Adding up")
    line.end()
    line.begin("Clustering <experts>")
    line.begin("a part of it")
    until(paper, 1)
    line.end()
    line.end()
    until(paper, 2)
    line.stop()
    assert paper.written == ["<span>Clustering &lt;experts&gt;&nbsp;…</span>", ""]


def test_words_are_asked_for_only_where_they_are_said():
    paper = Paper()
    line = _Line(paper)
    asked = []
    line.begin(lambda: asked.append("now") or "Never said")
    line.end()
    line.stop()
    assert asked == []
    assert paper.written == []
    with doing("nothing that a page could say"):
        pass


def test_what_the_page_waits_for_is_said_when_it_is_drawn():
    def page():
        import streamlit as st

        from app import status

        with status.told():
            st.title("A view")
            status.waiting_for("Tasks are being clustered")
            status.waiting_for("Tasks are being clustered")
            status.waiting_for("UMAP is being computed")

    test = AppTest.from_function(page).run(timeout=60)
    assert not test.exception
    [told] = [each.proto.body for each in test.get("html")]
    assert told == "<span>Tasks are being clustered · UMAP is being computed&nbsp;…</span>"


def test_every_question_of_the_app_has_words():
    asked = set()
    for source in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of_cache = node.func.attr in ("answer", "answer_over") and ast.unparse(node.func.value) == "cache"
                if of_cache or (node.func.attr == "ask" and ast.unparse(node.func.value) == "sides"):
                    asked.add(ast.unparse(node.args[0 if not of_cache else 1]).rpartition(".")[2])
    assert asked - set(WORDS) <= _CALLED
    assert len(asked) > 50


def test_words_say_of_how_much():
    trace = trace_of(np.array([[[0], [1]], [[0], [2]]]), n_experts=4)
    assert computing(load_balance, (trace,), is_whole=True).endswith("(8 experts)")
    assert computing(load_balance, (trace,), is_whole=False) == WORDS["load_balance"]
