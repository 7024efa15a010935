from __future__ import annotations

import gc
import sys
import types
import weakref

import pytest

from app import collector
from app.view_list import VIEWS


@pytest.fixture
def thawed():
    gc.unfreeze()
    yield
    gc.unfreeze()


def imported(monkeypatch: pytest.MonkeyPatch, *, n: int) -> None:
    for number in range(n):
        name = f"imported_later_{number}"
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))


def test_what_was_imported_is_left_out_of_collections_once(monkeypatch, thawed):
    monkeypatch.setattr(collector, "_n_left_out", 0)
    collector.leave_out_libraries()
    assert gc.get_freeze_count() > 10_000
    gc.unfreeze()
    collector.leave_out_libraries()
    assert gc.get_freeze_count() == 0  # nothing new came
    imported(monkeypatch, n=30)
    collector.leave_out_libraries()
    assert gc.get_freeze_count() > 10_000


def test_cycles_of_before_and_after_are_freed(monkeypatch, thawed):
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    before = weakref.ref(Cycle())
    monkeypatch.setattr(collector, "_n_left_out", 0)
    collector.leave_out_libraries()
    assert before() is None
    after = weakref.ref(Cycle())
    gc.collect()
    assert after() is None


def test_opening_a_view_leaves_out_what_it_imported(monkeypatch, thawed):
    monkeypatch.setattr(collector, "_n_left_out", 0)
    VIEWS[0].load()
    assert gc.get_freeze_count() > 10_000
