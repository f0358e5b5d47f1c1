# Everything that a person or the CI types; `make` alone lists it. Each target makes .venv first, if there is none.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
EXTRAS ?= dev,pacs,milvus,dp,tensorboard,mlflow
PIP_ARGS ?=
OUT ?= demo
DATA ?=
DEMO_ARGS ?=
TEST_ARGS ?=
TEST_PROCESSES ?= 2
BENCH ?= $(basename $(notdir $(shell grep -l __main__ benchmarks/*.py)))
BENCH_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test check bench docs clean

help: ## list what can be made
	@sed -nE 's/^([a-z]+):.*## (.*)$$/make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
	  printf '  %-14s %s\n' "$$name" "$$text"; done

install: $(INSTALLED) ## make .venv with everything in it (PIP_ARGS=... goes to pip, EXTRAS=dev,pacs chooses extras)

demo: $(INSTALLED) ## a whole consortium on this machine; DATA=images.zip[,more.zip] uses yours, OUT=demo is where it goes
	@$(BIN)/consortium demo --out '$(OUT)' $(if $(DATA),--data '$(DATA)') $(DEMO_ARGS)

# Federations start real processes and wait for each other much of the time: two at once, each consortium in one process, and
# after everything else. Files of tests keep their order: by their number of tests, the longest of all would come last, and
# alone.
test: $(INSTALLED) ## all tests (TEST_ARGS=... goes to pytest)
	@export OMP_NUM_THREADS=1; status=0; \
	$(BIN)/python -m pytest -m 'not federation and not published' -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(TEST_ARGS) || status=$$?; \
	$(BIN)/python -m pytest -m federation -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(TEST_ARGS) || { code=$$?; [ $$code -eq 5 ] || status=$$code; }; \
	exit $$status

check: $(INSTALLED) ## lint, format, types, architecture; changes nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(INSTALLED) ## every benchmark, figures into benchmarks/results/ (BENCH=name for one, BENCH_ARGS=--quick)
	@mkdir -p benchmarks/results; status=0; for name in $(BENCH); do echo "== $$name"; \
	$(BIN)/python -m benchmarks.$$name --json benchmarks/results/$$name.json $(BENCH_ARGS) || status=$$?; done; exit $$status

docs: $(INSTALLED) ## write the pages that are generated from the code
	@$(BIN)/python docs/generate.py

clean: ## remove .venv, caches and the demo folder; ends the processes that the demo left running
	@for run in $(wildcard demo/.run demo/*/.run); do $(BIN)/consortium down --dir "$$(dirname $$run)" || exit 1; done
	rm -rf $(VENV) demo build dist benchmarks/results .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	  .import_linter_cache .grimp_cache *.egg-info
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt .ci/make-venv
	@.ci/make-venv '$(VENV)' '$(EXTRAS)' $(PIP_ARGS)
	@touch $@
