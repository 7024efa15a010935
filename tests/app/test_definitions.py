from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1.element_tree import Dataframe

from analysis.balance import BALANCE_UNITS
from app.definitions import column_meaning, definition_of, definitions, resolved
from app.view_list import VIEWS
from routing import save_trace
from tests.adapter_traces import hyper_moe_trace, pha_trace, task_moe_trace
from tests.traces import planted_trace

APP = Path(__file__).parents[2] / "app"
# What a call names as sections of docs/metrics.md.
KEYWORDS = ("definitions", "definition", "source", "within")
# Sections that the app never names, and why they are there.
ELSEWHERE = {
    "assignment_counts": "what most other numbers are made from",
    "routed_tokens": "what most other numbers are made from",
    "importance": "a function for notebooks",
    "router_losses": "a function for notebooks",
    "feature_overlap": "a function for notebooks",
    "partial_correlation": "a function for notebooks",
    "strongest_experts": "rows of feature_correlation",
    "prompt_features": "what prompt_correlation takes",
    "task_features": "what feature_correlation takes",
    "prompt_tokens": "the record itself, as the Tokens view shows it",
    "signatures": "what clusters and maps are made from",
    "token_sample": "what the map of tokens is drawn from",
    "token_overlap": "the distance of the map of tokens",
    "routing_clusters": "clusters of signatures, in one call",
    "routing_map": "project of signatures, in one call",
    "stored_map": "a map that was made before",
    "trustworthiness": "a column of map_quality",
    "continuity": "a column of map_quality",
    "neighbor_preservation": "a column of map_quality",
    "specialists": "told among the findings",
    "expert_occurrences": "a search, whose counts stand in its list",
    "over_training": "columns of load_balance and task_information, by step",
    "prototype_relations": "told in a sentence below prototype_similarity",
    "read_placement": "a map that the reader brings",
    "main_task_types": "what expert_agreement takes",
}


def constants(node: ast.AST) -> set[str]:
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def names_in_the_app() -> set[str]:
    """Every section that some call or table of the app names."""
    found: set[str] = set()
    for source in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in KEYWORDS:
                found |= constants(node.value)
            elif isinstance(node, ast.Assign) and "_DEFINITIONS" in ast.unparse(node.targets[0]):
                values = node.value.values if isinstance(node.value, ast.Dict) else [node.value]
                found |= set().union(*map(constants, values))
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "definitions_popover":
                found |= constants(node.args[0])
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explained")
    shape = {"n_tasks": 6, "n_prompts_a_task": 6, "n_layers": 3, "n_experts": 8, "n_runners_up": 2}
    save_trace(planted_trace(seed=3, **shape), folder / "planted")
    save_trace(planted_trace(seed=4, **shape), folder / "other")
    save_trace(hyper_moe_trace(seed=0), folder / "hyper")
    save_trace(pha_trace(seed=0), folder / "pha")
    save_trace(task_moe_trace(seed=0), folder / "task-moe")
    return folder


OPTIONS = {"layout": "pca", "group_a": "tasks=facts", "other": "other", "expert": "L02.E1", "focus": "facts-001@3"}
PARTS = {
    "tasks": ("cells", "answers", "features", "controls", "structure", "layers"),
    "load": ("experts", "passes", "places", "causes", "run"),
    "together": ("pairs", "steps", "paths", "stay"),
}
PAGES = [
    *(("planted", view.url, {"part": part}) for view in VIEWS for part in PARTS.get(view.url, ("",))),
    ("planted", "placement", {"whatif": "capacity"}),
    ("planted", "compare", {"base": "other"}),
    ("hyper", "unselected", {}),
    ("pha", "adapters", {}),
    ("task-moe", "routes", {}),
]
# Tables of everything with everything have a column for each expert or task.
SQUARE = re.compile(r"E\d+|spans|sentiment|facts|names|topics|capitals")


# Most tables are asked for before a page is drawn, which saves drawing it twice.
OPEN = {
    f"data_{text}": True
    for source in APP.rglob("*.py")
    for node in ast.walk(ast.parse(source.read_text("utf-8")))
    if isinstance(node, ast.keyword) and node.arg == "key"
    for text in constants(node.value)
}


def data_popovers(block: Any) -> Iterator[Any]:
    """What opens a table on a page."""
    for child in getattr(block, "children", {}).values():
        if child.type == "popover" and "-data_" in child.proto.popover.id:
            yield child
        yield from data_popovers(child)


