# Parley's one front door: `make` alone lists what there is. Everything works on a fresh Debian or Ubuntu with Rust.
.DEFAULT_GOAL := help
.PHONY: help run roll build test test-otlp chaos bench bench-100k count check
# A shell that was open when Rust was installed does not have it in its PATH yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

help: ## list the targets
	@echo "Parley, a chat cluster. make ..."
	@sed -nE 's/^([a-z0-9-]+):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 14
	@echo
	@echo "make run OFFSET=10000 moves every port, so that several clusters can run side by side. One at a time:"
	@echo "HTTP_PORT LINES_PORT G1_WS_PORT G1_LINES_PORT G1_ADMIN_PORT G2_WS_PORT G2_LINES_PORT G2_ADMIN_PORT"
	@echo "PRESENCE_PORT PRESENCE_ADMIN_PORT REDIS_PORT PROMETHEUS_PORT"

run: ## bring up the whole cluster here, installing what is missing; Ctrl-C takes it down
	@deploy/run

roll: ## restart the gateways of the running cluster one by one; `make build roll` puts a new build into service
	@deploy/roll

build: ## build the two programs as they are deployed
	cargo build --locked --release -p gateway -p presence

test: ## run every test: units, properties, contracts, clusters in one process and of real processes
	@deploy/bootstrap rust cc redis-server nginx stream-module openssl prometheus promtool
	cargo build --locked --workspace --bins
	@if cargo nextest --version >/dev/null 2>&1; then \
		set -ex; cargo test --locked --workspace --doc; cargo nextest run --locked --workspace; \
	else \
		set -ex; cargo test --locked --workspace; \
	fi

test-otlp: ## test the export of spans, on a build with the feature that does it
	@deploy/bootstrap rust cc redis-server
	cargo build --locked --workspace --bins --features gateway/otlp
	install -D target/debug/gateway target/otlp/gateway
	PARLEY_BIN_DIR=$(CURDIR)/target/otlp cargo test --locked -p parley-tests --features gateway/otlp,otlp --test otlp
	cargo build --locked --workspace --bins

chaos: ## break a cluster on purpose and check what is promised: [SEED=n] [SECONDS=n] [RATE=n] [ROLLS=n] [FSYNC=always] [RELEASE=1]
	@deploy/bootstrap rust cc redis-server nginx stream-module
	cargo build --locked --workspace --bins $(if $(RELEASE),--release)
	target/$(if $(RELEASE),release,debug)/chaos --seconds $(or $(SECONDS),120) --fsync $(or $(FSYNC),everysec) \
		$(if $(SEED),--seed $(SEED)) $(if $(RATE),--rate $(RATE)) $(if $(ROLLS),--rolls $(ROLLS)) \
		--version-under-test "$$(git describe --always --dirty 2>/dev/null || echo unknown)"

bench: ## measure Parley, the floor and its peers on this machine, which takes half an hour of quiet: docs/PERFORMANCE.md
	@deploy/bench/run

bench-100k: ## hold 100,000 connections for ten minutes, with a busy room of 1,000 among them
	@deploy/bench/run crowd

count: ## count the instructions of the hot path with Valgrind, and the difference to the last count
	@deploy/bootstrap rust cc valgrind
	@version=$$(sed -n 's/^gungraun = "=\(.*\)"/\1/p' benches/Cargo.toml); \
		gungraun-runner --version 2>/dev/null | grep -qF "$$version" || \
		cargo install --locked --version "$$version" gungraun-runner
	cargo bench --manifest-path benches/Cargo.toml

check: ## formatting, lints and documentation, with warnings as errors
	@deploy/bootstrap rust cc
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --features gateway/otlp,parley-tests/otlp -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
