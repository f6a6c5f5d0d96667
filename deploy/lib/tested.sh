# shellcheck shell=bash
# shellcheck disable=SC2154 # parts.sh assigns test_state
# Runs one suite on several servers, and reports how many tests passed on each.

tested=()

# Runs "$@", which is a `cargo test` of one program, and records for `what` how many tests passed. The
# last result counts, because the output of a failed test may contain another.
test_on() {
    local what=$1 status=0 log=$test_state/tested.log
    shift
    say "### $what"
    "$@" 2>&1 | tee "$log" || status=$?
    tested+=("$(awk -v what="$what" '/^test result: / { passed = $4; failed = $6 }
        END { printf "%s: %d passed, %d failed", what, passed, failed }' "$log")")
    ((status == 0)) || test_failed=1
}

# Prints what was tested, and fails if a test failed.
test_report() {
    printf '%s\n' "${tested[@]}"
    [[ -z ${test_failed-} ]]
}
