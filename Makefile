# What one can do here; CI runs the same targets. The work is in scripts/.

# Outside the clone, so that several clones share what is built.
CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/shardwright/target
export CARGO_TARGET_DIR

.PHONY: help build demo kinesis test test-fast check bench soak

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 22

build: ## the binary, at $CARGO_TARGET_DIR/debug/shardwright
	@scripts/setup build
	cargo build --workspace --locked

demo: ## a live cluster, its accidents and a ledger; STORE=etcd, KEEP=1
	@scripts/demo

kinesis: build ## a local Kinesis endpoint with a live stream, for the README's tour
	@"$(CARGO_TARGET_DIR)/debug/kinesis"

test: ## every test, with real servers: installs what is missing
	@scripts/test

test-fast: ## the tests that need no server
	@scripts/test fast

check: ## format, lints, dependency arrows, sizes
	@scripts/check

bench: ## CPU and memory per million records, failover times: a table and JSON
	@scripts/bench

soak: ## a cluster among random faults, with a ledger every minute; MINUTES=10 SEED=n
	@scripts/soak
