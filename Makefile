# Every target makes the environment it needs under .venv/ from a lock in infra/requirements/.
# The first run downloads it; later ones start at once.

PYTHON ?= python3
ORDERS ?= 200
# More arguments for pytest: make test ARGS="tests/unit -k inbox"
ARGS ?=
# The interpreter LocalStack runs on; found by itself when empty.
PYTHON313 ?=

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PYTHON PYTHON313
# An outer environment must not leak into the ones made here.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONSTARTUP
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV PYTEST_ADDOPTS

.PHONY: help
help: ## what can be made
	@echo "usage: make TARGET [PYTHON=python3.13] [ORDERS=200] [ARGS=...]"
	@echo
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)$$/\1|\2/p' $(firstword $(MAKEFILE_LIST)) \
		| while IFS='|' read -r name text; do printf '  %-16s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: ## the sample shop end to end on an embedded emulator, ORDERS orders of it
	@.ci/venv demo --with-headrace
	@.venv/demo/bin/python -m services.demo --orders $(ORDERS)

.PHONY: demo-localstack
demo-localstack: ## the same on LocalStack (needs Python 3.13 and npm, no container)
	@.ci/venv demo --with-headrace
	@python=$$(.ci/find-python 3.13) && PYTHON="$$python" .ci/venv localstack
	@HEADRACE_LOCALSTACK_PYTHON="$(CURDIR)/.venv/localstack/bin/python" \
		.ci/with-dynoxide --required \
		.venv/demo/bin/python -m services.demo --orders $(ORDERS) --emulator localstack

.PHONY: soak
soak: ## ORDERS orders (10000) while its processes are killed at random; SEED=n repeats a run
	@.ci/venv demo --with-headrace
	@.ci/with-dynoxide .venv/demo/bin/python -m services.soak \
		--orders $(if $(filter file,$(origin ORDERS)),10000,$(ORDERS)) $(if $(SEED),--seed $(SEED))

.PHONY: simulate
simulate: ## the sample shop on a simulated AWS with all faults on, SEEDS runs of it (1000)
	@.ci/venv demo --with-headrace
	@.venv/demo/bin/python -m services.simulation --seeds $(or $(SEEDS),1000) \
		$(if $(SEED),--seed $(SEED)) $(if $(FIRST),--first $(FIRST))

.PHONY: sabotage
sabotage: ## take one protection out of the library at a time, and see the simulation notice
	@.ci/venv test --with-headrace
	@.venv/test/bin/python -m tests.sabotage $(ARGS)

.PHONY: parity
parity: ## one table of cases on Lambda, on the worker and in memory: the same on all of them
	@.ci/venv test --with-headrace
	@.venv/test/bin/python -m tests.parity $(ARGS)

.PHONY: stops
stops: ## TIMES times (100) SIGTERM for a worker under load: none handled twice, none hidden
	@.ci/venv test --with-headrace
	@.venv/test/bin/python -m tests.load.stops --times $(or $(TIMES),100) $(ARGS)

.PHONY: fifo
fifo: ## 1,000 messages of a FIFO queue that fail at random, in order, beside one at a time
	@.ci/venv test --with-headrace
	@.venv/test/bin/python -m tests.load.fifo $(ARGS)

.PHONY: bad-one
bad-one: ## 10,000 messages, one bad in each ten: the others come once, and it is a dead letter
	@.ci/venv test --with-headrace
	@.venv/test/bin/python -m tests.load.bad_one $(ARGS)

.PHONY: flood
flood: ## 10,000 records in one Lambda invocation, and three seconds for them
	@.ci/venv test --with-headrace
	@RECORDS=$(or $(RECORDS),10000) .venv/test/bin/python -m pytest -q \
		tests/integration/hosts/test_lambda_at_scale.py $(ARGS)

.PHONY: bench
bench: ## headrace beside what would be used instead: CPU, throughput, cold start, memory, calls
	@.ci/venv test --with-headrace
	@.venv/test/bin/python -m benchmarks.side.run $(ARGS)

