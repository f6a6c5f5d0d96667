.PHONY: help demo test check build bench

help: ## says what each target does
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 8

demo: ## shows the main job on this machine, a pushed commit to a running image; KEEP=1 leaves it running
	@KEEP=$(KEEP) deploy/demo.sh

test: ## installs and starts what the tests need, and runs all of them and the demo
	@deploy/test.sh

check: ## format, lints, documentation and shell scripts, without a warning
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps
	shellcheck --external-sources deploy/*.sh .ci/run

build: ## compiles the program and the tests, for debugging
	cargo build --workspace
	cargo test --workspace --no-run

bench: ## measures gantry beside its limits and its peer
	@deploy/bench.sh
