# shellcheck shell=bash
# Pulls an image and runs it through the engine's API.

engine_call() {
    local method=$1 path=$2
    shift 2
    curl --silent --show-error --fail-with-body --max-time 120 --unix-socket "${DOCKER_HOST#unix://}" \
        --request "$method" "http://engine$path" "$@"
}

# The engine responds with 200 before it pulls; a failure is in the last line of its progress.
pull_image() {
    local progress
    progress=$(engine_call POST "/images/create?fromImage=${1%:*}&tag=${1##*:}")
    if [[ $progress == *'"error"'* ]]; then
        fail "cannot pull $1: $(jq --raw-output '.error // empty' <<<"$progress")"
    fi
}

image_label() {
    engine_call GET "/images/$1/json" | jq --raw-output --arg name "$2" '.Config.Labels[$name]'
}

# Runs an image to its end and prints its output. With a terminal the output has no frames of the
# engine.
run_image() {
    local container
    container=$(engine_call POST /containers/create --header 'Content-Type: application/json' \
        --data "$(jq --null-input --arg image "$1" '{Image: $image, Tty: true}')" | jq --raw-output .Id)
    engine_call POST "/containers/$container/start"
    engine_call POST "/containers/$container/wait" >/dev/null
    engine_call GET "/containers/$container/logs?stdout=1&stderr=1"
    engine_call DELETE "/containers/$container"
}

remove_image() {
    engine_call DELETE "/images/$1" >/dev/null
}
