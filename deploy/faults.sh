#!/usr/bin/env bash
# Plays the rounds of the scaled mode: 20 seeds in which every kind of fault leads once, a cluster of
# three brokers of which one is killed, a worker that falls silent at default intervals, and servers
# that stand still. Prints what was sent, answered and lost, and how long it took to recover.
# GANTRY_FAULT_SEED=2007 or 2003-2005 plays these alone. Each round starts servers of its own in
# .faults, on free ports.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/process.sh
source "$root/deploy/lib/process.sh"
# shellcheck source=deploy/lib/parts.sh
source "$root/deploy/lib/parts.sh"

main() {
    cd "$root"
    deploy/bootstrap.sh install test
    test_state=$root/.faults
    be_alone
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    cargo build --package gantry
    mkdir -p "$test_state/rounds"
    GANTRY_FAULT_SEED=${GANTRY_FAULT_SEED:-2001-2023} TMPDIR=$test_state/rounds \
        cargo test --package gantry-tests --test faults -- --nocapture scaled_mode
}

# A test that ends in good order has ended its servers; one that was killed has not.
finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM
    end_all_in "$test_state/rounds"
    rm -rf "$test_state"
    exit "$status"
}

# Ends every process that works in a folder or was told of it.
end_all_in() {
    local process
    for process in /proc/[0-9]*; do
        [[ ${process#/proc/} != "$$" ]] || continue
        if [[ $(readlink "$process/cwd" 2>/dev/null) == "$1"/* ]] ||
            cat "$process/cmdline" "$process/environ" 2>/dev/null | tr '\0' '\n' | grep -qF -- "$1"; then
            kill -KILL "${process#/proc/}" 2>/dev/null || true
        fi
    done
}

main
