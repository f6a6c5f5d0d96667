# shellcheck shell=bash
# The servers that gantry needs (engine, registry with a base image, git server), for one run of a
# script that has sourced process.sh.

bootstrap=$(dirname "${BASH_SOURCE[0]}")/../bootstrap.sh

# Starts the parts in a folder and exports DOCKER_HOST, REGISTRY, GIT_URL and BASE_IMAGE
# (with its digest).
start_parts() {
    export_fact "$bootstrap" engine start --state "$1"
    start_hosts "$1"
}

# The registry with a base image and the git server, beside a running engine.
start_hosts() {
    local state=$1
    export_fact "$bootstrap" registry start --state "$state"
    export_fact "$bootstrap" git-server start --state "$state"
    export_fact "$bootstrap" base-image --registry "$REGISTRY" --name busybox:1
}

start_queue_and_store() {
    export_fact "$bootstrap" rabbitmq start --state "$1"
    export_fact "$bootstrap" redis start --state "$1"
}

# A second engine, with the containerd image store.
start_containerd_engine() {
    local DOCKER_HOST DOCKERD
    export_fact "$bootstrap" engine start --state "$1" --debian 13 --store containerd
    export GANTRY_TEST_CONTAINERD_DOCKER_HOST=$DOCKER_HOST
    export GANTRY_TEST_CONTAINERD_DOCKERD=$DOCKERD
}

# Runs a command that prints lines NAME=VALUE, and exports them.
export_fact() {
    local facts fact
    facts=$("$@")
    while read -r fact; do
        export "${fact?}"
    done <<<"$facts"
}

stop_parts() {
    [[ -d $1 ]] || return 0
    "$bootstrap" redis stop --state "$1"
    "$bootstrap" rabbitmq stop --state "$1"
    "$bootstrap" s3 stop --state "$1"
    "$bootstrap" git-server stop --state "$1"
    "$bootstrap" registry stop --state "$1"
    "$bootstrap" engine stop --state "$1"
    local store
    for store in containerd classic; do
        [[ ! -d $1/$store ]] || "$bootstrap" engine stop --state "$1/$store"
    done
}

# Starts new servers in a folder for the tests and the benches, until the script ends.
with_test_parts() {
    own_test_state "$1"
    start_parts "$test_state"
    start_queue_and_store "$test_state"
    export_test_parts
}

# Empties a folder for this script's servers, which are stopped however the script ends. After a
# failure the folder and its logs are kept until the next run.
own_test_state() {
    test_state=$1
    be_alone
    stop_parts "$test_state"
    rm -rf "${test_state:?}"/{engine,containerd,classic,registry,git,rabbitmq,redis,s3,demo}
    trap finish_test_parts EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

export_test_parts() {
    export GANTRY_TEST_DOCKER_HOST=$DOCKER_HOST
    export GANTRY_TEST_REGISTRY=$REGISTRY
    export GANTRY_TEST_BASE_IMAGE=$BASE_IMAGE
    export GANTRY_TEST_GIT_URL=$GIT_URL
    export GANTRY_TEST_GIT_REPOSITORIES=$test_state/git/repositories
    export_fact "$bootstrap" arm64-busybox
    export_fact "$bootstrap" oras
}

# Two runs in one folder would stop each other's engine.
be_alone() {
    local pid
    mkdir -p "$test_state"
    if pid=$(running_pid "$test_state/owner.pid" deploy/) && ((pid != $$)); then
        fail "the tests or benches already run in this folder, as process $pid"
    fi
    printf '%s\n' "$$" >"$test_state/owner.pid"
}

finish_test_parts() {
    local status=$?
    trap - EXIT
    trap '' INT TERM # stopping is bounded; half of it would leave processes behind
    stop_parts "$test_state"
    if ((status == 0)); then
        rm -rf "$test_state"
    else
        say "the logs of the engine, the registry and the git server are in $test_state"
    fi
    exit "$status"
}
