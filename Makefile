# `make` alone lists the targets. PYTHON=python3.12 VENV=.venv-3.12 make test  uses another interpreter.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

host_path := $(PATH)
bin := $(abspath $(VENV))/bin
ready := $(VENV)/.ready

# The environment's own Spark with this folder's settings, on the loopback interface only.
export PATH := $(bin):$(PATH)
export SPARK_CONF_DIR := $(CURDIR)/conf
export SPARK_LOCAL_IP ?= 127.0.0.1
export PYSPARK_PYTHON := $(bin)/python
export PYSPARK_DRIVER_PYTHON := $(bin)/python
# Without the last Python keeps what it has compiled: else every process, each rank too, compiles its modules again.
unexport SPARK_HOME PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo demo-pictures docs docs-reference notebooks test test-slow test-cluster test-notebooks lint bench cluster cluster-stop clean distclean

help:  ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

setup: $(ready)  ## Make the environment (.venv, Java, Delta jars); the other targets do it when needed
	@echo "ready: $(VENV)"

demo: $(ready)  ## Raw census rows to features, a trained model, a registered version and scores
	@$(bin)/mlspark demo $(ARGS)

demo-pictures: $(ready)  ## The same with pictures, made up and some broken on purpose: decoded, quarantined, learnt, scored
	@$(bin)/mlspark demo pictures $(ARGS)

docs: $(ready)  ## Write the documentation as a site into build/site; ARGS="--site-dir FOLDER" for another place
	@NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --quiet --strict $(ARGS) && echo "build/site/index.html"

docs-reference: $(ready)  ## Write docs/reference anew, after a change of settings or options
	@$(bin)/python -m tools.docs_reference

notebooks: $(ready)  ## Execute the notebooks and write their pages into docs/notebooks; ARGS=census chooses some
	@$(bin)/python -m tools.notebooks $(ARGS)

# Three processes, each of which begins with a JVM: see tests/conftest.py.
test: $(ready)  ## Run the tests; ARGS="-k name" chooses some
	@$(bin)/python -m pytest -m "not slow" -n 3 --dist loadgroup $(ARGS)

test-slow: $(ready)  ## Run those that take longer: the README's commands, the whole real data, the benchmarks on little data
	@$(bin)/python -m pytest -m slow $(ARGS)

# A process of its own: see tests/cluster/conftest.py.
test-cluster: $(ready)  ## Run the tests on HDFS, S3, Hive, PostgreSQL and a Spark cluster, all started on loopback
	@$(bin)/python -m pytest tests/cluster $(ARGS)

test-notebooks: $(ready)  ## Execute the notebooks; ARGS="-k census" chooses some
	@$(bin)/python -m pytest tests/notebooks $(ARGS)

lint: $(ready)  ## Check style, types and the direction of imports
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/lint-imports --no-logo

bench: $(ready)  ## Measure every ratio that has an aim, beside those kept in docs/; ARGS="--only scoring" chooses some
	@$(bin)/python benchmarks/all.py $(ARGS)

cluster: $(ready)  ## Start HDFS, S3, Hive metastore, PostgreSQL and Spark on loopback; ARGS="hdfs s3" chooses some
	@$(bin)/python -m tools.cluster start $(ARGS)

cluster-stop: $(ready)  ## Stop them; what they hold is gone
	@$(bin)/python -m tools.cluster stop

clean:  ## Remove caches and build products; tables, models, data and .venv stay
	@rm -rf build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache spark-warehouse metastore_db derby.log
	@find . -path './.venv*' -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean  ## Remove the environment too
	@rm -rf $(VENV)

# Made again only when the pins change, or when the folder was moved (scripts in a venv hold absolute paths).
ifneq ($(shell cat $(ready) 2>/dev/null),$(abspath $(VENV)))
.PHONY: $(ready)
endif
$(ready): pyproject.toml constraints.txt
	@PATH="$(host_path)" scripts/setup.sh "$(PYTHON)" "$(abspath $(VENV))"
