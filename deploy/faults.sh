#!/usr/bin/env bash
# Runs the rounds of the scaled mode: 20 seeds in which every kind of fault is once the main one, a
# cluster of three brokers of which one is killed, a worker that stops responding at default
# intervals, and suspended servers. Prints what was sent, answered and lost, and the time to recover.
# GANTRY_FAULT_SEED=2007 or 2003-2005 runs only these seeds, in the mode that they belong to. Each
# round starts its own servers in .faults, on free ports.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/process.sh
source "$root/deploy/lib/process.sh"
# shellcheck source=deploy/lib/parts.sh
source "$root/deploy/lib/parts.sh"
# shellcheck source=deploy/lib/rounds.sh
source "$root/deploy/lib/rounds.sh"

main() {
    cd "$root"
    with_rounds "$root/.faults"
    cargo build --workspace --bins
    GANTRY_FAULT_SEED=${GANTRY_FAULT_SEED:-2001-2023} \
        cargo test --workspace --test faults -- --nocapture every_accepted_delivery
}

main
