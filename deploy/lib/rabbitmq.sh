# shellcheck shell=bash
# shellcheck disable=SC2154 # the options are assigned in bootstrap.sh
# A message broker: this machine's RabbitMQ or Debian 13's, on loopback, with the management API.
#
# Its Erlang node has its own name, cookie and name server (epmd), so it can run next to another
# broker. User and password are guest.

rabbitmq_start() {
    rabbitmq_names
    if running_pid "$rabbitmq_pid_file" "$rabbitmq_home" >/dev/null; then
        fail "a RabbitMQ already runs in $state: stop it first"
    fi
    mkdir -p "$rabbitmq_home" "$rabbitmq_folder/data"
    rabbitmq_choose_programs
    local api pid
    port=$(port_or_free "$port")
    api=$(free_port)
    rabbitmq_write_config "$api"
    ERL_EPMD_PORT=$(free_port)
    ERL_EPMD_ADDRESS=127.0.0.1
    export ERL_EPMD_PORT ERL_EPMD_ADDRESS
    rabbitmq_start_epmd
    pid=$(rabbitmq_start_node)
    printf '%s\n' "$pid" >"$rabbitmq_pid_file"
    if ! wait_ready 60 "$pid" rabbitmq_answers "$api"; then
        show_log "$rabbitmq_log"
        rabbitmq_stop
        fail "RabbitMQ did not start at 127.0.0.1:$port: see the lines above"
    fi
    rabbitmq_write_ctl
    printf 'GANTRY_TEST_AMQP=amqp://127.0.0.1:%s\n' "$port"
    printf 'GANTRY_TEST_RABBITMQ_API=http://127.0.0.1:%s\n' "$api"
}

rabbitmq_choose_programs() {
    local installed=/usr/lib/rabbitmq/bin
    if [[ -n $debian ]]; then
        rabbitmq_program=$rabbitmq_folder/rabbitmq-server
        rabbitmq_ctl_program=$rabbitmq_folder/rabbitmqctl
        debian13_write_server "$rabbitmq_program" "$installed/rabbitmq-server"
        debian13_write_server "$rabbitmq_ctl_program" "$installed/rabbitmqctl"
    else
        rabbitmq_program=$installed/rabbitmq-server
        rabbitmq_ctl_program=$installed/rabbitmqctl
        [[ -x $rabbitmq_program ]] || fail "rabbitmq-server is not installed: run deploy/bootstrap.sh install test"
    fi
}

# Its queues are not needed afterwards, so it is killed without a clean shutdown.
rabbitmq_stop() {
    rabbitmq_names
    stop_process "$rabbitmq_pid_file" "$rabbitmq_home" 0
    stop_process "$rabbitmq_epmd_pid_file" "$rabbitmq_epmd" 0
}

rabbitmq_names() {
    rabbitmq_folder=$state/rabbitmq
    rabbitmq_home=$rabbitmq_folder/home
    rabbitmq_epmd=$rabbitmq_folder/epmd
    rabbitmq_pid_file=$rabbitmq_folder/rabbitmq.pid
    rabbitmq_epmd_pid_file=$rabbitmq_folder/epmd.pid
    rabbitmq_log=$rabbitmq_folder/rabbitmq.log
}

# Over HTTP, because the broker's own tools take seconds to start. It responds once all plugins run.
rabbitmq_answers() {
    curl --silent --fail --max-time 5 --output /dev/null --user guest:guest "http://127.0.0.1:$1/api/whoami" &&
        port_answers "$port"
}

rabbitmq_write_config() {
    printf '[rabbitmq_management].\n' >"$rabbitmq_folder/enabled_plugins"
    cat >"$rabbitmq_folder/rabbitmq.conf" <<CONFIG
listeners.tcp.1 = 127.0.0.1:$port
distribution.listener.interface = 127.0.0.1
management.tcp.ip = 127.0.0.1
management.tcp.port = $1
management_agent.disable_metrics_collector = true
disk_free_limit.absolute = 50MB
raft.wal_max_size_bytes = 33554432
CONFIG
}

# rabbitmqctl for this node: DIR/rabbitmq/ctl set_vm_memory_high_watermark absolute 1
rabbitmq_write_ctl() {
    cat >"$rabbitmq_folder/ctl" <<CTL
#!/bin/sh
export HOME=$rabbitmq_home ERL_EPMD_PORT=$ERL_EPMD_PORT
exec $rabbitmq_ctl_program --node gantry-$port@localhost "\$@"
CTL
    chmod 755 "$rabbitmq_folder/ctl"
}

# Started by a path in the state folder, which identifies the process when it is stopped.
rabbitmq_start_epmd() {
    ln -sf "$(command -v epmd)" "$rabbitmq_epmd"
    start_process "$rabbitmq_log" "$rabbitmq_epmd" >"$rabbitmq_epmd_pid_file"
    wait_until 10 port_answers "$ERL_EPMD_PORT" || fail "epmd did not start: see $rabbitmq_log"
}

# Debian's own rabbitmq-server would change the user. With input allowed, the script becomes the node
# instead of supervising it; the input is empty.
rabbitmq_start_node() {
    HOME=$rabbitmq_home \
        RABBITMQ_NODENAME=gantry-$port@localhost \
        RABBITMQ_DIST_PORT=$(free_port) \
        RABBITMQ_CONF_ENV_FILE=/dev/null \
        RABBITMQ_CONFIG_FILE=$rabbitmq_folder/rabbitmq.conf \
        RABBITMQ_ENABLED_PLUGINS_FILE=$rabbitmq_folder/enabled_plugins \
        RABBITMQ_MNESIA_BASE=$rabbitmq_folder/data \
        RABBITMQ_LOG_BASE=$rabbitmq_folder \
        RABBITMQ_LOGS=- \
        RABBITMQ_ALLOW_INPUT=true \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 2:2 +A 8 +sbwt none +sbwtdcpu none +sbwtdio none" \
        start_process "$rabbitmq_log" "$rabbitmq_program" -noinput
}
