# make quickstart   two agents train in one verl job, on a laptop
# make test         everything that needs no GPU; make check is its fast part alone
# CONTRIBUTING.md has the rest.
.DEFAULT_GOAL := help
.PHONY: help quickstart pipeline check test test-slow test-gpu docs bench models lock clean

PYTHON ?= python3
UV_VERSION := 0.13.8
# The user's own problems for the quick start: JSON, JSONL or Parquet with the columns problem and answer.
PROBLEMS ?=
# Which role learns in the quick start: long_only, short_only, alternate or joint.
SCHEDULE ?= long_only
OUT ?= outputs/quickstart
RECIPE ?= recipes/tiny_cpu
# One change to the pipeline: a name of recipes/ablations, or single.
ABLATION ?=
# Python of an environment with a GPU's vLLM, verl and this package with its extra dev, for test-gpu.
GPU_PYTHON ?= python3

# One OpenMP thread per process: a job has a dozen processes on two cores.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/.ready: requirements/cpu.txt pyproject.toml
	@$(PYTHON) -c 'import sys; assert (3, 10) <= sys.version_info[:2] < (3, 13), \
	  f"Python {sys.version.split()[0]} is not in the range of verl, 3.10 to 3.12: make PYTHON=python3.12 …"'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet uv==$(UV_VERSION)
	@# Compiled here once: a job has a dozen processes, and where Python may write no bytecode each would compile for itself.
	.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --no-deps -r requirements/cpu.txt
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps -e .
	@touch $@

quickstart: .venv/.ready ## Train two agents on a laptop; SCHEDULE=, PROBLEMS= and OUT= may be set.
	@SCHEDULE='$(SCHEDULE)' PROBLEMS='$(PROBLEMS)' OUT='$(OUT)' examples/quickstart.sh

pipeline: .venv/.ready ## From problems to a trained pair; RECIPE=, PROBLEMS= and ABLATION= may be set: twenty minutes.
	@RECIPE='$(RECIPE)' PROBLEMS='$(PROBLEMS)' ABLATION='$(ABLATION)' examples/pipeline.sh

check: .venv/.ready ## Lint, types and unit tests: under two minutes.
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	.venv/bin/python -m pytest -q -n auto --dist worksteal -m "not job and not slow and not gpu"

test: check ## Everything that needs no GPU, the real job included: under twenty minutes.
	.venv/bin/python -m pytest -q -m "job and not slow"

test-slow: .venv/.ready ## What takes longer.
	.venv/bin/python -m pytest -q -m slow

test-gpu: ## One SFT step and three joint steps on a GPU, with GPU_PYTHON=, where verl[vllm] is installed.
	$(GPU_PYTHON) -m pytest -q -m gpu tests/gpu

docs: .venv/.ready ## Generate the tables in the Markdown pages.
	.venv/bin/python docs/tables.py

bench: .venv/.ready ## Measure ratios side by side; writes tests/bench/results.
	VERL_PLATFORM=cpu .venv/bin/python -m tests.bench

models: .venv/.ready ## Rebuild the tiny models of recipes/tiny_cpu: fifty minutes.
	.venv/bin/python recipes/tiny_cpu/make_models.py --out recipes/tiny_cpu/models

lock: .venv/.ready ## Pin requirements/cpu.txt anew.
	.venv/bin/uv pip compile --quiet requirements/cpu.in pyproject.toml --extra cpu --extra dev --universal \
	  --override requirements/overrides.txt --python-version 3.10 --no-annotate \
	  --custom-compile-command "make lock" --output-file requirements/cpu.txt

clean: ## Remove the environment and everything that was run.
	rm -rf .venv outputs .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
