# shellcheck shell=bash
# shellcheck disable=SC2154 # the options are assigned in bootstrap.sh
# A store of records: this machine's Redis or Debian 13's, on loopback. It keeps what it acknowledged.

redis_start() {
    redis_names
    if running_pid "$redis_pid_file" "$redis_config" >/dev/null; then
        fail "a Redis already runs in $state: stop it first"
    fi
    mkdir -p "$redis_folder"
    redis_choose_program
    port=$(port_or_free "$port")
    redis_write_config
    local pid
    pid=$(start_process "$redis_log" "$redis_program" "$redis_config")
    printf '%s\n' "$pid" >"$redis_pid_file"
    if ! wait_ready 20 "$pid" redis_answers; then
        show_log "$redis_log"
        redis_stop
        fail "Redis did not start at 127.0.0.1:$port: see the lines above"
    fi
    printf 'GANTRY_TEST_REDIS=redis://127.0.0.1:%s\n' "$port"
}

redis_choose_program() {
    if [[ -n $debian ]]; then
        redis_program=$redis_folder/bin/redis-server
        mkdir -p "$redis_folder/bin"
        debian13_write_server "$redis_program" /usr/bin/redis-server
    else
        redis_program=redis-server
        command -v redis-server >/dev/null || fail "redis-server is not installed: run deploy/bootstrap.sh install test"
    fi
}

redis_stop() {
    redis_names
    stop_process "$redis_pid_file" "$redis_config"
}

redis_names() {
    redis_folder=$state/redis
    redis_config=$redis_folder/redis.conf
    redis_pid_file=$redis_folder/redis.pid
    redis_log=$redis_folder/redis.log
}

redis_answers() {
    local answer
    port_answers "$port" || return 1
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
    printf 'PING\r\n' >&3
    read -r -t 5 answer <&3 || answer=''
    exec 3>&-
    [[ $answer == +PONG* ]]
}

# The three settings below `dir` are those that gantry requires of its Redis. The process title is kept,
# because its path identifies the process.
redis_write_config() {
    cat >"$redis_config" <<CONFIG
bind 127.0.0.1
port $port
protected-mode yes
dir $redis_folder
appendonly yes
appendfsync always
maxmemory-policy noeviction
save ""
set-proc-title no
CONFIG
}
