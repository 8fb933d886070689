# Everything from Python 3.11 to 3.13, pip and make:
#
#   make quickstart     the main job, end to end
#   make test           lint, types, the documentation, the whole suite
#   make docs           the documentation as a site, in docs/_build
#
# Parameters: PYTHON=python3.12 VENV=.venv-3.12 EXTRAS="spark gpu" TESTS=tests/config WORKERS=2

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?=
TESTS ?=
# TensorFlow takes seconds to load and its memory is per process: few workers, one file at a time each.
WORKERS ?= 2

UV_VERSION := 0.13.8
UV := .uv/bin/uv
UV_READY := .uv/version-$(UV_VERSION)

export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_PYTHON_DOWNLOADS := never

.PHONY: quickstart test lint docs environment

quickstart: environment
	$(VENV)/bin/recsys quickstart

test: lint docs
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(TESTS)

lint: environment
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: environment
	$(VENV)/bin/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build

# uv leaves an up-to-date environment as it is, in a fraction of a second.
environment: $(UV_READY)
	$(UV) sync --frozen --python $(PYTHON) $(EXTRAS:%=--extra %)

# A folder of its own for uv: works without python3-venv, and where pip may not touch the system.
$(UV_READY):
	rm -rf .uv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .uv uv==$(UV_VERSION)
	touch $@
