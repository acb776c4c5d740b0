# Build products stay out of the working tree, so that `git clean` and a read-only checkout do no harm.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lakeward/target

.PHONY: help demo test test-quick test-matrix soak fuzz fuzz-seeds bench lint clean

help: ## this text
	@sed -n 's/^\([a-z-]*\): *## /  make \1\t/p' Makefile | expand -t 20

demo: ## see it work: MariaDB and PostgreSQL with traffic into a local lake (DEMO_SECONDS=60: ends by itself)
	@scripts/demo.sh

test: ## all tests, on real servers: MariaDB, MySQL 9, PostgreSQL 15 (ARGS="name" runs some)
	@scripts/setup.sh --test
	@scripts/with-servers.sh cargo test --no-fail-fast $(ARGS)

test-matrix: ## the tests of every server, one after the other: MariaDB, MySQL 9, PostgreSQL 15, 16, 17, 18 (ARGS="name" runs some)
	@scripts/setup.sh --matrix
	@scripts/test-matrix.sh $(ARGS)

soak: export LAKEWARD_TEST_PROGRAM = $(CARGO_TARGET_DIR)/release/lakeward
soak: ## with the release build: long random walks of DDL and DML, loads with a thousand chunks, many verifications of a large table under load, on every server (STATEMENTS=5000, SEED=…)
	@scripts/setup.sh --test
	cargo build --release
	LAKEWARD_WALK_STATEMENTS=$(or $(STATEMENTS),5000) LAKEWARD_WALK_SEED=$(or $(SEED),$(shell date +%s)) \
	    scripts/with-servers.sh cargo test --test schema walk -- --nocapture --test-threads 1
	LAKEWARD_ROW_CHUNKS=1 scripts/with-servers.sh cargo test --test resync goes_on_beside -- --nocapture --test-threads 1
	LAKEWARD_VERIFICATIONS=50 LAKEWARD_QUIET_ROWS=1000000 scripts/with-servers.sh \
	    cargo test --test verify not_there -- --nocapture --test-threads 1

fuzz: ## fuzz the decoders, guided by coverage (SECONDS=600 for each target, TARGETS="jsonb pgoutput" for some)
	@scripts/setup.sh --fuzz
	@scripts/fuzz.sh $(or $(SECONDS),600) $(TARGETS)

fuzz-seeds: ## record the fuzz targets' seed corpus from the servers again
	@scripts/setup.sh --test
	@scripts/fuzz-seeds.sh

test-quick: ## unit tests only: no servers, seconds
	cargo test --lib

bench: ## end-to-end measurements, release build
	@scripts/setup.sh --test
	@scripts/bench.sh $(ARGS)

lint: ## formatting, clippy, licences and sources of dependencies, the compose file
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	@scripts/setup.sh --lint
	@scripts/deny.sh
	@scripts/check-compose.sh

clean: ## build products and what a demo left behind
	cargo clean
	@scripts/demo.sh clean
