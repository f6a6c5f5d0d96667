.PHONY: help demo test slow test-engines test-servers faults soak check build audit fuzz fuzz-api bench

help: ## says what each target does
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 16

demo: ## shows the main job on this machine, a pushed commit to a running image; KEEP=1 leaves it running
	@KEEP=$(KEEP) deploy/demo.sh

test: ## installs and starts what the tests need, and runs them and the demo
	@deploy/test.sh

slow: ## runs the tests that are slow or statistical: before a release
	@deploy/test.sh slow

test-engines: ## tests the worker on the engine of this machine and on Debian 13's with either image store; engines="classic" is less
	@deploy/test_engines.sh $(engines)

test-servers: ## tests the store and the queues on Debian 13's Redis and RabbitMQ
	@deploy/test_servers.sh

faults: slow ## the slow tests; then lets processes, servers and connections fail, by 23 seeds; GANTRY_FAULT_SEED=2007 plays one again
	@deploy/faults.sh

soak: ## lets everything fail in both modes, seed after seed, for MINUTES=30; SEED=1000 begins where it has not been
	@deploy/soak.sh

check: ## format, lints, documentation and shell scripts, without a warning
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps
	shellcheck --external-sources deploy/*.sh deploy/compose/*.sh .ci/run

build: ## compiles the program and the tests, for debugging
	cargo build --workspace
	cargo test --workspace --no-run

audit: ## checks what gantry is linked with: bans, licences, sources, advisories; ADVISORIES names a mirror of RustSec's
	@deploy/audit.sh

fuzz: ## lets libFuzzer look for what breaks gantry's readers: TARGET=github SECONDS=600, or all for a minute each
	@deploy/fuzz.sh "$(TARGET)" "$(SECONDS)"

fuzz-api: ## lets schemathesis hold gantry to its OpenAPI document, for SECONDS
	@deploy/fuzz_api.sh $(SECONDS)

bench: ## measures gantry beside its limits and its peer; rounds=3 is shorter, parts="accept forged" is less
	@deploy/bench.sh $(parts) $(if $(rounds),rounds=$(rounds))
