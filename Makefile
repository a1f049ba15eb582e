# `make run` answers ablation_dual_temps on this machine; `make test` runs the tests. Both make .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: run test lint ui smoke clean

run: $(VENV)/installed
	$(BIN)/python -m absld_search.run ablation_dual_temps $(ARGS)

smoke: $(VENV)/installed
	$(BIN)/python -m absld_search.run ablation_dual_temps --smoke $(ARGS)

test: $(VENV)/installed
	$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=85 $(ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ui: $(VENV)/installed
	$(BIN)/python -m absld_search.ui $(ARGS)

# The stamp is written last: an interrupted installation is begun again.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'absld_search needs Python 3.11 or newer; say make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV)
