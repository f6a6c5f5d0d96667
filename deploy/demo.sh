#!/usr/bin/env bash
# Shows gantry's main job with real servers: a commit is pushed, the signed webhook starts a build,
# and the image is pulled by its tag and run. A new base image rebuilds it, and a timer starts a task. Then a task file
# builds, tests and pushes, and a failing test stops the push.
#
#   deploy/demo.sh         builds gantry and runs the demo
#   deploy/demo.sh stop    stops what KEEP=1 left running
#
# KEEP=1 leaves everything running. DEMO_GANTRY=PATH uses an existing binary.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/process.sh
source "$root/deploy/lib/process.sh"
# shellcheck source=deploy/lib/parts.sh
source "$root/deploy/lib/parts.sh"
# shellcheck source=deploy/lib/hmac.sh
source "$root/deploy/lib/hmac.sh"
# shellcheck source=deploy/lib/run_image.sh
source "$root/deploy/lib/run_image.sh"
# shellcheck source=deploy/lib/hello.sh
source "$root/deploy/lib/hello.sh"
# shellcheck source=deploy/lib/without_a_push.sh
source "$root/deploy/lib/without_a_push.sh"
# shellcheck source=deploy/lib/tested_hello.sh
source "$root/deploy/lib/tested_hello.sh"

state=${DEMO_STATE:-$root/.demo}
gantry=${DEMO_GANTRY:-$root/target/debug/gantry}
work=$state/hello
repositories=$state/git/repositories

main() {
    stop_all
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    chapter "Installing missing packages and building gantry"
    "$bootstrap" install demo
    build_gantry

    chapter "Starting an engine, a registry, a git server and gantry"
    mkdir -p "$state"
    start_parts "$state"
    printf '%s\n' "engine       $DOCKER_HOST" "registry     $REGISTRY" "git          $GIT_URL" "base image   $BASE_IMAGE"
    start_gantry

    chapter "Creating a repository, and a task that builds it"
    make_repository
    make_task
    make_timed_task

    chapter "Pushing a commit, and sending the git host's webhook"
    push_commit "Say good morning" "good morning"
    send_push_hook
    follow_run

    chapter "Pulling the image from the registry and running it"
    show_image

    chapter "A new base image: what is built on it is rebuilt"
    push_new_base
    wait_for_trigger hello 'Image Update' 60
    run "$gantry" why "$REGISTRY/hello:$started"

    chapter "A timer has started its task, at the full minute"
    wait_for_trigger nightly Timer 90
    run "$gantry" task list-runs -r demo -n nightly

    chapter "A task file: build, test in a container, push what has passed"
    make_tested_task
    run_tested_task 0
    is_pushed || fail "the tested image was not pushed"

    chapter "A commit whose test fails is not pushed"
    push_commit "Say nothing" "nothing"
    run_tested_task 1
    ! is_pushed || fail "an image whose test failed was pushed"
    [[ -z ${KEEP-} ]] || show_next_steps
}

chapter() {
    printf '\n==> %s\n' "$1"
}

finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM # stopping takes a limited time; interrupting it would leave processes behind
    if ((status != 0)) && [[ -f $state/gantry.log ]]; then
        show_log "$state/gantry.log"
    fi
    if [[ -z ${KEEP-} ]]; then
        stop_all
    fi
    exit "$status"
}

stop_all() {
    [[ -d $state ]] || return 0
    stop_process "$state/gantry.pid" "$state/data" 20
    stop_parts "$state"
    rm -rf "$state"
}

build_gantry() {
    [[ -z ${DEMO_GANTRY-} ]] || return 0
    command -v cargo >/dev/null || fail "cargo is not installed: see https://rustup.rs"
    cargo build --manifest-path "$root/Cargo.toml" --package gantry
}

# The git server and the registry are on loopback, which gantry connects to only if the operator allows it.
start_gantry() {
    local pid
    address=127.0.0.1:$(free_port)
    export GANTRY_CONFIG=$state/client.toml GANTRY_OUTBOUND_ALLOW=127.0.0.1
    pid=$(start_process "$state/gantry.log" "$gantry" up --data "$state/data" --listen "$address")
    printf '%s\n' "$pid" >"$state/gantry.pid"
    wait_ready 30 "$pid" gantry_is_ready || fail "gantry did not start"
    printf '%s\n' "gantry       http://$address"
}

gantry_is_ready() {
    curl --silent --fail --max-time 2 --output /dev/null "http://$address/readyz"
}

show_next_steps() {
    cat <<NEXT

gantry is at http://$address. Its log is $state/gantry.log. Next:

  export GANTRY_CONFIG=$GANTRY_CONFIG
  $gantry status
  $gantry task run -r demo -n hello
  $gantry task list-runs -r demo
  $gantry delivery list
  deploy/demo.sh stop
NEXT
}

case ${1-} in
    '') main ;;
    stop) stop_all ;;
    *) fail "unknown command: $1; there is only stop" ;;
esac
