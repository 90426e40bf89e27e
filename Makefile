# The only list of commands; CI calls the same targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVE := .venv-serve
FUZZ := .venv-fuzz
DOCS := .venv-docs
TEST_WORKERS ?= 2
SERVED := tests/bundle tests/serve tests/client tests/clinic/test_recertify.py tests/clinic/test_pool.py
PEERS ?= .venv-peers

.DEFAULT_GOAL := help
.PHONY: help install check test test-slow test-serve test-docs fuzz bench torture proof demo mlflow lock clean torture-backlog torture-service torture-zoo bench-peers bench-training browser deploy-check image-check gpu-check docs

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "%-16s %s\n", $$1, $$2}'

# The environments, with their extras of pyproject.toml.
$(VENV)/.installed: EXTRAS := train,serve,dev
$(SERVE)/.installed: EXTRAS := serve,queue,test
$(FUZZ)/.installed: EXTRAS := serve,test
$(FUZZ)/.installed: PACKAGES := 'schemathesis>=4.32'
$(DOCS)/.installed: EXTRAS := serve,queue,client,batch,docs
$(VENV)/.installed $(SERVE)/.installed $(FUZZ)/.installed $(DOCS)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; say which with PYTHON=..."; exit 1; }
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D) || \
		{ echo "python3 -m venv failed; on Debian: apt-get install python3-venv"; exit 1; }
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]' $(PACKAGES)
	@touch $@

install: $(VENV)/.installed ## the development environment (PyTorch: several GB)

check: $(VENV)/.installed ## lint, types, import contracts: seconds
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# Status 2: a worker did not answer within mypy's three seconds, as on a busy machine; one process needs none.
	$(BIN)/mypy --num-workers $(TEST_WORKERS) || { test $$? -eq 2 && $(BIN)/mypy; }
	$(BIN)/lint-imports

test: check test-serve ## lint, types and all tests but the long ones; what test-serve ran is not run twice
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(SERVED:%=--ignore=%)

test-slow: $(VENV)/.installed ## trainings in several processes, kills, clusters, every command that a page prints: minutes
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder -m 'slow or pages'

test-serve: $(SERVE)/.installed ## the server's tests, in an environment without training libraries
	$(SERVE)/bin/python -m pytest -n $(TEST_WORKERS) --dist loadfile $(SERVED)

fuzz: $(FUZZ)/.installed ## thousands of odd requests, made from the published description, to a real server: minutes
	$(FUZZ)/bin/python tests/fuzz.py

test-docs: $(VENV)/.installed ## run every command that the pages print, and check the built site: minutes
	$(BIN)/python -m pytest -m pages tests/docs

docs: $(DOCS)/.installed ## the pages as a site in build/docs/html, without PyTorch; a warning is an error
	$(DOCS)/bin/python docs/builder/build.py

browser: ## Chromium, curl and openssl from Debian, for the tests of pages; without them those are skipped, loudly
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null && command -v curl >/dev/null && command -v openssl >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver curl openssl >/dev/null; } || \
		echo "NO BROWSER: chromium, chromium-driver, curl and openssl cannot be installed here; pages are not tried without them"

bench: $(VENV)/.installed ## ratios, not seconds: scorer, server, certificate, metrics, manifest, cache
	$(BIN)/python tests/bench.py
	$(BIN)/python tests/bench_protocols.py
	$(BIN)/python tests/bench_service.py --install
	$(BIN)/python tests/bench_quality.py
	$(BIN)/python tests/bench_certificate.py
	$(BIN)/python tests/bench_metrics.py
	$(BIN)/python tests/bench_audit.py
	$(BIN)/python tests/bench_manifest.py
	$(BIN)/python tests/bench_cache.py
	$(BIN)/python tests/bench_backlog.py 4

bench-training: $(VENV)/.installed ## training: loop, memory, layout, precision, loader; TIMM_TRAIN=FILE beside timm's train.py
	$(BIN)/python tests/bench_training.py
ifdef TIMM_TRAIN
	$(BIN)/python tests/bench_beside_timm.py --timm-train $(TIMM_TRAIN)
else
	@echo "not run beside timm's train.py: give its path as TIMM_TRAIN=..., see tests/bench_beside_timm.py --help"
endif

deploy-check: $(VENV)/.installed ## the files of serve/deploy against schema, promtool and systemd
	@command -v promtool >/dev/null || apt-get install -y -q --no-install-recommends prometheus || \
		echo "promtool is not here: the alert rules will not be tested"
	$(BIN)/python -m pytest -q -rs tests/serve/test_deploy.py

gpu-check: $(VENV)/.installed ## whether training does on this machine's GPU what it does on a processor, and how fast
	PYTHONPATH=tests/train $(BIN)/python tests/gpu_check.py $(GPU_CHECK)

image-check: $(VENV)/.installed ## build the image, run it by compose.yaml and the manifest, as root; IMAGE_CHECK='--engine docker'
	$(BIN)/python tests/image_check.py $(IMAGE_CHECK)

torture: $(VENV)/.installed ## kill a training run twenty times with kill -9; the weights must come out the same
	$(BIN)/python -m pytest -m torture tests/train --ignore=tests/train/test_zoo.py

torture-zoo: $(VENV)/.installed ## train and export one backbone of each family of timm, half an hour
	$(BIN)/python -m pytest -m torture tests/train/test_zoo.py

torture-backlog: $(VENV)/.installed ## score a hundred thousand pictures, killed twice; no row lost or doubled
	$(BIN)/python -m pytest -s -m torture tests/backlog

torture-service: $(VENV)/.installed ## 100,000 hostile pictures, ten times the load for a minute, 20 kills, a full disk
	$(BIN)/python -m pytest -s -m torture tests/serve
	$(BIN)/python -m pytest -q -m "not pages" tests/serve/test_proof.py tests/serve/test_webhooks.py -k "kill or full"
	$(BIN)/python -m pytest -q tests/serve/test_audit_log.py tests/bundle/test_store.py -k flipped

bench-peers: $(VENV)/.installed ## beside LitServe, BentoML and mlflow models serve; PEERS=DIR has their environments
	$(BIN)/python tests/bench_peers.py --prepare --folder $(PEERS)
	$(BIN)/python tests/bench_peers.py --folder $(PEERS)
	$(BIN)/python tests/bench_peers.py --folder $(PEERS) --case

proof: $(VENV)/.installed ## the certificate's promise, tested on recorded scores ten thousand times
	$(BIN)/lesion-triage proof

demo: $(VENV)/.installed ## the whole pipeline on drawn pictures, ending with three cases over HTTP
	$(BIN)/lesion-triage demo configs/demo.yaml

mlflow: $(VENV)/.installed ## browse your runs in MLflow on http://127.0.0.1:5000
	$(BIN)/mlflow server --host 127.0.0.1 --port 5000 \
		--backend-store-uri sqlite:///experiments/mlflow.db --artifacts-destination experiments/mlartifacts

lock: ## write constraints.txt from the installed environment
	$(BIN)/python -m pip freeze --exclude-editable | grep -viE '^(nvidia|cuda|triton|pip|setuptools)([-_=]|$$)' > constraints.txt

clean: ## remove the environments and all caches; runs stay
	rm -rf $(VENV) $(SERVE) $(FUZZ) $(DOCS) .venv-peers build/docs .pytest_cache .mypy_cache .ruff_cache .hypothesis
