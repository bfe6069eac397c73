# The commands of this project. `make serve` and `make test` need only Python 3.11 or newer.

PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
TORCH ?= torch==2.13.0
HOST ?= 127.0.0.1
PORT ?= 8000

VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.installed-core
DEV := $(VENV)/.installed-dev
DISTRIBUTIONS := pyproject.toml clients/python/pyproject.toml
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile
# An NVIDIA machine serves through torch; any other must not fetch it.
EXTRA := $(if $(shell nvidia-smi -L 2>/dev/null),[gpu])

.DEFAULT_GOAL := help
.PHONY: help install install-dev serve test format screenshots demo bench reproduce clean

help:
	@echo "make serve        install what this machine needs, serve on http://$(HOST):$(PORT)"
	@echo "make demo         serve, stream the sample clip, write demo/overlay.mp4, stop"
	@echo "make test         install everything, run the whole gate"
	@echo "make format       let ruff format and fix what it can"
	@echo "make bench        measure this machine"
	@echo "make reproduce    train gdkvm-live anew from DATA=PATH and compare (OUT=runs/reproduced)"
	@echo "make screenshots  take the README's pictures of the pages anew (with Chromium)"
	@echo "make install      the .venv for serving alone (install-dev: with tests and training)"
	@echo "make clean        remove the .venv and every build output"

install: $(CORE)

install-dev: $(DEV)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed (Debian: apt install python3)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a venv (Debian: apt install python3-venv)"; exit 1; }

# Not compiled: the modules that are used compile at first import, the others would be 60 MB.
$(CORE): $(DISTRIBUTIONS) | $(BIN)/python
	@echo "Installing into $(VENV) ..."
	@$(PIP) --editable '.$(EXTRA)' --editable clients/python
	@touch $@

$(DEV): $(DISTRIBUTIONS) | $(BIN)/python
	@echo "Installing into $(VENV), with tests and training ..."
	@$(PIP) $(TORCH)
	@$(PIP) --editable '.[dev]' --editable clients/python
	@touch $(CORE) $@

serve: install
	@$(BIN)/gdkvm serve --host $(HOST) --port $(PORT)

test: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .
	$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

screenshots: install-dev
	$(BIN)/python -m tests.e2e.screenshots

demo: install
	@$(BIN)/gdkvm demo

bench: install-dev
	@$(BIN)/gdkvm bench

OUT ?= runs/reproduced

reproduce: install-dev
	@test -n "$(DATA)" || { echo "make reproduce DATA=PATH: a folder of A4C PNG stills"; exit 2; }
	@$(BIN)/python -m model.training.reproduce "$(DATA)" "$(OUT)"

clean:
	rm -rf $(VENV) build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
