# make demo    installs gptkit into .venv, pre-trains on the embedded corpus, generates from the model, fine-tunes and evaluates it
# make test    the fast tests (test-all: the slow ones too; test-processors: the numeric ones as on AVX2 and x86-64-v2), each target setting up what it needs
# make faults  every fault at full count, for hours; writes benchmarks/faults.md
# make interop what other programs make of gptkit's models, each in an environment of its own; writes docs/interop.md
# A CPU-only or CUDA build of torch: make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"

TORCH ?= torch==2.13.0
VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Compiling only what may be imported, on all cores, takes a third of the time that pip takes for everything.
COMPILE := $(BIN)/python -m compileall -q -j 0 -x '/tests?/|/transformers/models/(?!__init__|auto|gpt2|openai)'
DEMO := runs/demo

NUMERIC := $(addprefix tests/,model decoding scoring finetune pretrain tasks/test_heads.py system/test_processor.py \
	$(addprefix training/test_,loop.py optimizers.py layer_rates.py rules.py) manage/test_env.py \
	$(addprefix evaluate/test_,all_checkpoints.py comparison.py contamination.py eval.py gate.py suites.py) \
	generate/test_generate.py faults/test_numbers.py)
AVX2 = ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	NPY_ENABLE_CPU_FEATURES=X86_V3 CC='$(CC) -mno-avx512f -mno-avxvnni'
X86_V2 = ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 \
	NPY_ENABLE_CPU_FEATURES=X86_V2 CC='$(CC) -march=x86-64-v2'
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not network"

.DEFAULT_GOAL := help
.PHONY: help install dev demo test test-all test-processors faults interop check bench clean

help:
	@sed -n 's/^# //p' Makefile | head -5

install: $(VENV)/installed
dev: $(VENV)/installed-dev

demo: $(VENV)/installed
	@PATH="$(abspath $(BIN)):$$PATH" sh docs/demo.sh $(DEMO)

test: $(VENV)/installed-dev
	$(PYTEST)

test-all: $(VENV)/installed-dev
	$(BIN)/python -m pytest -q -m "not network"

# The switches only take features away, and torch believes them: AVX2 where there is none would be an illegal instruction.
test-processors: $(VENV)/installed-dev
	$(if $(shell grep -ow -m1 avx2 /proc/cpuinfo 2>/dev/null),$(AVX2) $(PYTEST) $(NUMERIC),@echo 'no AVX2 here: left out')
	$(if $(filter x86_64,$(shell uname -m)),$(X86_V2) $(PYTEST) $(NUMERIC),@echo 'not an x86-64 processor: left out')

faults: $(VENV)/installed-dev
	$(BIN)/python -m pytest -q -n 2 --dist worksteal tests/faults --faults-full

interop: $(VENV)/installed
	$(BIN)/python benchmarks/interop.py

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/pretrain.py
	$(BIN)/python benchmarks/finetune.py
	$(BIN)/python benchmarks/generate.py
	$(BIN)/python benchmarks/generate_presets.py
	$(if $(GPTKIT_TEST_DATA),$(BIN)/python benchmarks/evaluate.py,@echo 'GPTKIT_TEST_DATA is not set: benchmarks/evaluate.py is left out')

clean:
	rm -rf build dist $(DEMO) $(DEMO)-classification .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name '.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "gptkit needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/torch: $(VENV)/bin/python constraints.txt
	@echo "installing $(TORCH) into $(VENV)"
	@$(PIP) --no-compile $(TORCH)
	@touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml
	@echo "installing gptkit into $(VENV)"
	@$(PIP) --no-compile -e .
	@$(COMPILE) $(VENV)/lib/python3*/site-packages >/dev/null 2>&1 || true
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "installing what its tests need into $(VENV)"
	@$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	@echo "installing what its benchmarks need into $(VENV)"
	@$(PIP) -e '.[bench]'
	@touch $@
