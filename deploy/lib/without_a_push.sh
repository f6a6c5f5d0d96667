# shellcheck shell=bash
# shellcheck disable=SC2154 # state, gantry, REGISTRY and GIT_URL are the script's that sources this
# What starts tasks without a push: a new base image, and the clock. Needs hello.sh.

# A task that only the clock starts, at the next full minute: by the time it is shown it has mostly begun.
make_timed_task() {
    local next
    next=$(date --utc --date '1 minute' '+%M %H * * *')
    run "$gantry" task create -r demo -n nightly --image 'hello:nightly-{{.Run.ID}}' \
        --context "$GIT_URL/hello.git#main" --file Dockerfile --commit-trigger-enabled false \
        --base-image-trigger-enabled false --schedule "soon:$next"
}

# Pushes another image under the tag that "hello" is built on.
push_new_base() {
    local folder=$state/base
    mkdir -p "$folder"
    printf 'FROM %s/busybox:1\nRUN echo new >/base-is\n' "$REGISTRY" >"$folder/Dockerfile"
    run "$gantry" build "$folder" -r demo --image busybox:1
}

# Waits until a run that this trigger has started has succeeded, and sets $started to the id of the newest one.
wait_for_trigger() {
    local task=$1 trigger=$2 seconds=$3 deadline newest
    deadline=$((SECONDS + seconds))
    while ((SECONDS < deadline)); do
        newest=$("$gantry" task list-runs -r demo -n "$task" --output json |
            jq --raw-output --arg trigger "$trigger" \
                '[.. | objects | select(.trigger? == $trigger and .status? == "Succeeded")][0].id // empty')
        if [[ -n $newest ]]; then
            started=$newest
            return
        fi
        sleep 0.5
    done
    fail "no run of $task was started by: $trigger"
}
