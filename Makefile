# Everything that must be green before a change goes in: `make lint test`.

SHELL := /bin/bash
CARGO ?= cargo

# Tests that cannot run here append `name<TAB>reason` to this file. Absolute, because each crate's tests run in its folder.
export COOP_SKIPS ?= $(CURDIR)/target/skips.tsv

# What a build needs beyond Rust, and what tests want, as `command:Debian,packages`. Without the latter tests are skipped.
NEEDS := cc:gcc,libc6-dev
WANTS := pg_ctlcluster:postgresql psql:postgresql-client chromium:chromium node:nodejs npm:npm redis-server:redis-server python3:python3,python3-venv

# What the browser tests are made of, beside Chromium.
WEB_TESTS := coop-server/tests/web

.DEFAULT_GOAL := help
.PHONY: fuzz help test test-python test-nextjs lint bench bench-tools crash simulate soak system browser

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r name what; do \
		printf '  make %-12s %s\n' "$$name" "$$what"; \
	done

test: system browser ## Run every test, doc tests included, and list what was skipped (with CI=true a skip is a failure)
	@mkdir -p "$$(dirname "$$COOP_SKIPS")" && : > "$$COOP_SKIPS"; \
	status=0; \
	$(CARGO) test --workspace --all-features --locked || status=$$?; \
	coop-py/tests/run || status=$$?; \
	echo; \
	if [ -s "$$COOP_SKIPS" ]; then \
		printf '%-40s %s\n' skipped because; \
		sort -u "$$COOP_SKIPS" | while IFS=$$'\t' read -r name reason; do printf '%-40s %s\n' "$$name" "$$reason"; done; \
		if [ "$${CI:-}" = true ] && [ $$status = 0 ]; then echo 'CI=true: a skip is a failure'; status=1; fi; \
	else \
		echo 'nothing skipped'; \
	fi; \
	exit $$status

lint: system ## Check formatting, clippy and the documentation, warnings being errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --all-features --no-deps --locked

browser: system
	@[ -x "$$(command -v npm)" ] && [ ! -d $(WEB_TESTS)/node_modules ] || exit 0; \
	npm ci --prefix $(WEB_TESTS) --no-audit --no-fund || echo 'the browser tests will be skipped' >&2

test-python: system ## Build the Python package's wheel, install it into a fresh environment, and run its tests
	coop-py/tests/run

test-nextjs: system ## Build the Next.js example and try it in Chromium
	$(CARGO) build -p coop-server --locked
	npm ci --prefix examples/nextjs --no-audit --no-fund
	cd examples/nextjs && node test.mjs

# How long `make crash` goes on, in seconds, and what decides what is killed when.
DURATION ?= 600
SEED ?= 1

crash: system ## Kill servers, Redis and PostgreSQL under load for DURATION seconds, and hold everybody's record against the store
	COOP_CRASH_SECONDS=$(DURATION) COOP_CRASH_SEED=$(SEED) $(CARGO) test --release -p coop-server --all-features --locked \
		--test it -- crash --nocapture

# How long `make fuzz` tries each target, in seconds.
FUZZ ?= 60

fuzz: ## Throw what no client would send at each decoder for FUZZ seconds (needs a nightly compiler and `cargo install cargo-fuzz`)
	cd coop-server && $(CARGO) +nightly fuzz run frames -- -max_total_time=$(FUZZ)
	cd coop-server && $(CARGO) +nightly fuzz run commands -- -max_total_time=$(FUZZ)
	cd coop-bots && $(CARGO) +nightly fuzz run sse -- -max_total_time=$(FUZZ)

simulate: system ## Run the simulation through 100,000 schedules
	COOP_SIM_SCHEDULES=100000 $(CARGO) test -p coop-core --all-features --locked --test it -- schedules_hold

# What `make bench` runs, and where what it takes is kept.
BENCHES := fanout turn store frame context sse
SCENARIOS := fanout steady stream idle churn slow growth
BENCH_TOOLS := $(CURDIR)/target/bench

# How long `make soak` goes on, in minutes.
MINUTES ?= 10

soak: ## Have people come and go for MINUTES minutes, and watch the server's memory
	$(CARGO) run --release --locked -p coop-benches --bin swarm -- soak --minutes $(MINUTES)

bench: system bench-tools ## Measure everything beside others, and write the README's table and plots
	$(CARGO) bench -p coop-benches --locked $(addprefix --bench ,$(BENCHES))
	mkdir -p $(BENCH_TOOLS)
	COOP_BENCH_PYTHON=$(BENCH_TOOLS)/python/bin/python NODE_PATH=$(BENCH_TOOLS)/node_modules \
		$(CARGO) run --release --locked -p coop-benches --bin swarm -- $(SCENARIOS) --json $(BENCH_TOOLS)/swarm.json
	$(BENCH_TOOLS)/python/bin/python benches/python/readme.py $(BENCH_TOOLS)/swarm.json

bench-tools: system
	[ -x $(BENCH_TOOLS)/python/bin/python ] || python3 -m venv $(BENCH_TOOLS)/python
	$(BENCH_TOOLS)/python/bin/pip install --quiet --disable-pip-version-check websockets matplotlib
	npm install --silent --no-audit --no-fund --no-save --prefix $(BENCH_TOOLS) ws || echo 'Node will not take part' >&2

system: ## Install missing system packages (on Debian, as root) or say what is missing
	@needed= wanted= packages=; \
	for part in $(NEEDS); do \
		command -v "$${part%%:*}" > /dev/null || { needed="$$needed $${part%%:*}"; packages="$$packages $${part#*:}"; }; \
	done; \
	for part in $(WANTS); do \
		command -v "$${part%%:*}" > /dev/null || { wanted="$$wanted $${part%%:*}"; packages="$$packages $${part#*:}"; }; \
	done; \
	[ -n "$$packages" ] || exit 0; \
	packages="$${packages//,/ }"; \
	if [ -f /etc/debian_version ] && [ "$$(id -u)" = 0 ]; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$packages; \
	elif [ -n "$$needed" ]; then \
		echo "missing:$$needed (on Debian:$$packages)" >&2; exit 1; \
	else \
		echo "some tests will be skipped without:$$wanted (on Debian:$$packages)" >&2; \
	fi
