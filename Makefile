.PHONY: help demo test slow test-engines test-servers faults soak check build audit fuzz fuzz-api bench

help: ## lists the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 16

demo: ## builds a pushed commit on this machine and runs the image; KEEP=1 leaves everything running
	@KEEP=$(KEEP) deploy/demo.sh

test: ## installs and starts what the tests need, runs the tests and the demo
	@deploy/test.sh

slow: ## runs the slow and statistical tests: before a release
	@deploy/test.sh slow

test-engines: ## tests the worker on this machine's engine and on Debian 13's with either image store; engines="classic" selects one
	@deploy/test_engines.sh $(engines)

test-servers: ## tests the store and the queues on Debian 13's Redis and RabbitMQ
	@deploy/test_servers.sh

faults: slow ## the slow tests, then failing processes, servers and connections, with 23 seeds; GANTRY_FAULT_SEED=2007 repeats one
	@deploy/faults.sh

soak: ## everything fails in both modes, seed after seed, for MINUTES=30; SEED=1000 starts with other seeds
	@deploy/soak.sh

check: ## checks format, lints, documentation and shell scripts, and fails on warnings
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps
	shellcheck --external-sources deploy/*.sh deploy/compose/*.sh .ci/run

build: ## compiles the program and the tests, for debugging
	cargo build --workspace
	cargo test --workspace --no-run

audit: ## checks the dependencies: bans, licences, sources, advisories; ADVISORIES names a mirror of RustSec's
	@deploy/audit.sh

fuzz: ## fuzzes gantry's parsers with libFuzzer: TARGET=github SECONDS=600, or all for a minute each
	@deploy/fuzz.sh "$(TARGET)" "$(SECONDS)"

fuzz-api: ## tests the API against its OpenAPI document with schemathesis, for SECONDS
	@deploy/fuzz_api.sh $(SECONDS)

bench: ## measures gantry, its limits and its peer; rounds=3 is shorter, parts="accept forged" selects parts
	@deploy/bench.sh $(parts) $(if $(rounds),rounds=$(rounds))
