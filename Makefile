# `make demo` and `make test` are all that a fresh clone needs; each installs what it uses (see scripts/bootstrap).
SHELL := /bin/bash
BIN := .venv/bin
export PATH := $(PATH):/usr/sbin
SECONDS_OF_DEMO ?= 60
PYTEST_ARGS ?=
EXAMPLES ?= 20000
SEED ?= 1
PAYLOADS ?= 100000

.PHONY: demo test lint benchmark parity chaos machine fuzz notebooks clean

demo:
	@scripts/bootstrap demo
	@$(BIN)/hs-stream demo --for $(SECONDS_OF_DEMO)

test: lint
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(PYTEST_ARGS)

lint:
	@scripts/bootstrap test
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "make lint: the files above need 'ruff format'" >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache >/dev/null || { $(BIN)/lint-imports --no-cache; exit 1; }

benchmark:
	@scripts/bootstrap test
	@$(BIN)/python -m benchmarks.steady

parity:
	@scripts/bootstrap test
	@$(BIN)/python -m benchmarks.parity

chaos:
	@scripts/bootstrap test
	@HS_STREAM_CHAOS=long $(BIN)/python -m pytest -m chaos --timeout 3600 tests/chaos

machine:
	@scripts/bootstrap test
	@HS_STREAM_MACHINE=$(EXAMPLES) $(BIN)/python -m pytest tests/laws/test_machine.py -k memory --hypothesis-seed $(SEED) --durations 1

fuzz:
	@scripts/bootstrap test
	@HS_STREAM_FUZZ=$(PAYLOADS) $(BIN)/python -m pytest tests/connectors/test_codec_fuzz.py --hypothesis-seed $(SEED) --durations 0

notebooks:
	@scripts/bootstrap test
	@$(BIN)/python scripts/notebooks.py

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
