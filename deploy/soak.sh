#!/usr/bin/env bash
# Runs rounds of the fault suite for MINUTES (30), in both modes in parallel: rounds in which
# `gantry up` is killed, and rounds in which processes, servers and connections of the scaled mode
# fail. Prints each seed with its verdict. Stops at the first wrong round, and says how to repeat it.
# Both modes start at SEED (0). The first seeds are those of `make faults`; SEED=1000 runs others.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/process.sh
source "$root/deploy/lib/process.sh"
# shellcheck source=deploy/lib/parts.sh
source "$root/deploy/lib/parts.sh"
# shellcheck source=deploy/lib/rounds.sh
source "$root/deploy/lib/rounds.sh"

minutes=${MINUTES:-30}
seed=${SEED:-0}
first_embedded=10000
first_scaled=2001

main() {
    cd "$root"
    with_rounds "$root/.soak"
    copy_programs
    verdicts=$test_state/verdicts
    touch "$verdicts"
    printf 'soak: %s minutes from seed %s, commit %s\n' "$minutes" "$seed" "$(git rev-parse --short HEAD)"
    ends=$((SECONDS + 60 * minutes))
    lane $((first_embedded + seed)) 2 &
    local embedded=$!
    lane $((first_scaled + seed)) 1 &
    local scaled=$!
    local wrong=0
    # Either the first lane to end has found an error, or both are done.
    wait -n "$embedded" "$scaled" || wrong=1
    if ((wrong)); then
        end_all_in "$test_state/rounds"
    fi
    wait "$embedded" "$scaled" || wrong=1
    total
    return "$wrong"
}

# Copies the programs, so that builds in the meantime do not affect the rounds.
copy_programs() {
    local test
    cargo build --workspace --bins
    test=$(cargo test --workspace --test faults --no-run --message-format=json |
        sed -n 's/.*"name":"faults".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
    mkdir -p "$test_state/programs/deps"
    cp "$test" "$test_state/programs/deps/faults"
    cp "$(dirname "$test")"/../{gantry,gantry-scripted,gantry-scripted-role} "$test_state/programs"
}

# Runs rounds from a seed on, as many at once as the second argument says, until the time is over or one is wrong.
lane() {
    local next=$1 at_once=$2 last log
    while ((SECONDS < ends)); do
        last=$((next + at_once - 1))
        log=$test_state/$next.log
        if ! GANTRY_FAULT_SEED=$next-$last "$test_state/programs/deps/faults" --nocapture \
            every_accepted_delivery >"$log" 2>&1; then
            # Only the first lane to fail reports: it then ends the other, which so fails without an error of its own.
            mkdir "$test_state/wrong" 2>/dev/null || return 1
            cat "$log"
            printf 'WRONG, repeat with: GANTRY_FAULT_SEED=%s-%s make faults\n' "$next" "$last"
            return 1
        fi
        grep -E '^(seed |  )' "$log" | tee -a "$verdicts"
        rm "$log"
        next=$((last + 1))
    done
}

# Prints the totals of all rounds.
total() {
    awk '/^seed/ {
            rounds[$3]++
            for (i = 4; i < NF; i++) if ($(i + 1) ~ /^(accepted|lost|doubled|stale|kills)[,:]?$/) {
                word = $(i + 1); sub(/[,:]/, "", word); count[word] += $i
            }
        }
        /^  / && / recovered / { faults++ }
        END {
            for (mode in rounds) { name = mode; sub(/:/, "", name); printf "%d %s rounds, ", rounds[mode], name }
            printf "%d kills and %d other faults: %d accepted, %d lost, %d doubled, %d stale\n",
                count["kills"], faults, count["accepted"], count["lost"], count["doubled"], count["stale"]
        }' "$verdicts"
}

main
