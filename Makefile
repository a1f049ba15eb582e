# `make run` answers ablation_dual_temps on this machine; `make test` runs the tests. Both make .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
JOBS ?= 2

.PHONY: run test cluster-test lint docs results ui smoke bench bench-full clean

run: $(VENV)/installed
	$(BIN)/python -m absld_search.run ablation_dual_temps $(ARGS)

smoke: $(VENV)/installed
	$(BIN)/python -m absld_search.run ablation_dual_temps --smoke $(ARGS)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --cov --cov-report=term --cov-fail-under=85 $(ARGS)

# A study over two Ray nodes with PostgreSQL, an object store and an MLflow server, nodes killed meanwhile.
# Needs Debian's postgresql; about ten minutes on two cores.
cluster-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,cluster-test]'
	$(BIN)/python -m tests.cluster.run

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages of docs/ as a site, in site/; a warning is an error.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The pages of docs/results and their index again, from the tables of kept studies.
results: $(VENV)/installed
	$(BIN)/python -m analysis.publish

ui: $(VENV)/installed
	$(BIN)/python -m absld_search.ui $(ARGS)

# Side-by-side measurements, on a machine with nothing else to do: `make bench` in minutes, `make bench-full` in hours.
# Each writes benchmarks/results/NAME.json; the last line puts them all into one table.
BENCHMARKS := views bank startup driver packing search16 train_step evaluate fidelity statistics

bench: $(VENV)/installed
	@began=$$(date +%s); \
	for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name --short $(ARGS) || exit 1; done; \
	$(BIN)/python -m benchmarks.page && echo "all of them took $$(( $$(date +%s) - began )) s"

bench-full: $(VENV)/installed
	@began=$$(date +%s); \
	for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name $(ARGS) || exit 1; done; \
	$(BIN)/python -m benchmarks.page && echo "all of them took $$(( $$(date +%s) - began )) s"

# The stamp is written last: an interrupted installation is begun again.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'absld_search needs Python 3.11 or newer; say make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,docs]'
	touch $@

clean:
	rm -rf $(VENV)
