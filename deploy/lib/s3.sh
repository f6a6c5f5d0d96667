# shellcheck shell=bash
# shellcheck disable=SC2154 # the options are assigned in bootstrap.sh
# An S3 server that keeps its objects in memory and listens on loopback: moto, from PyPI.

s3_requirements=$(dirname "${BASH_SOURCE[0]}")/s3_requirements.txt

s3_start() {
    s3_names
    if running_pid "$s3_pid_file" "$s3_program" >/dev/null; then
        fail "an S3 server already runs in $state: stop it first"
    fi
    s3_install
    mkdir -p "$s3_folder"
    port=$(port_or_free "$port")
    local pid
    pid=$(start_process "$s3_log" "$s3_program" -H 127.0.0.1 -p "$port")
    printf '%s\n' "$pid" >"$s3_pid_file"
    if ! wait_ready 30 "$pid" s3_answers; then
        show_log "$s3_log"
        s3_stop
        fail "the S3 server did not start at 127.0.0.1:$port: see the lines above"
    fi
    printf 'GANTRY_TEST_S3=http://127.0.0.1:%s\n' "$port"
}

s3_stop() {
    s3_names
    stop_process "$s3_pid_file" "$s3_program"
}

s3_names() {
    s3_folder=$state/s3
    s3_pid_file=$s3_folder/s3.pid
    s3_log=$s3_folder/s3.log
    s3_program_names
}

# Installed once for all folders.
s3_program_names() {
    s3_home=${XDG_CACHE_HOME:-$HOME/.cache}/gantry/s3-$(sha256sum <"$s3_requirements" | head -c 12)
    s3_program=$s3_home/bin/moto_server
}

s3_answers() {
    curl --silent --max-time 5 --output /dev/null "http://127.0.0.1:$port/"
}

# Once per list of requirements; an incomplete installation is repeated.
s3_install() {
    s3_program_names
    [[ ! -e $s3_home/complete ]] || return 0
    say "installing moto from PyPI"
    rm -rf "$s3_home"
    mkdir -p "$(dirname "$s3_home")"
    python3 -m venv "$s3_home"
    if ! "$s3_home/bin/pip" --quiet --disable-pip-version-check --no-input install --requirement "$s3_requirements" >&2; then
        fail "pip could not install moto: is PyPI reachable? When it is, run this again"
    fi
    touch "$s3_home/complete"
}
