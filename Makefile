# make quickstart   trains two tiny models in one verl job on a laptop
# make test         runs all tests that need no GPU; make check runs the fast ones
# CONTRIBUTING.md describes all commands.
.DEFAULT_GOAL := help
.PHONY: help quickstart pipeline check test test-slow test-nightly test-real fuzz test-gpu docs bench models lock clean

PYTHON ?= python3
UV_VERSION := 0.13.8
# Your own problems for the quick start: JSON, JSONL or Parquet with the columns problem and answer.
PROBLEMS ?=
# The role that learns in the quick start: long_only, short_only, alternate or joint.
SCHEDULE ?= long_only
OUT ?= outputs/quickstart
RECIPE ?= recipes/tiny_cpu
# One change of the pipeline: a name from recipes/ablations, or single.
ABLATION ?=
# Folder of real models for test-real.
MODELS ?=
# Python for test-gpu, of an environment with vLLM for GPUs, verl and this package with its extra dev.
GPU_PYTHON ?= python3

# One OpenMP thread per process, because a job runs a dozen processes on two cores.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false

help: ## List the commands.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/.ready: requirements/cpu.txt pyproject.toml
	@$(PYTHON) -c 'import sys; assert (3, 10) <= sys.version_info[:2] < (3, 13), \
	  f"Python {sys.version.split()[0]} is outside the range of verl, 3.10 to 3.12; run make PYTHON=python3.12 …"'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet uv==$(UV_VERSION)
	@# Compile bytecode once here; otherwise each of a job's processes compiles again if it cannot write bytecode.
	.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --no-deps --require-hashes -r requirements/cpu.txt
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps -e .
	@touch $@

quickstart: .venv/.ready ## Train two tiny models on a laptop; takes SCHEDULE=, PROBLEMS= and OUT=.
	@SCHEDULE='$(SCHEDULE)' PROBLEMS='$(PROBLEMS)' OUT='$(OUT)' examples/quickstart.sh

pipeline: .venv/.ready ## Run all stages, from problems to a trained pair; takes RECIPE=, PROBLEMS= and ABLATION=. Twenty minutes.
	@RECIPE='$(RECIPE)' PROBLEMS='$(PROBLEMS)' ABLATION='$(ABLATION)' examples/pipeline.sh

check: .venv/.ready ## Run lint, type checks and unit tests.
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	.venv/bin/python -m pytest -q -n auto --dist worksteal -m "not job and not process and not slow and not gpu"

test: check ## Run all tests that need no GPU, including real jobs.
	@# What fits beside each other, two at a time; then the tests that need the machine to themselves.
	.venv/bin/python -m pytest -q -n 2 --dist loadfile -m "(process or job) and not alone and not slow"
	.venv/bin/python -m pytest -q -m "alone and not slow"

test-slow: .venv/.ready ## Run the longer tests.
	.venv/bin/python -m pytest -q -n 2 --dist loadfile -m "slow and not alone and not gpu and not nightly"
	.venv/bin/python -m pytest -q -m "slow and alone and not nightly"

test-nightly: .venv/.ready ## Run the jobs that a change rarely breaks: against stock verl, on nodes, with dead engines.
	.venv/bin/python -m pytest -q -m nightly

fuzz: .venv/.ready ## Fuzz what reads a model's text by coverage, five minutes a part, with atheris, which it installs.
	.venv/bin/uv pip install --quiet "atheris>=3,<4"
	for part in parser chunker completion; do \
	  .venv/bin/python -m tests.faults.fuzz $$part -max_total_time=300 -max_len=400 || exit 1; done

test-real: .venv/.ready ## Take a real model through the stages of recipes/laptop; takes MODELS=, a folder with smollm2-135m.
	MODELS='$(abspath $(MODELS))' .venv/bin/python -m pytest -q -m real tests/real

test-gpu: ## Run one SFT step and three RL steps on a GPU; takes GPU_PYTHON=, with verl[vllm] installed.
	$(GPU_PYTHON) -m pytest -q -m gpu tests/gpu

docs: .venv/.ready ## Generate the tables in the Markdown pages.
	.venv/bin/python docs/tables.py

bench: .venv/.ready ## Run the benchmarks and write tests/bench/results.
	VERL_PLATFORM=cpu .venv/bin/python -m tests.bench

models: .venv/.ready ## Rebuild the tiny models of recipes/tiny_cpu. Fifty minutes.
	.venv/bin/python recipes/tiny_cpu/make_models.py --out recipes/tiny_cpu/models

lock: .venv/.ready ## Pin requirements/cpu.txt again.
	.venv/bin/uv pip compile --quiet requirements/cpu.in pyproject.toml --extra cpu --extra dev --universal \
	  --override requirements/overrides.txt --python-version 3.10 --no-annotate --generate-hashes \
	  --custom-compile-command "make lock" --output-file requirements/cpu.txt

clean: ## Remove the environment and all outputs.
	rm -rf .venv outputs .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
