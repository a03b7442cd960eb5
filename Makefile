# Every target sets up what it needs, once, in .venv: the stamps are remade when pyproject.toml changes.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo examples-full test test-core test-adapters test-slow test-backends soak lint types bench bench-quick bench-jpeg reliability clean
SHELL := /bin/sh

VENV := .venv
PY := $(VENV)/bin/python
PIP := -m pip install --quiet --disable-pip-version-check
PYTEST := $(PY) -m pytest --quiet
# Two or more files of tests at a time. What measures, or ends programs at random, has the machine to itself.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile
# An interpreter of one's own: make test PYTHON=python3.13 (after make clean)
PYTHON ?= python3
BACKENDS ?= tensorflow torch jax
# Of test-backends: make test-backends MARKS='slow or not slow' runs all.
MARKS ?= not slow
BENCHMARKS ?= jpeg_feed large_photos arrays transport python_transform tiny_samples kept_heap start beside_training
unexport PYTHONPATH PYTHONHOME

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+%?:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo.stamp ## Train on 1,797 handwritten digits from PNG files within 64 MB
	$(VENV)/bin/fitstream demo

# The demo's packages come first: the examples in the documentation that need Keras run in test-core where it is there.
test: $(VENV)/demo.stamp lint types test-core test-adapters ## All checks and tests, on one Keras backend

lint: $(VENV)/test.stamp ## Style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/test.stamp ## Strict types
	$(PY) -m mypy

test-core: $(VENV)/test.stamp ## Tests that need no framework (those of the documentation use one where it is installed)
	$(PYTEST) $(PARALLEL) -m 'not slow' --ignore=tests/adapters

# A framework stays loaded once it is, and Keras keeps its first backend: so each backend has its own process.
test-adapters: $(VENV)/demo.stamp $(VENV)/test.stamp ## Tests with Keras on the demo's backend
	KERAS_BACKEND=$$($(PY) -m fitstream.backend) $(PYTEST) $(PARALLEL) -m 'not slow' tests/adapters

test-slow: $(VENV)/demo.stamp $(VENV)/test.stamp $(VENV)/examples.stamp ## Whole programs: old ones under `fitstream run`, and the examples
	KERAS_BACKEND=$$($(PY) -m fitstream.backend) $(PYTEST) $(PARALLEL) --dist load -m slow tests

test-backends: $(VENV)/backends.stamp ## Tests with Keras on TensorFlow, PyTorch and JAX
	for backend in $(BACKENDS); do \
	  echo "== $$backend" && KERAS_BACKEND=$$backend $(PYTEST) $(PARALLEL) -m '$(MARKS)' tests/adapters || exit 1; \
	done

examples-full: $(VENV)/demo.stamp $(VENV)/examples.stamp ## All examples in full: files of 3 GB, some minutes each
	for name in examples/*.py; do \
	  echo "== $$name" && KERAS_BACKEND=$$($(PY) -m fitstream.backend) $(PY) $$name || exit 1; \
	done

example-%: $(VENV)/demo.stamp $(VENV)/examples.stamp ## One of them: make example-entity_tagging ARGS=--quick
	$(PY) examples/$*.py $(ARGS)

soak: $(VENV)/test.stamp $(VENV)/backends.stamp ## What takes minutes: every split of lanes, many epochs, random kills
	$(PYTEST) tests/soak/every_split.py tests/soak/long_runs.py
	$(PY) tests/soak/stress_processes.py 120
	rm -f .soak/report.txt
	$(PYTEST) tests/soak/every_fault.py
	SOAK_REPORT=.soak/report.txt $(PY) tests/soak/worker_kills.py 1000
	SOAK_REPORT=.soak/report.txt $(PY) tests/soak/main_kills.py 100
	$(PYTEST) tests/test_resuming_machine.py --hypothesis-profile=soak
	for backend in $(BACKENDS); do \
	  KERAS_BACKEND=$$backend $(PYTEST) --hypothesis-profile=soak --timeout=3600 tests/adapters/test_exactly_once.py || exit 1; \
	done
	BACKENDS='$(BACKENDS)' $(PY) tests/soak/checkpoint_kills.py 20
	$(PYTEST) --hypothesis-profile=soak --timeout=3600 tests/test_fuzz.py
	$(PY) tests/soak/get_images.py .soak/images
	$(PY) tests/soak/image_corpus.py .soak/images

# In an environment of their own, for the peers' sake.
bench: $(VENV)-bench/ready.stamp ## All benchmarks, fitstream and its peers
	for name in $(BENCHMARKS); do \
	  echo "== $$name" && $(VENV)-bench/bin/python benchmarks/$$name.py || exit 1; \
	done

bench-quick: $(VENV)-bench/ready.stamp ## Do all benchmarks work? The numbers mean nothing
	for name in $(BENCHMARKS); do \
	  echo "== $$name" && $(VENV)-bench/bin/python benchmarks/$$name.py --quick || exit 1; \
	done

bench-jpeg: $(VENV)-bench/ready.stamp ## JPEG to batches only
	$(VENV)-bench/bin/python benchmarks/jpeg_feed.py

reliability: $(VENV)-bench/ready.stamp ## What fitstream and its peers make of crashes, bad samples and interruptions
	$(VENV)-bench/bin/python benchmarks/reliability.py

clean: ## Remove the virtual environment and all caches
	rm -rf $(VENV) $(VENV)-bench .soak .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist fitstream-demo
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY) $(VENV)-bench/bin/python: %/bin/python:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Setting up $* with $$($$python --version)" && exec $$python -m venv --clear $*; \
	  fi; \
	done; \
	echo "fitstream needs Python 3.11 or newer. Say where it is: make PYTHON=/path/to/python3.11" >&2; exit 1

$(VENV)/demo.stamp: EXTRAS := demo
$(VENV)/test.stamp: EXTRAS := test,lint
$(VENV)/backends.stamp: EXTRAS := demo,test,backends
$(VENV)/examples.stamp: EXTRAS := examples
$(VENV)/demo.stamp $(VENV)/test.stamp $(VENV)/backends.stamp $(VENV)/examples.stamp: pyproject.toml | $(PY)
	@echo "Installing fitstream[$(EXTRAS)] into $(VENV)"
	@$(PY) $(PIP) --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)-bench/ready.stamp: pyproject.toml benchmarks/requirements.txt | $(VENV)-bench/bin/python
	@echo "Installing fitstream and its peers into $(VENV)-bench"
	@$(VENV)-bench/bin/python $(PIP) --editable . --requirement benchmarks/requirements.txt
	@touch $@
