# shellcheck shell=bash
# Rounds of the fault suite, for a script that has sourced process.sh and parts.sh: they start servers of their own, on free
# ports and in a folder that is gone at the end.

# Installs what rounds start, and makes their folder, until the script ends in whatever way.
with_rounds() {
    test_state=$1
    "$(dirname "${BASH_SOURCE[0]}")/../bootstrap.sh" install test
    be_alone
    trap finish_rounds EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    mkdir -p "$test_state/rounds"
    export TMPDIR=$test_state/rounds
}

# A test that ends in good order has ended its servers; one that was killed has not.
finish_rounds() {
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
