# shellcheck shell=bash
# shellcheck disable=SC2154 # parts.sh assigns test_state
# Runs of one suite on several servers, and how many tests passed on each.

tested=()

# Runs "$@", which is a `cargo test` of one program, and notes for `what` how many tests passed. The
# last result counts: a test that failed may have shown another.
test_on() {
    local what=$1 status=0 log=$test_state/tested.log
    shift
    say "### $what"
    "$@" 2>&1 | tee "$log" || status=$?
    tested+=("$(awk -v what="$what" '/^test result: / { passed = $4; failed = $6 }
        END { printf "%s: %d passed, %d failed", what, passed, failed }' "$log")")
    ((status == 0)) || test_failed=1
}

# Says what was tested, and fails if a test did.
test_report() {
    printf '%s\n' "${tested[@]}"
    [[ -z ${test_failed-} ]]
}
