# The two commands are `make study` and `make test`; each sets up what it needs, and each works alone on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA := /usr/share/datasets/fashion-mnist

.PHONY: setup study test check lint bench docs data browser postgres clean

setup: $(STAMP) data

# torch first and pinned: whatever else asks for torch then finds the build that is right for this machine.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

# Debian's package of the data set where there is apt and the right to use it; elsewhere the first run downloads it.
data: $(STAMP)
	@if [ ! -e $(DATA)/train-images-idx3-ubyte.gz ] && [ ! -d data/FashionMNIST ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get install -y -qq dataset-fashion-mnist >/dev/null || (apt-get update -qq && apt-get install -y -qq dataset-fashion-mnist >/dev/null) || true; \
	fi

# A browser for the tests of reports and dashboard, where there is apt and the right to use it; elsewhere they are skipped.
browser:
	@if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get install -y -qq --no-install-recommends chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null) || true; \
	fi

# A PostgreSQL server's programs, of which the tests start one of their own, where there is apt; elsewhere they are skipped.
postgres:
	@if [ -z "$$(ls -d /usr/lib/postgresql/*/bin/pg_ctl 2>/dev/null)" ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get install -y -qq --no-install-recommends postgresql >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql >/dev/null) || true; \
	fi

study: setup
	$(BIN)/hpsearch run studies/quickstart.toml

test: setup browser postgres
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal

# Lint, and every test that needs no training, server, browser or other process, with few examples: an answer within four minutes.
check: $(STAMP) lint
	HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not integration"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: setup
	$(BIN)/python benchmarks/throughput.py

# The generated pages, then all documents as a site in site/; a broken link is an error.
docs: $(STAMP)
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean:
	rm -rf $(VENV) build dist site *.egg-info
