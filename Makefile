# karui from a fresh checkout: `make run` trains, quantizes and validates the default recipe, `make test` runs the tests.
# Both make .venv first (once; again when pyproject.toml or the constraints change), and in it .venv/tflite-runtime, an
# environment of its own for the runtime that needs numpy 1.
#
#   make run ARGS="digits-mlp --target host"    arguments for karui run
#   make test ARGS="tests/test_store.py -k full"  arguments for pytest
#   make run PYTHON=/usr/bin/python3.12         another Python (3.11 or later)
#   make run TORCH_INDEX=                       torch from PyPI: on x86-64 Linux the CUDA build, several gigabytes

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# tflite-runtime ended with Python 3.11 and numpy 1: it gets an environment of its own
TFLITE_PYTHON ?= $(shell command -v python3.11 || command -v python3.10 || command -v python3.9 || command -v python3)
VENV ?= .venv
# the CPU build of torch; where this address cannot be reached, pip goes on without it
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
WORKERS ?= 2
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
TFLITE := $(VENV)/tflite-runtime
READY_TFLITE := $(TFLITE)/.ready
EMULATED := raspberry-pi-4 raspberry-pi-5 tests/runtimes/emulation/thirty-two-bits.toml
READY_EMULATED := $(VENV)/.ready-machines
WHEEL := build/wheel
# what can tell that the wheel carries code and content and runs without the checkout
WHEEL_TESTS ?= __init__.py runs test_console.py test_cli.py

.PHONY: help run test lint wheel bench tflite-runtime emulated clean
.DELETE_ON_ERROR:

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile
	@echo "targets: run test lint wheel bench tflite-runtime emulated clean"

run: $(READY) $(READY_TFLITE)
	$(BIN)/karui run $(ARGS)

test: $(READY) $(READY_TFLITE) $(READY_EMULATED)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) $(READY_TFLITE)
	@for file in bench/bench_*.py; do \
	  test -e "$$file" || { echo "bench/ has no bench_*.py"; exit 1; }; \
	  echo "== $$file"; $(BIN)/python "$$file" $(ARGS) || exit 1; \
	done

# The wheel in an environment of its own, used from a folder that has no pipeline/, models/ or targets/ beside it.
# Its libraries come from $(VENV) through a .pth file, which does not bring the editable install along.
wheel: $(READY_DEV)
	rm -rf $(WHEEL)
	$(BIN)/python -m build --wheel --no-isolation --outdir $(WHEEL)/dist .
	$(BIN)/python -m venv --without-pip $(WHEEL)/venv
	$(BIN)/python -m pip --disable-pip-version-check --python $(WHEEL)/venv install --no-deps $(WHEEL)/dist/*.whl
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	  > "$$(echo $(WHEEL)/venv/lib/python*/site-packages)/libraries.pth"
	mkdir -p $(WHEEL)/elsewhere/tests
	tar -cf - -C tests $(WHEEL_TESTS) | tar -xf - -C $(WHEEL)/elsewhere/tests
	cp pyproject.toml $(WHEEL)/elsewhere/
	cd $(WHEEL)/elsewhere && ../venv/bin/python -c "import pathlib, pipeline, sys; \
	  sys.exit(pathlib.Path(sys.prefix) not in pathlib.Path(pipeline.__file__).parents and pipeline.__file__)"
	cd $(WHEEL)/elsewhere && ../venv/bin/karui list recipes && ../venv/bin/karui list targets && ../venv/bin/karui list data
	cd $(WHEEL)/elsewhere && ../venv/bin/python -m pytest -n $(WORKERS)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "karui needs Python 3.11 or later, and this is " \
	  + sys.version.split()[0] + "; name another one: make PYTHON=/path/to/python3.11")'
	"$(PYTHON)" -m venv $(VENV)

# torch goes first, alone: left free among the others, pip might take the CUDA build; what it needs comes with the rest.
$(READY): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --no-deps --retries 1 $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) -e '.[test]'
	@touch $@

$(READY_DEV): $(READY)
	$(PIP) -e '.[dev]'
	@touch $@

emulated: | $(READY) $(READY_TFLITE)
	$(BIN)/karui emulate $(EMULATED)

# The tests of emulated targets need them set up; without QEMU or apt they are skipped, and say so.
$(READY_EMULATED): constraints.txt | $(READY) $(READY_TFLITE)
	@$(BIN)/karui emulate $(EMULATED) && touch $@ || echo "no emulated targets; to try again: make emulated"

tflite-runtime: $(READY_TFLITE)
	@test -x $(TFLITE)/bin/python || { echo "tflite-runtime could not be installed; to try again: rm $(READY_TFLITE)"; exit 1; }

# tflite-runtime has wheels for few systems and is only compared against: without it the rest is complete. Tried again
# when its constraints change, or by "rm $(READY_TFLITE)".
$(READY_TFLITE): constraints-tflite-runtime.txt | $(READY)
	@rm -rf $(TFLITE)
	@{ "$(TFLITE_PYTHON)" -m venv $(TFLITE) && $(TFLITE)/bin/python -m pip install --disable-pip-version-check --quiet \
	  -c constraints-tflite-runtime.txt tflite-runtime; } || { rm -rf $(TFLITE); \
	  echo "karui goes on without tflite-runtime: it could not be installed for $(TFLITE_PYTHON) (it needs Python 3.9 to 3.11)"; }
	@mkdir -p $(TFLITE) && touch $@
