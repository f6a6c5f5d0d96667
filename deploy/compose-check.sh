#!/usr/bin/env bash
# Starts ingress, scheduler and worker from docker-compose.yml, and builds an image from a signed push.
#
#   deploy/compose-check.sh FOLDER PROGRAM
#
# The servers of the tests must be running and exported (deploy/lib/parts.sh). The image contains PROGRAM and files of
# this machine. RabbitMQ is that of the tests, and Redis is this machine's program, with the settings and users that the
# service `keys` created: their images cannot be pulled everywhere.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/process.sh
source "$root/deploy/lib/process.sh"
# shellcheck source=deploy/lib/hmac.sh
source "$root/deploy/lib/hmac.sh"
# shellcheck source=deploy/lib/run_image.sh
source "$root/deploy/lib/run_image.sh"
# shellcheck source=deploy/lib/runtime_image.sh
source "$root/deploy/lib/runtime_image.sh"
# shellcheck source=deploy/lib/hello.sh
source "$root/deploy/lib/hello.sh"

state=$1
gantry=$2
work=$state/hello
repositories=$GANTRY_TEST_GIT_REPOSITORIES
services=(ingress scheduler worker-1)

main() {
    rm -rf "$state"
    mkdir -p "$state"
    validate
    settings
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    runtime_image "$GANTRY_IMAGE" "$gantry"
    without_ports
    compose up keys
    start_redis
    compose up --detach "${services[@]}"
    local service
    for service in "${services[@]}"; do
        wait_until 60 is_healthy "$service" || fail "$service does not become ready"
    done
    log_in
    make_repository
    make_task
    push_commit "Say good morning" "good morning"
    send_push_hook
    follow_run
    show_image
}

# Validates all services of all profiles.
validate() {
    DOCKER_GID=0 docker-compose --file "$root/docker-compose.yml" --profile observe config --quiet
}

settings() {
    export GANTRY_IMAGE=gantry:check DOCKER_GID DOCKER_SOCKET=${DOCKER_HOST#unix://}
    REDIS_ADDRESS=127.0.0.1:$(free_port)
    export REDIS_ADDRESS GANTRY_QUEUE_URLS CHECK_STATE=$state
    export CHECK_PORT CHECK_INGRESS_PORT CHECK_SCHEDULER_PORT CHECK_WORKER_PORT
    DOCKER_GID=$(stat --format %g "$DOCKER_SOCKET")
    CHECK_PORT=$(free_port)
    CHECK_INGRESS_PORT=$(free_port)
    CHECK_SCHEDULER_PORT=$(free_port)
    CHECK_WORKER_PORT=$(free_port)
    make_vhost
    printf 'guest' >"$state/rabbitmq-password"
    chmod 644 "$state/rabbitmq-password"
    address=127.0.0.1:$CHECK_PORT
    export GANTRY_CONFIG=$state/client.toml
}

start_redis() {
    local conf pid
    conf=$(engine_call GET /volumes/gantry-check_redis-conf | jq --raw-output .Mountpoint)
    mkdir -p "$state/redis"
    pid=$(start_process "$state/redis.log" redis-server "$conf/redis.conf" --bind "${REDIS_ADDRESS%:*}" --port "${REDIS_ADDRESS#*:}" \
        --dir "$state/redis" --aclfile "$conf/users.acl")
    printf '%s\n' "$pid" >"$state/redis.pid"
    wait_ready 10 "$pid" port_answers "${REDIS_ADDRESS#*:}" || { show_log "$state/redis.log" && fail "Redis did not start"; }
}

# Creates a vhost for this check only.
make_vhost() {
    local vhost=compose-$RANDOM$RANDOM
    curl --silent --show-error --fail --max-time 20 --config - --request PUT --data '' \
        "$GANTRY_TEST_RABBITMQ_API/api/vhosts/$vhost" <<<'user = "guest:guest"'
    GANTRY_QUEUE_URLS=amqp://guest@${GANTRY_TEST_AMQP##*[/@]}/$vhost
}

compose() {
    docker-compose --ansi never --project-name gantry-check --project-directory "$root" \
        --file "$state/compose.yml" --file "$root/deploy/compose/check.yml" "$@"
}

# Writes docker-compose.yml with these settings and without published ports: the services use the machine's own network,
# and an override file could only add ports.
without_ports() {
    docker-compose --file "$root/docker-compose.yml" config |
        awk '/^ *ports:$/ { skipping = index($0, "p"); next }
            skipping && match($0, /[^ ]/) && (RSTART > skipping || /^ *- /) { next }
            { skipping = 0; print }' >"$state/compose.yml"
}

is_healthy() {
    local container
    container=$(compose ps --quiet "$1")
    [[ $(engine_call GET "/containers/$container/json" | jq --raw-output .State.Health.Status) == healthy ]]
}

log_in() {
    compose exec -T ingress gantry store admin-token | "$gantry" login "http://$address"
}

finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM
    if ((status != 0)); then
        compose logs --tail 30 >&2 || true
    fi
    compose down --volumes --timeout 20 >/dev/null 2>&1 || say "warning: docker-compose did not stop everything"
    stop_process "$state/redis.pid" redis-server
    engine_call DELETE "/images/$GANTRY_IMAGE?force=1" >/dev/null || true
    rm -rf "$state"
    exit "$status"
}

main
