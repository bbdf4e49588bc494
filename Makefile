# The entry point for people and CI. `make` lists the targets. All of them work on a fresh Debian or Ubuntu with Rust;
# missing packages are installed, with a message first.
.DEFAULT_GOAL := help
.PHONY: help run roll clean build test test-clients test-otlp chaos bench bench-100k count check deny docs
# A shell that was started before Rust was installed does not have cargo in its PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin

help: ## list the targets
	@echo "Parley, a chat cluster. make ..."
	@sed -nE 's/^([a-z0-9-]+):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 14
	@echo
	@echo "make run OFFSET=10000 adds 10000 to every port, so several clusters can run side by side."
	@echo "make run ORIGINS='http://127.0.0.1:8080,http://localhost:5173' admits these web pages only, and ORIGINS='*' all."
	@echo "make run GATEWAY_SETTINGS='limits.profile=open' passes settings to both gateways. Single ports:"
	@echo "HTTP_PORT LINES_PORT G1_WS_PORT G1_LINES_PORT G1_ADMIN_PORT G2_WS_PORT G2_LINES_PORT G2_ADMIN_PORT"
	@echo "PRESENCE_PORT PRESENCE_ADMIN_PORT REDIS_PORT PROMETHEUS_PORT"

run: ## start a whole cluster on this machine; Ctrl-C stops it
	@deploy/run

roll: ## restart the gateways of the running cluster one by one; `make build roll` deploys a new build
	@deploy/roll

clean: ## remove the logs and messages of stopped clusters: all, or one with OFFSET=n
	@deploy/clean

build: ## build both programs in release mode
	cargo build --locked --release -p gateway -p presence

test: ## run all tests: unit, property, contract and cluster tests with real servers, of clients and page too
	@deploy/bootstrap rust cc redis-server nginx stream-module openssl prometheus promtool chromium node
	cargo build --locked --workspace --bins
	@$(MAKE) --no-print-directory test-clients
	@if cargo nextest --version >/dev/null 2>&1; then \
		set -ex; cargo test --locked --workspace --doc; cargo nextest run --locked --workspace; \
	else \
		set -ex; cargo test --locked --workspace; \
	fi

test-clients: export PARLEY_BIN_DIR ?= $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/debug
test-clients: ## test the client libraries and the chat page, with programs that are built: [PARLEY_BIN_DIR=FOLDER]
	@deploy/bootstrap redis-server nginx stream-module prometheus chromium node npm python-venv
	cd clients/js && npm ci --no-audit --no-fund && npm test
	clients/python/check
	node --test gateway/page/test/*.test.js
	cd tests/browser && npm ci --no-audit --no-fund && npm test

test-otlp: ## test the OTLP export of spans, with the feature `otlp`
	@deploy/bootstrap rust cc redis-server
	cargo build --locked --workspace --bins --features gateway/otlp
	install -D target/debug/gateway target/otlp/gateway
	PARLEY_BIN_DIR=$(CURDIR)/target/otlp cargo test --locked -p parley-tests --features gateway/otlp,otlp --test otlp
	cargo build --locked --workspace --bins

chaos: ## inject faults into a cluster and check the guarantees: [SEED=n] [SECONDS=n] [RATE=n] [ROLLS=n] [FSYNC=always] [RELEASE=1]
	@deploy/bootstrap rust cc redis-server nginx stream-module node npm python-venv
	cd clients/js && npm ci --no-audit --no-fund
	clients/python/install
	cargo build --locked --workspace --bins $(if $(RELEASE),--release)
	target/$(if $(RELEASE),release,debug)/chaos --seconds $(or $(SECONDS),120) --fsync $(or $(FSYNC),everysec) \
		$(if $(SEED),--seed $(SEED)) $(if $(RATE),--rate $(RATE)) $(if $(ROLLS),--rolls $(ROLLS)) \
		--version-under-test "$$(git describe --always --dirty 2>/dev/null || echo unknown)"

bench: ## measure Parley and its peers and write docs/PERFORMANCE.md; takes 45 minutes on an idle machine
	@deploy/bench/run

bench-100k: ## hold 100,000 connections for ten minutes, with one busy room of 1,000 members
	@deploy/bench/run crowd

count: ## count the instructions of the hot path and its scripts with Valgrind and compare with the last count
	@deploy/bootstrap rust cc valgrind redis-server
	@version=$$(sed -n 's/^gungraun = "=\(.*\)"/\1/p' benches/Cargo.toml); \
		gungraun-runner --version 2>/dev/null | grep -qF "$$version" || \
		cargo install --locked --version "$$version" gungraun-runner
	cargo bench --manifest-path benches/Cargo.toml

check: deny ## check formatting, lints, documentation and dependencies; warnings are errors
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --features gateway/otlp,parley-tests/otlp -- -D warnings
	cargo clippy --locked --manifest-path benches/Cargo.toml --target-dir $(or $(CARGO_TARGET_DIR),target) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

deny: ## check licences, sources and forbidden crates of all dependencies, a part of check; installs cargo-deny
	@deploy/bootstrap rust cc
	@cargo deny --version >/dev/null 2>&1 || \
		CARGO_PROFILE_DEV_DEBUG=0 cargo install --debug --locked --version 0.20.2 cargo-deny
	set -e; for manifest in Cargo.toml benches/Cargo.toml fuzz/Cargo.toml; do \
		cargo fetch --locked --manifest-path $$manifest; \
		cargo deny --offline --locked --manifest-path $$manifest --config deny.toml check licenses bans sources; \
	done

docs: ## write docs/CONFIGURATION.md and the example settings files from the settings tables
	@deploy/bootstrap rust cc
	PARLEY_WRITE_DOCS=1 cargo test --locked -p parley-tests --test it operators::configuration_page
