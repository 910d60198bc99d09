# `make help` lists the targets. Everything is installed into .venv, and only when a requirement has changed.
PYTHON ?= python3
FUZZ_SECONDS ?= 600
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' service/lstm_serve/__init__.py)
IMAGE ?= lstm-serve
BASE_IMAGE ?= $(shell sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile)
PLATFORMS ?= linux/amd64,linux/arm64
# Half of the time is waiting, so more at once than two cores take; who is done takes of what another has left.
PYTEST := pytest -n 4 --dist worksteal
VENV := .venv
BIN := $(VENV)/bin
SERVE := $(VENV)/.serve
CHECK := $(VENV)/.check
CLIENTS := $(VENV)/.clients
CLUSTERS := $(VENV)/clusters
BENCH := $(VENV)/.bench
EXPORTS := $(VENV)/.exports
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start Python some two hundred times, and without its cache each would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help serve test clients clusters exports chaos fuzz check format lint types coverage bench bench-engine lock rooms screenshots \
	openapi release tagged dist sbom pinned image clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(SERVE) ## serve the default model on 127.0.0.1:8080; LSTMSERVE_* variables change that
	LSTMSERVE_MODEL="$${LSTMSERVE_MODEL:-models/turbofan.h5}" exec $(BIN)/lstm-serve serve

test: $(CHECK) ## run the tests, but for the long ones
	$(BIN)/python -m $(PYTEST) -m "not long"

fuzz: $(CHECK) ## fuzz requests, connections, model files and folders, FUZZ_SECONDS (600) each; installs atheris
	$(BIN)/pip install --quiet --editable '.[fuzz]'
	cd tests/fuzz && for target in requests connections models folders; do \
		PYTHONPATH=../helpers ../../$(BIN)/python fuzz.py $$target -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 || exit 1; done

chaos: $(CHECK) ## bad clients, overload, restarts behind a proxy, devices that send rows, replicas that are killed, for some minutes: prints figures
	PYTHONPATH=tests/helpers $(BIN)/python tests/blackbox/chaos.py
	PYTHONPATH=tests/helpers $(BIN)/python tests/blackbox/devices.py --series 2000 --minutes 2
	PYTHONPATH=tests/helpers $(BIN)/python tests/blackbox/replicas.py

clients: $(CLIENTS) ## run the tests with Triton's and KServe's own clients, which are 400 MB
	$(BIN)/python -m pytest tests/blackbox/test_clients.py tests/blackbox/test_documentation.py

clusters: $(CLUSTERS)/.made ## a million windows through clusters of Ray and Spark on this machine; Spark needs Java
	PYTHONPATH=tests/helpers $(CLUSTERS)/bin/python -m pytest -s tests/blackbox/test_clusters.py

exports: $(CHECK) $(EXPORTS) ## run the exporters' tests with Keras 3, ONNX Runtime, and the C compiler, node and Chromium at hand
	EXPORTS_KERAS_PYTHON=$(CURDIR)/$(VENV)/keras/bin/python $(BIN)/python -m pytest tests/export

check: lint types coverage ## what CI runs: format, lint, types, all tests with coverage

lint: $(CHECK) ## format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(CHECK) ## type hints
	$(BIN)/mypy

coverage: $(CHECK) ## run all tests, and say what they cover
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

format: $(CHECK) ## format the code, and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH) ## measure the server under load against others, in a few minutes; needs wrk
	$(BIN)/python benchmarks/bench.py
	$(BIN)/python benchmarks/binary.py
	$(BIN)/python benchmarks/series.py --rounds 3

bench-engine: $(BENCH) ## measure the engine alone
	$(BIN)/python benchmarks/engine.py

rooms: ## how many lines each room has, and its largest modules
	@cd service/lstm_serve && for room in */; do \
		printf '%6d %s\n' "$$(find $$room -name '*.py' -exec cat {} + | wc -l)" "$$room"; done
	@cd service/lstm_serve && find . -name '*.py' -exec wc -l {} + | sort -rn | sed -n '2,9p'

openapi: $(CHECK) ## write docs/openapi.json anew: the document of the default model
	$(BIN)/python tests/helpers/openapi_document.py

screenshots: $(CHECK) ## draw the pictures of the page for the docs anew; needs chromedriver
	PYTHONPATH=tests/helpers $(BIN)/python tests/helpers/screenshots.py