@pytest.mark.parametrize(("run", "view", "query"), PAGES, ids=lambda each: each if isinstance(each, str) else "")
def test_every_column_that_a_view_offers_is_explained(open_app, runs, run, view, query):
    page = open_app("" if view == "overview" else view, OPTIONS | {"run": run} | query, runs=runs, state=OPEN)
    assert not page.exception
    closed = [each.proto.popover for each in data_popovers(page.main) if not each.proto.popover.open]
    if closed:
        for popover in closed:
            page.session_state[popover.id.split("-", 2)[2]] = True
        page.run()
        assert not page.exception
    silent = set()
    for popover in data_popovers(page.main):
        (table,) = (each for each in popover.children.values() if isinstance(each, Dataframe))
        config = json.loads(table.proto.columns)
        silent |= {str(column) for column in table.value.columns if "help" not in config.get(str(column), {})}
    assert {column for column in silent if not SQUARE.fullmatch(column)} == set()


def test_every_definition_that_a_view_asks_for_is_written():
    names = names_in_the_app()
    assert {"lift", "expert_load", "load_balance", "feature_correlation"} <= names
    assert sorted(name for name in names if definition_of(name) is None and column_meaning(name) is None) == []


def test_no_section_is_written_for_nobody():
    named = {*names_in_the_app(), *BALANCE_UNITS} | {
        text for source in APP.rglob("*.py") for text in constants(ast.parse(source.read_text("utf-8")))
    }
    sections = {section.name for section in definitions().values() if section.parts}
    assert sorted(sections - named - set(ELSEWHERE)) == []
    assert sorted(set(ELSEWHERE) - sections) == []


def test_a_section_is_read_in_its_parts():
    section = definition_of("expert_load")
    assert section.name == "expert_load"
    assert section.text.startswith("**expert_load**")
    assert section.parts["Question"] == "Who does the work?"
    assert section.parts["Definition"] == "p_e = c_e / (T k)."
    assert "activation_rate**" not in section.text
    assert "\n#" not in section.text
    assert "Columns" not in section.parts


def test_every_section_has_what_it_is_its_unit_and_where_it_misleads():
    for section in definitions().values():
        if section.parts:
            labels = " ".join(section.parts)
            assert all(word in labels for word in ("Question", "Definition", "nit", "isleads".lower())), section.name


def test_a_column_is_told_by_its_table_before_all_others():
    assert column_meaning("share", within=("retrieval",)) == "of the task's prompts"
    assert column_meaning("share", within=("near_ties",)).startswith("of tokens whose margin")
    assert column_meaning("layer").startswith("label of the layer")
    assert column_meaning("no such column", within=("retrieval",)) is None


def test_the_end_of_an_interval_is_told_by_its_column():
    assert column_meaning("max_over_mean_low", within=("load_balance",)).startswith(
        "Lower end of the 95 % interval of max_over_mean: max c_e / μ"
    )


def test_a_part_that_names_another_section_shows_what_stands_there():
    section = definition_of("cv")
    assert section.parts["Interval"] == "`load_balance`."
    assert "200 draws of prompts" in resolved(section, "Interval")
    assert resolved(section, "Unit") == section.parts["Unit"]


def test_numbers_on_cards_are_explained_beside_them(open_app):
    overview = open_app()
    assert {card.label for card in overview.metric if not card.help} == set()
    expert = open_app("expert", {"expert": "L02.E3"})
    assert len(expert.metric) == 4
    assert {card.label for card in expert.metric if not card.help} == set()


def test_an_explanation_says_what_is_looked_at(open_app):
    whole = open_app("load")
    part = open_app("load", {"tasks": "facts", "layers": "L01"})
    assert any("360 tokens (T), 36 prompts, 6 tasks, 3 layers" in each.value for each in whole.caption)
    assert any("60 tokens (T), 6 prompts, 1 task, 1 layer" in each.value for each in part.caption)


@pytest.mark.parametrize("name", ["there is no such metric", ""])
def test_what_is_not_defined_has_no_definition(name):
    assert definition_of(name) is None


def test_headings_are_found_whatever_their_case():
    assert definition_of("Expert Load") == definition_of("expert_load")
    assert len(definitions()) > 20


def test_an_explanation_shows_what_went_into_the_number(open_app):
    load = open_app("load")
    told = next(each.value for each in load.markdown if "Least even layer" in each.value)
    assert "Least even layer: **L02**" in told
    assert "Assignments of its tokens, T k: **720**" in told
    assert re.search(r"Busiest, L02·E3, over the mean, max c\\_e / μ: \*\*\d\.\d\d, 95", told.replace("c_e", "c\\_e"))
    tasks = open_app("tasks", {"experts": "L02.E3"})
    told = next(each.value for each in tasks.markdown if "Rate of its prompts" in each.value)
    assert "× L02·E3**" in told
    assert "Permutations of the prompts: **1,000**" in told
