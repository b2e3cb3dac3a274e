# What one can do here; CI runs the same targets. The work is in scripts/.

# Outside the clone, so that several clones share what is built.
CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/shardwright/target
export CARGO_TARGET_DIR

.PHONY: help build demo kinesis test test-fast helm-test image image-test check bench sim scenarios scenario mutants soak upgrade-test

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 22

build: ## the binary, at $CARGO_TARGET_DIR/debug/shardwright
	@scripts/setup build
	cargo build --workspace --locked

demo: ## a live cluster, its accidents and a ledger; STORE=etcd, KEEP=1, GROW=5
	@scripts/demo

kinesis: build ## a local Kinesis endpoint with a live stream, for the README's tour
	@"$(CARGO_TARGET_DIR)/debug/kinesis"

test: ## every test, with real servers: installs what is missing
	@scripts/test

test-fast: ## the tests that need no server
	@scripts/test fast

helm-test: ## the chart: renders, strict schemas, promises, a release's life by helm 3 and helm 4
	@scripts/helm-test

image: ## the container image; TAG=name ARCH=arm64 TARGET=slim SBOM=file HOST=1 (compiled here, not in the image's own stage)
	@scripts/image $(if $(TAG),--tag $(TAG)) $(if $(ARCH),--arch $(ARCH)) $(if $(TARGET),--target $(TARGET)) $(if $(SBOM),--sbom $(SBOM)) $(if $(HOST),--host)

image-test: ## the image: built without a daemon, looked into, a cluster run from it as locked up as can be
	@scripts/image-test

upgrade-test: ## the chart's pods as processes here: a rolling upgrade under load, leader and worker killed, a ledger
	@scripts/kube

check: ## format, lints, dependency arrows, sizes
	@scripts/check

bench: ## CPU and memory per million records, failover times: a table and JSON
	@scripts/bench

soak: ## a cluster among random faults, with a ledger every minute; MINUTES=10 SEED=n
	@scripts/soak

# Built for speed: a run of seeds is processor time and nothing else.
sim: ## simulated clusters: SEEDS=1000 FROM=0, or one SEED=7 (FAULTS=n, STORY=1)
	@scripts/sim $(if $(SEED),--seed $(SEED) $(if $(FAULTS),--faults $(FAULTS)) $(if $(STORY),--story),--seeds $(or $(SEEDS),100) --from $(or $(FROM),0))

mutants: ## deliberate defects, each of which the simulation must catch; MUTANT=name
	@scripts/mutants $(if $(MUTANT),--mutant $(MUTANT)) $(if $(JOBS),--jobs $(JOBS))

scenarios: ## what breaks other consumers of Kinesis (docs/kinesis.md): a row each; SEEDS=5
	@scripts/sim --scenarios --seeds $(or $(SEEDS),5) --from $(or $(FROM),0)

scenario: ## one of them: NAME=S07, and perhaps SEED=0 (STORY=1)
	@scripts/sim --scenario $(or $(NAME),S01) $(if $(SEED),--seed $(SEED) $(if $(STORY),--story),--seeds $(or $(SEEDS),5))