lock: $(VENV)/bin/python ## write the lock files anew, with the newest versions that pyproject.toml allows
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile $(LOCK) --output-file requirements/serve.txt --extra redis pyproject.toml
	$(BIN)/uv pip compile $(LOCK) --output-file requirements/check.txt --extra redis --extra test --extra check pyproject.toml
	$(BIN)/uv pip compile $(LOCK) --output-file requirements/clients.txt --constraint requirements/check.txt \
		--extra clients pyproject.toml

LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

release: tagged pinned dist sbom image ## from a tag such as v1.2.3: sdist, wheel, its SBOM and image; IMAGE=registry/name PUSH=1 pushes the image

tagged:
	@test "$$(git describe --tags --exact-match --dirty 2>/dev/null)" = "v$(VERSION)" || \
		{ echo "A release is made of a clean tree at the tag v$(VERSION): git tag v$(VERSION), or git stash"; exit 1; }

pinned:
	@case "$(BASE_IMAGE)" in *@sha256:*) ;; *) \
		echo "A release is made of a base image by its digest: make release BASE_IMAGE=$(BASE_IMAGE)@sha256:..."; \
		echo "What it is says: docker buildx imagetools inspect $(BASE_IMAGE)"; exit 1;; esac

dist: $(VENV)/bin/python ## build sdist and wheel into dist/
	$(BIN)/pip install --quiet build
	rm -f dist/*.whl dist/*.tar.gz
	$(BIN)/python -m build --outdir dist

# Of an environment as the image has it: the wheel, and what is locked.
sbom: dist ## list what is installed with the wheel into dist/, as CycloneDX
	rm -rf $(VENV)/sbom
	$(PYTHON) -m venv --without-pip $(VENV)/sbom
	$(BIN)/pip --python $(VENV)/sbom/bin/python install --quiet --require-hashes -r requirements/serve.txt
	$(BIN)/pip --python $(VENV)/sbom/bin/python install --quiet --no-deps --no-index --find-links dist lstm-serve==$(VERSION)
	$(BIN)/pip install --quiet cyclonedx-bom
	$(BIN)/cyclonedx-py environment --output-reproducible --output-file dist/lstm-serve-$(VERSION).cdx.json $(VENV)/sbom/bin/python

image: ## build the image for PLATFORMS into dist/, or with PUSH=1 push it; needs docker buildx
	mkdir -p dist
	docker buildx build --platform $(PLATFORMS) --build-arg BASE_IMAGE=$(BASE_IMAGE) --tag $(IMAGE):$(VERSION) \
		$(if $(PUSH),--push,--output type=oci,dest=dist/lstm-serve-$(VERSION).oci.tar) .

clean: ## remove what was installed and made
	rm -rf $(VENV) dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
		{ echo "Python 3.11 to 3.14 is needed: make PYTHON=python3.13 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(SERVE): $(VENV)/bin/python requirements/serve.txt pyproject.toml
	@echo "Installing lstm-serve and what it needs into $(VENV), once. That takes a minute or so ..."
	$(BIN)/pip install --quiet --require-hashes -r requirements/serve.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

$(CHECK): $(SERVE) requirements/check.txt
	@echo "Installing what the tests and checks need, once ..."
	$(BIN)/pip install --quiet --require-hashes -r requirements/check.txt
	@touch $@

$(CLIENTS): $(CHECK) requirements/clients.txt
	$(BIN)/pip install --quiet --require-hashes -r requirements/clients.txt
	@touch $@

$(BENCH): $(SERVE)
	$(BIN)/pip install --quiet onnx onnxruntime
	@touch $@

# In an environment of their own, as they bind many versions.
$(CLUSTERS)/.made: pyproject.toml
	$(PYTHON) -m venv $(CLUSTERS)
	$(CLUSTERS)/bin/pip install --quiet --editable '.[clusters,test]'
	@touch $@

# Keras 3 in an environment of its own: nothing of the service may lean on it.
$(EXPORTS): $(CHECK) pyproject.toml
	$(BIN)/pip install --quiet --editable '.[onnx]' onnxruntime
	$(PYTHON) -m venv $(VENV)/keras
	$(VENV)/keras/bin/pip install --quiet 'keras>=3.15' tensorflow-cpu
	@touch $@
