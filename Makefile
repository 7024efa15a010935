# Two commands do everything on a fresh machine: `make app` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8501
# The release before the newest that GPU hosts still run; the routers of both are proven.
OLDER_TRANSFORMERS := 5.17.0
SAMPLE := sample_checkpoints/olmoe-13m-balanced
TRACE := runs/olmoe-13m-balanced

.PHONY: help app record-sample test check fix bench setup clean

help:
	@echo "make app     set up, record the sample model once, open the app"
	@echo "make test    set up, then lint, types, layers and every test"
	@echo "make check   the fast half: lint, types, layers, tests without a browser or the slow ones"
	@echo "make fix     write what the formatter and linter can mend"
	@echo "make bench   run the benchmarks (ratios against a baseline in the same run)"

setup: $(VENV)/.app-ready

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.app-ready: requirements.txt constraints.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements.txt
	@touch $@

$(VENV)/.test-ready: requirements-dev.txt $(VENV)/.app-ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	@touch $@

$(TRACE)/header.json: | $(VENV)/.app-ready
	$(BIN)/routescope record $(SAMPLE) --tasks sample_tasks --out $(TRACE)

record-sample: $(TRACE)/header.json

app: setup record-sample
	$(BIN)/streamlit run app/main.py --server.port $(PORT)

check: $(VENV)/.test-ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m "not slow and not browser"

test: $(VENV)/.test-ready
	.ci/install-chromium
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile -m "not browser"
	$(BIN)/python tests/hooks/run_with_transformers.py $(OLDER_TRANSFORMERS)
	$(BIN)/pytest -q -m browser

fix: $(VENV)/.test-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test-ready
	$(BIN)/python -m benchmarks.recording_overhead
	$(BIN)/python -m benchmarks.count_scan
	$(BIN)/python -m benchmarks.store_write

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .mypy_cache *.egg-info
