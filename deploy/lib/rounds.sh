# shellcheck shell=bash
# Rounds of the fault suite, for a script that has sourced process.sh and parts.sh. They start their own servers, on
# free ports and in a folder that is removed at the end.

# Installs the programs that rounds start, and creates their folder, which is removed however the script ends.
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

# A killed test leaves its servers running.
finish_rounds() {
    local status=$?
    trap - EXIT
    trap '' INT TERM
    end_all_in "$test_state/rounds"
    rm -rf "$test_state"
    exit "$status"
}

# Ends every process that has a folder as its working folder, or in its arguments or environment.
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