.PHONY: bench-quick
bench-quick: ## the same with less of everything, in ten minutes
	@.ci/venv test --with-headrace
	@.venv/test/bin/python -m benchmarks.side.run --quick $(ARGS)

.PHONY: calls
calls: ## what a message costs: AWS calls and DynamoDB units, counted on the ports
	@.ci/venv demo --with-headrace
	@.venv/demo/bin/python -m benchmarks.calls

.PHONY: saga-cost
saga-cost: ## what a step of a saga costs: AWS calls and DynamoDB units, counted on the ports
	@.ci/venv demo --with-headrace
	@.venv/demo/bin/python -m benchmarks.saga_cost

.PHONY: observe-cost
observe-cost: ## CPU of a message with traces, metrics and JSON logs, beside a message without
	@.ci/venv test --with-headrace
	@.venv/test/bin/python -m benchmarks.observe_cost $(ARGS)

.PHONY: redrive
redrive: ## 2,000 dead letters of four causes; a redrive of one group, killed TIMES times (100)
	@.ci/venv test --with-headrace
	@.venv/test/bin/python -m tests.load.redrive --times $(or $(TIMES),100) $(ARGS)

.PHONY: synth
synth: ## every stack on both hosts, and what cfn-lint, cdk-nag and checkov find in them; needs npm
	@.ci/synth $(ARGS)

.PHONY: moving
moving: ## a service moves from Lambda to a worker and back, MOVES times (4), under ORDERS orders
	@.ci/venv test --with-headrace
	@.ci/with-dynoxide .venv/test/bin/python -m tests.load.moving --orders $(ORDERS) --moves $(or $(MOVES),4) $(ARGS)

.PHONY: bundle
bundle: ## the size of the Lambda bundles, and how long their cold starts take
	@.ci/venv test --with-headrace
	@.venv/test/bin/python -m benchmarks.bundle $(ARGS)

.PHONY: test
test: ## all tests; ARGS goes to pytest
	@.ci/test $(ARGS)

.PHONY: test-localstack
test-localstack: ## the tests that talk to LocalStack, which `make test` leaves out
	@.ci/venv test --with-headrace
	@python=$$(.ci/find-python 3.13) && PYTHON="$$python" .ci/venv localstack
	@HEADRACE_LOCALSTACK_PYTHON="$(CURDIR)/.venv/localstack/bin/python" \
		.ci/with-dynoxide .venv/test/bin/python -m pytest \
		tests/contract tests/integration/aws/test_localstack.py -k localstack $(ARGS)

.PHONY: mutants
mutants: ## change the commit path in small ways, and list what no test notices; ARGS names modules
	@.ci/venv test --with-headrace
	@.venv/test/bin/python -m tests.mutation $(ARGS)

.PHONY: check
check: ## lint, format, types and the layers of the architecture
	@.ci/venv test --with-headrace
	.venv/test/bin/python -m ruff check .
	.venv/test/bin/python -m ruff format --check .
	.venv/test/bin/python -m mypy --strict
	.venv/test/bin/python -m pytest -q tests/architecture

.PHONY: types-cdk
types-cdk: ## types of the constructs against the CDK's own sources, which takes minutes
	@.ci/venv test --with-headrace
	.venv/test/bin/python -m mypy --strict --config-file infra/mypy.ini -p headrace.cdk

.PHONY: format
format: ## rewrite the sources as `make check` wants them
	@.ci/venv test --with-headrace
	.venv/test/bin/python -m ruff check --fix .
	.venv/test/bin/python -m ruff format .

.PHONY: wheel
wheel: ## build dist/*.whl and try it alone in a fresh environment
	@.ci/wheel-check

.PHONY: lock
lock: ## compile infra/requirements/*.txt again (UPGRADE=1: to the newest versions)
	@.ci/lock $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## remove environments, caches and what was built
	rm -rf .venv dist build .coverage .coverage.* htmlcov
	find . -type d \( -name __pycache__ -o -name .mypy_cache -o -name .ruff_cache -o -name .pytest_cache \
		-o -name .hypothesis \) -prune -exec rm -rf {} +
