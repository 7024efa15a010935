"""Every view of the app, in the order and groups of the navigation."""

from __future__ import annotations

from functools import partial
from importlib import import_module

from app.collector import leave_out_libraries
from app.views.page import Render, View

__all__ = ["VIEWS"]

_EXPERTS, _INSIDE, _SERVING = "Experts and texts", "Inside the model", "Serving"


def _view(module: str) -> Render:
    render: Render = import_module(f"app.views.{module}.view").render
    # Again at each visit: much is imported only once a question needs it.
    leave_out_libraries()
    return render


VIEWS = (
    View(
        title="Overview",
        question="What was recorded, is it trustworthy, what stands out?",
        url="overview",
        icon=":material/dashboard:",
        load=partial(_view, "overview"),
    ),
    View(
        title="Tasks",
        question="Which experts serve which tasks?",
        url="tasks",
        group=_EXPERTS,
        icon=":material/grid_on:",
        load=partial(_view, "tasks"),
    ),
    View(
        title="Load",
        question="Who does the work, where is it unbalanced, and for which tasks?",
        url="load",
        group=_EXPERTS,
        icon=":material/balance:",
        load=partial(_view, "load"),
    ),
    View(
        title="Map",
        question="What is routed alike?",
        url="map",
        group=_EXPERTS,
        icon=":material/scatter_plot:",
        load=partial(_view, "map"),
    ),
    View(
        title="Tokens",
        question="What happened to this text?",
        url="tokens",
        group=_EXPERTS,
        icon=":material/segment:",
        load=partial(_view, "tokens"),
        needs=("assignments",),
    ),
    View(
        title="Try it",
        question="What happens to a text of mine, and what if the router chose otherwise?",
        url="try_it",
        group=_EXPERTS,
        icon=":material/edit_note:",
        load=partial(_view, "try_it"),
    ),
    View(
        title="Expert",
        question="What does this expert do?",
        url="expert",
        group=_EXPERTS,
        icon=":material/badge:",
        load=partial(_view, "expert"),
    ),
    View(
        title="Groups",
        question="What sets two groups of prompts apart?",
        url="groups",
        group=_EXPERTS,
        icon=":material/compare_arrows:",
        load=partial(_view, "groups"),
        needs=("assignments",),
    ),
    View(
        title="Together",
        question="Which experts work together, and along which paths?",
        url="together",
        group=_INSIDE,
        icon=":material/hub:",
        load=partial(_view, "together"),
        needs=("assignments",),
    ),
    View(
        title="Unselected",
        question="What did the router almost do?",
        url="unselected",
        group=_INSIDE,
        icon=":material/alt_route:",
        load=partial(_view, "unselected"),
        needs=("assignments",),
        reads_weights=True,
    ),
    View(
        title="Adapters",
        question="Which adapter does each task get, and is it its own?",
        url="adapters",
        group=_INSIDE,
        icon=":material/extension:",
        load=partial(_view, "adapters"),
    ),
    View(
        title="Routes",
        question="Which whole layers does each task take?",
        url="routes",
        group=_INSIDE,
        icon=":material/route:",
        load=partial(_view, "routes"),
        needs=("assignments",),
    ),
    View(
        title="Compare",
        question="What changed between two runs?",
        url="compare",
        group=_INSIDE,
        icon=":material/difference:",
        load=partial(_view, "compare"),
    ),
    View(
        title="Causes",
        question="What breaks when an expert is gone?",
        url="causes",
        group=_INSIDE,
        icon=":material/science:",
        load=partial(_view, "causes"),
    ),
    View(
        title="Placement",
        question="Where should experts live?",
        url="placement",
        group=_SERVING,
        icon=":material/dns:",
        load=partial(_view, "placement"),
        needs=("assignments",),
    ),
)
