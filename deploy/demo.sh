#!/usr/bin/env bash
# gantry's main job, for real: a commit is pushed, the signed webhook starts a build, and the image
# is pulled under its tag and run.
#
#   deploy/demo.sh         builds gantry and shows it
#   deploy/demo.sh stop    ends what KEEP=1 left running
#
# KEEP=1 leaves everything running. DEMO_GANTRY=PATH uses a binary that is built already.
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

state=${DEMO_STATE:-$root/.demo}
gantry=${DEMO_GANTRY:-$root/target/debug/gantry}
work=$state/hello

main() {
    stop_all
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    chapter "Installing what is missing and building gantry"
    "$bootstrap" install demo
    build_gantry

    chapter "Starting an engine, a registry, a git server and gantry"
    mkdir -p "$state"
    start_parts "$state"
    printf '%s\n' "engine       $DOCKER_HOST" "registry     $REGISTRY" "git          $GIT_URL" "base image   $BASE_IMAGE"
    start_gantry

    chapter "A repository, and a task that builds it"
    make_repository
    make_task

    chapter "A commit is pushed, and the git host tells gantry"
    push_commit "Say good morning" "good morning"
    send_push_hook
    follow_run

    chapter "The image, pulled from the registry and run"
    show_image
    [[ -z ${KEEP-} ]] || show_next_steps
}

chapter() {
    printf '\n==> %s\n' "$1"
}

# Shows a command of gantry's as one would type it, and runs it.
run() {
    local word words=''
    for word in "${@:2}"; do
        [[ $word =~ ^[A-Za-z0-9_./:@=#-]+$ ]] || word=${word@Q}
        words+=" $word"
    done
    printf '$ gantry%s\n' "$words"
    "$@"
}

finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM # stopping is bounded; half of it would leave processes behind
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

# The git server and the registry are on loopback, where gantry goes only when the operator says so.
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

make_repository() {
    git init --quiet --bare --initial-branch main "$state/git/repositories/hello.git"
    git init --quiet --initial-branch main "$work"
    git -C "$work" remote add origin "$GIT_URL/hello.git"
    cat >"$work/Dockerfile" <<DOCKERFILE
FROM $REGISTRY/busybox:1
COPY greeting /greeting
RUN tr a-z A-Z </greeting >/shouted
CMD ["cat", "/shouted"]
DOCKERFILE
    git -C "$work" add Dockerfile
    push_commit "Say hello" "hello"
}

push_commit() {
    local subject=$1 greeting=$2
    printf '%s\n' "$greeting" >"$work/greeting"
    git -C "$work" add greeting
    git -C "$work" -c user.name=Demo -c user.email=demo@localhost commit --quiet --message "$subject"
    git -C "$work" push --quiet origin main
    git -C "$work" --no-pager log -1 --format='pushed %h: %s'
}

make_task() {
    run "$gantry" registry create demo --login-server "$REGISTRY"
    run "$gantry" task create -r demo -n hello --image 'hello:{{.Run.ID}}' \
        --context "$GIT_URL/hello.git#main" --file Dockerfile
    "$gantry" hook create -r demo --provider github --repository "$GIT_URL/hello.git" --output json >"$state/hook.json"
}

# What GitHub sends for a push, signed as GitHub signs it.
send_push_hook() {
    local payload=$state/push.json signature
    push_payload >"$payload"
    signature=$(hmac_sha256 "$(jq --raw-output .secret "$state/hook.json")" <"$payload")
    curl --silent --show-error --fail-with-body --max-time 10 \
        --header 'Content-Type: application/json' \
        --header 'X-GitHub-Event: push' \
        --header "X-GitHub-Delivery: $(cat /proc/sys/kernel/random/uuid)" \
        --header "X-Hub-Signature-256: sha256=$signature" \
        --data-binary "@$payload" \
        "http://$address$(hook_path)"
    printf '\n'
}

# The hook's URL carries the name that providers know the server by; here it is the one on loopback.
hook_path() {
    jq --raw-output '.url | sub("^https?://[^/]+"; "")' "$state/hook.json"
}

push_payload() {
    jq --null-input --compact-output \
        --arg before "$(git -C "$work" rev-parse HEAD~1)" \
        --arg after "$(git -C "$work" rev-parse HEAD)" \
        --arg url "$GIT_URL/hello.git" \
        '{
            ref: "refs/heads/main", before: $before, after: $after,
            created: false, deleted: false, forced: false, base_ref: null, compare: "",
            commits: [{id: $after, message: "", added: [], removed: [], modified: ["greeting"]}],
            head_commit: {id: $after, message: "", added: [], removed: [], modified: ["greeting"]},
            pusher: {name: "demo"}, sender: {login: "demo"},
            repository: {full_name: "demo/hello", clone_url: $url, default_branch: "main", private: false}
        }'
}

follow_run() {
    if ! wait_until 30 run_exists; then
        "$gantry" delivery list >&2 || true
        fail "the push started no run; gantry says above what became of the delivery"
    fi
    run "$gantry" logs --task hello --follow
}

run_exists() {
    run_id=$("$gantry" task list-runs -r demo --output json | jq --raw-output '.[0].id // empty')
    [[ -n $run_id ]]
}

show_image() {
    local image=$REGISTRY/hello:$run_id commit
    pull_image "$image"
    commit=$(image_label "$image" org.opencontainers.image.revision)
    printf '%s says: ' "$image"
    run_image "$image"
    printf 'built from commit %s\n' "$commit"
    [[ $commit == "$(git -C "$work" rev-parse HEAD)" ]] || fail "that is not the commit that was pushed"
    [[ -n ${KEEP-} ]] || remove_image "$image"
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
