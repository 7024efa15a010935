from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from app.view_list import VIEWS

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"
SOURCES = sorted(APP.rglob("*.py"))


def test_opening_a_view_imports_no_model_library():
    script = """
import sys
sys.path.insert(0, {root!r})
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash
for view in ("", "load"):
    page = AppTest.from_file({main!r}, default_timeout=120)
    page._page_hash = calc_hash(view) if view else ""
    page.run()
    assert not page.exception, page.exception
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{"torch", "transformers", "umap", "pynndescent"}}))
"""
    code = script.format(root=str(ROOT), main=str(APP / "main.py"))
    folder = ROOT / "runs-that-do-not-exist"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={"PATH": "", "ROUTESCOPE_RUNS": str(folder), "HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_views_import_no_model_library():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from app.view_list import VIEWS; "
        "[view.load() for view in VIEWS]; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'umap'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_only_the_cache_caches_and_every_key_is_one_hashable():
    for source in SOURCES:
        tree = ast.parse(source.read_text("utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef):
                continue
            cached = [each for each in node.decorator_list if "cache_" in ast.unparse(each)]
            if not cached:
                continue
            assert source.name == "cache.py", f"{source.name}: {node.name} caches outside app/cache.py"
            arguments = node.args.args + node.args.kwonlyargs
            assert len(arguments) <= 1, f"{node.name} takes {len(arguments)} arguments; a cached function takes one key"
            unhashed = ("ndarray", "DataFrame", "DataArray", "Dataset", "list", "dict")
            assert not any(word in ast.unparse(each.annotation) for each in arguments for word in unhashed)


# The URL has one reader and one writer; what a session holds has three: the URL's past, widgets, and components.
MAY_TOUCH = {"query_params": {"state.py"}, "session_state": {"state.py", "choices.py", "exchange.py"}}


def test_only_a_few_files_touch_the_session_and_the_address():
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in MAY_TOUCH:
                of_the_few = source.parent == APP and source.name in MAY_TOUCH[node.attr]
                assert of_the_few, f"{source.relative_to(ROOT)} touches {node.attr}"


def test_nothing_at_the_top_of_app_shadows_a_library():
    # Streamlit puts app/ first on the path, so app/torch.py would be torch. Our own rooms are found through app.main.
    for path in APP.iterdir():
        name = path.stem
        if path.suffix not in (".py", "") or name.startswith((".", "__")):
            continue
        found = find_spec(name)
        # A folder without code, such as the runs/ that recordings make, is no library.
        if found is None or found.origin is None:
            continue
        assert APP in Path(str(found.origin)).parents, f"app/{path.name} shadows {found.origin}"
        assert name not in sys.stdlib_module_names


def test_views_are_not_in_a_folder_that_streamlit_scans():
    assert not (APP / "pages").exists()


def test_a_view_is_a_folder_whose_parts_are_told_by_their_names():
    for view in VIEWS:
        folder = APP / "views" / view.url
        assert (folder / "view.py").is_file(), f"the view {view.title} is not app/views/{view.url}/view.py"
    for source in (APP / "views").rglob("*.py"):
        tree = ast.parse(source.read_text("utf-8"))
        relative = any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))
        assert not relative, f"{source.relative_to(ROOT)} imports by dots"
        if source.name == "view.py":
            assert "__main__" not in source.read_text("utf-8")
