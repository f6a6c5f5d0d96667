#!/usr/bin/env bash
# Runs the tests of the worker's engine, and the demo, on several engines: deploy/test_engines.sh [ENGINE…]. The engines
# are `machine` (a running engine, or else the installed dockerd), and `classic` and `containerd` (Debian 13's dockerd
# with that image store).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/process.sh
source "$root/deploy/lib/process.sh"
# shellcheck source=deploy/lib/parts.sh
source "$root/deploy/lib/parts.sh"
# shellcheck source=deploy/lib/tested.sh
source "$root/deploy/lib/tested.sh"

main() {
    local engine engines=("$@")
    ((${#engines[@]} > 0)) || engines=(machine classic containerd)
    cd "$root"
    deploy/bootstrap.sh install test
    own_test_state "$root/.test"
    start_engine "${engines[0]}"
    start_hosts "$test_state"
    start_queue_and_store "$test_state"
    export_test_parts
    for engine in "${engines[@]}"; do
        start_engine "$engine"
        if [[ $engine == containerd ]]; then
            export GANTRY_TEST_CONTAINERD_DOCKER_HOST=$DOCKER_HOST GANTRY_TEST_CONTAINERD_DOCKERD=$GANTRY_TEST_DOCKERD
            test_on "$(engine_description)" cargo test --workspace --test engine -- on_the_containerd_store
            test_on "whole runs there" cargo test --workspace --test real --test faults -- on_the_containerd_store
        else
            test_on "$(engine_description)" cargo test --workspace --test engine -- on_the_default_engine gibibyte
        fi
        show_demo "$engine"
        stop_engine "$engine"
    done
    test_report
}

# Exports the engine's address, and the program that starts another one.
start_engine() {
    local DOCKERD=dockerd
    case $1 in
        machine) export_fact "$bootstrap" engine start --state "$test_state" ;;
        classic | containerd) export_fact "$bootstrap" engine start --state "$test_state/$1" --debian 13 --store "$1" ;;
        *) fail "unknown engine: $1; use machine, classic or containerd" ;;
    esac
    export GANTRY_TEST_DOCKER_HOST=$DOCKER_HOST GANTRY_TEST_DOCKERD=$DOCKERD
}

stop_engine() {
    local state=$test_state
    [[ $1 == machine ]] || state+=/$1
    "$bootstrap" engine stop --state "$state"
}

# The demo finds the engine through DOCKER_HOST, and starts its own registry and git server.
show_demo() {
    local status=0 demo=$test_state/demo
    DOCKER_HOST=$GANTRY_TEST_DOCKER_HOST DEMO_STATE=$demo deploy/demo.sh || status=$?
    tested+=("the demo on $1: $( ((status == 0)) && printf passed || printf failed)")
    ((status == 0)) || test_failed=1
}

# As reported by the engine.
engine_description() {
    curl --silent --fail --max-time 5 --unix-socket "${GANTRY_TEST_DOCKER_HOST#unix://}" http://engine/info |
        jq --raw-output '"Docker Engine \(.ServerVersion), \(if any(.DriverStatus[]; .[1] == "io.containerd.snapshotter.v1") then "containerd" else "classic" end) image store (\(.Driver))"'
}

main "$@"
