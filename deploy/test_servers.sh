#!/usr/bin/env bash
# Runs the tests of the store and the queues on Debian 13's Redis and RabbitMQ, which it starts in .test and stops.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/process.sh
source "$root/deploy/lib/process.sh"
# shellcheck source=deploy/lib/parts.sh
source "$root/deploy/lib/parts.sh"
# shellcheck source=deploy/lib/tested.sh
source "$root/deploy/lib/tested.sh"

main() {
    cd "$root"
    deploy/bootstrap.sh install servers
    own_test_state "$root/.test"
    # Servers that tests start themselves are also Debian 13's.
    export GANTRY_TEST_DEBIAN=13
    export_fact "$bootstrap" redis start --state "$test_state"
    export_fact "$bootstrap" rabbitmq start --state "$test_state"
    PATH=$test_state/redis/bin:$PATH
    test_on "Redis $(redis_version)" cargo test --workspace --test redis
    test_on "RabbitMQ $(rabbitmq_version)" cargo test --workspace --test amqp
    test_report
}

# As reported by the servers.
redis_version() {
    local address=${GANTRY_TEST_REDIS#redis://}
    printf 'INFO server\r\nQUIT\r\n' | redis_ask "${address%:*}" "${address##*:}" |
        sed -n 's/^redis_version:\([0-9.]*\).*/\1/p'
}

redis_ask() {
    exec 3<>"/dev/tcp/$1/$2"
    cat >&3
    timeout 5 cat <&3
}

rabbitmq_version() {
    curl --silent --fail --max-time 5 --user guest:guest "$GANTRY_TEST_RABBITMQ_API/api/overview" |
        jq --raw-output .rabbitmq_version
}

main
