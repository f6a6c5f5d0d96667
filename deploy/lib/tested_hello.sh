# shellcheck shell=bash
# shellcheck disable=SC2154 # work and gantry are the script's that sources this
# A task file for the repository "hello": build, test in a container, push what has passed. Needs hello.sh.

make_tested_task() {
    cat >"$work/acr-task.yaml" <<'TASK'
version: v1.1.0
steps:
  - id: build
    build: -t $Registry/tested:$ID .
  - id: test
    cmd: $Registry/tested:$ID grep GOOD /shouted
  - id: lint
    cmd: $Registry/busybox:1 sh -c 'test $(wc -l < greeting) = 1'
    when: ["-"]
  - push: ["$Registry/tested:$ID"]
    when: [test, lint]
TASK
    git -C "$work" add acr-task.yaml
    push_commit "Test before pushing" "good morning"
    run "$gantry" task plan "$work/acr-task.yaml"
    run "$gantry" task create -r demo -n tested -f acr-task.yaml \
        --context "$GIT_URL/hello.git#main" --commit-trigger-enabled false
}

# Runs the task, which must end with this exit code, and draws its steps.
run_tested_task() {
    local expected=$1 status=0
    run "$gantry" task run -r demo -n tested || status=$?
    ((status == expected)) || fail "the run ended with exit code $status, not $expected"
    tested_id=$("$gantry" task list-runs -r demo -n tested --output json | jq --raw-output '.[0].id')
    run "$gantry" runs show "$tested_id"
}

# Whether the registry has the image of the last run.
is_pushed() {
    curl --silent --max-time 10 "http://$REGISTRY/v2/tested/tags/list" |
        jq --exit-status --arg tag "$tested_id" '.tags | index($tag) != null' >/dev/null
}
