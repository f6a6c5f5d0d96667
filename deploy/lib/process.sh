# shellcheck shell=bash
# Messages, and processes that outlive the script that starts them.

# On Debian, daemons and network tools are only in root's PATH.
PATH=$PATH:/usr/sbin:/sbin

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "error: $*"
    exit 1
}

# Runs "$@" in a session of its own, with its output in a log, and prints its pid.
start_process() {
    local log=$1
    shift
    setsid nohup "$@" >>"$log" 2>&1 </dev/null &
    printf '%s\n' "$!"
}

# The pid in a file, if that process still runs and has `mark` in its command line. A pid alone is not
# enough: after a crash or a reboot it may belong to another program.
running_pid() {
    local pid_file=$1 mark=$2 pid
    pid=$(cat "$pid_file" 2>/dev/null) || return 1
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$mark" || return 1
    printf '%s\n' "$pid"
}

# Ends the process of a pid file within `patience` seconds, and removes the file.
stop_process() {
    local pid_file=$1 mark=$2 patience=${3:-10} pid
    if pid=$(running_pid "$pid_file" "$mark"); then
        kill -TERM "$pid" 2>/dev/null || true
        wait_until "$patience" has_ended "$pid" || kill -KILL "$pid" 2>/dev/null || true
        wait_until 5 has_ended "$pid" || say "warning: process $pid does not end"
    fi
    rm -f "$pid_file"
}

# A zombie has ended, although its pid is still in use.
has_ended() {
    local status
    status=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    [[ ${status##*) } == Z* ]]
}

# Waits until "$@" succeeds, at most `seconds`.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# Waits until "$@" succeeds, at most `seconds` and no longer than the process lives.
wait_ready() {
    local seconds=$1 pid=$2
    shift 2
    wait_until "$seconds" ready_or_ended "$pid" "$@"
    "$@"
}

ready_or_ended() {
    local pid=$1
    shift
    "$@" || has_ended "$pid"
}

# A port that nothing listens on, below the kernel's range for clients.
free_port() {
    local port
    while true; do
        port=$((20000 + RANDOM % 12000))
        port_answers "$port" || break
    done
    printf '%s\n' "$port"
}

# The requested port, which must be free, or any free port if none is requested.
port_or_free() {
    if [[ -z $1 ]]; then
        free_port
    elif port_answers "$1"; then
        fail "port $1 is in use: choose another, or none to get a free one"
    else
        printf '%s\n' "$1"
    fi
}

port_answers() {
    (: >"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# The last lines of a log, for an error message.
show_log() {
    say "last lines of $1:"
    tail -n 20 "$1" >&2 || true
}
