#!/usr/bin/env bash
# Runs all tests, and with the debug binary the demo and the roles from docker-compose.yml, over a
# real engine, registry, git server, Redis, RabbitMQ and S3, which it starts in .test, on free ports,
# and stops.
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
    start_test_servers "$root/.test"
    make --no-print-directory build
    run_tests
    DEMO_STATE=$root/.test/demo DEMO_GANTRY=$root/target/debug/gantry deploy/demo.sh
    deploy/compose-check.sh "$root/.test/compose" "$root/target/debug/gantry"
}

# nextest leaves out the examples in the documentation.
run_tests() {
    if command -v cargo-nextest >/dev/null; then
        cargo nextest run --workspace --no-fail-fast
        cargo test --workspace --doc
    else
        cargo test --workspace --no-fail-fast
    fi
}

main
