#!/usr/bin/env bash
# Runs the tests over a real engine, registry, git server, Redis, RabbitMQ and S3 server, which it
# starts in .test, on free ports, and stops. Without an argument: all tests except those in modules
# named `slow` or `on_the_containerd_store`, then, with the debug binary, the demo and the roles from
# docker-compose.yml. With `slow`: only the tests in modules of that name.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/process.sh
source "$root/deploy/lib/process.sh"
# shellcheck source=deploy/lib/parts.sh
source "$root/deploy/lib/parts.sh"

main() {
    cd "$root"
    deploy/bootstrap.sh install test
    with_test_parts "$root/.test"
    export_fact "$bootstrap" s3 start --state "$root/.test"
    make --no-print-directory build
    case ${1:-} in
    slow)
        start_containerd_engine "$root/.test/containerd"
        run_slow_tests
        ;;
    *)
        run_tests
        DEMO_STATE=$root/.test/demo DEMO_GANTRY=$root/target/debug/gantry deploy/demo.sh
        deploy/compose-check.sh "$root/.test/compose" "$root/target/debug/gantry"
        ;;
    esac
}

has_nextest() {
    command -v cargo-nextest >/dev/null
}

# nextest does not run the examples in the documentation.
run_tests() {
    if has_nextest; then
        cargo nextest run --workspace --no-fail-fast
        cargo test --workspace --doc
    else
        # Keep the default of one thread per core: tests that measure memory share their process here.
        cargo test --workspace --no-fail-fast -- --skip slow:: --skip on_the_containerd_store::
    fi
}

run_slow_tests() {
    if has_nextest; then
        cargo nextest run --profile slow --workspace --no-fail-fast
    else
        cargo test --workspace --no-fail-fast --tests -- slow::
    fi
}

main "$@"
