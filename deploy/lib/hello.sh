# shellcheck shell=bash
# shellcheck disable=SC2154 # state, work, repositories, gantry and address are the script's that sources this
# gantry's main job, as a user of the service at $address: a repository "hello" with a task, a commit, its signed
# webhook, the run's log, and running the resulting image. Needs run_image.sh and hmac.sh.

# Prints a gantry command as a user would type it, and runs it.
run() {
    local word words=''
    for word in "${@:2}"; do
        [[ $word =~ ^[A-Za-z0-9_./:@=#-]+$ ]] || word=${word@Q}
        words+=" $word"
    done
    printf '$ gantry%s\n' "$words"
    "$@"
}

make_repository() {
    git init --quiet --bare --initial-branch main "$repositories/hello.git"
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

# The hook's URL has the server's public name; here its loopback address is used instead.
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
        fail "the push started no run: see gantry's decision above"
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
