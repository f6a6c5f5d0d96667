# shellcheck shell=bash
# shellcheck disable=SC2154 # the options are assigned in bootstrap.sh
# The container engine: a running one, a separate dockerd, or Debian 13's.
#
# The separate one has its own data, sockets, bridge and cgroup, so it can run next to another engine
# and leaves nothing behind.

engine_start() {
    local socket
    engine_names
    if [[ -n $debian ]]; then
        engine_start_debian13
        return
    fi
    if socket=$(answering_engine); then
        say "using the container engine at $socket"
    else
        [[ -z ${DOCKER_HOST-} ]] || say "no engine responds at a unix socket from DOCKER_HOST=$DOCKER_HOST: starting one"
        engine_may_start
        engine_clear_leftovers
        engine_launch
        socket=$engine_socket
    fi
    printf 'DOCKER_HOST=unix://%s\n' "$socket"
}

# It does not use iptables, because two engines of different versions undo each other's rules. So its
# containers can reach only this machine.
engine_start_debian13() {
    if ! engine_answers "$engine_socket"; then
        ((EUID == 0)) || fail "only root can start Debian 13's engine: run as root"
        engine_folder_is_short
        engine_clear_leftovers
        mkdir -p "$engine_folder"
        engine_write_config
        debian13_write_dockerd "$engine_own_program" "$engine_config"
        engine_program=$engine_own_program
        engine_launch --iptables=false --ip6tables=false
    fi
    printf 'DOCKER_HOST=unix://%s\nDOCKERD=%s\n' "$engine_socket" "$engine_own_program"
}

engine_write_config() {
    local containerd=false
    [[ $store != containerd ]] || containerd=true
    printf '{"features": {"containerd-snapshotter": %s}}\n' "$containerd" >"$engine_config"
}

engine_stop() {
    local bridges bridge
    engine_names
    mapfile -t bridges < <(engine_network_bridges)
    # dockerd would wait ten seconds for each container to end.
    kill_cgroup "$engine_cgroup"
    stop_process "$engine_pid_file" "$engine_pid_file" 30
    engine_clear_leftovers
    for bridge in "${bridges[@]}"; do
        remove_bridge "$bridge"
    done
}

engine_names() {
    engine_folder=$state/engine
    engine_socket=$engine_folder/docker.sock
    engine_pid_file=$engine_folder/docker.pid
    engine_log=$engine_folder/dockerd.log
    engine_config=$engine_folder/daemon.json
    engine_own_program=$engine_folder/dockerd
    engine_program=dockerd
    local number
    number=$(printf '%s' "$state" | cksum)
    number=${number%% *}
    engine_bridge=gantry$((number % 100000))
    engine_cgroup=gantry-engine-$number
}

# The first socket at which an engine responds: the state folder's, that of DOCKER_HOST, or the machine's.
answering_engine() {
    local socket
    for socket in "${engine_socket-}" "$(docker_host_socket)" /var/run/docker.sock; do
        if [[ -n $socket ]] && engine_answers "$socket"; then
            printf '%s\n' "$socket"
            return
        fi
    done
    return 1
}

docker_host_socket() {
    if [[ ${DOCKER_HOST-} == unix://* ]]; then
        printf '%s\n' "${DOCKER_HOST#unix://}"
    fi
}

engine_answers() {
    [[ -S $1 ]] && curl --silent --fail --max-time 5 --output /dev/null --unix-socket "$1" http://engine/_ping
}

engine_may_start() {
    if [[ -S /var/run/docker.sock && ! -w /var/run/docker.sock ]]; then
        fail "/var/run/docker.sock is there but not for $(id -un): add the user to its group, or run this as root"
    fi
    ((EUID == 0)) || fail "no container engine answers and only root can start one: run as root, or start the machine's engine"
    command -v dockerd >/dev/null || fail "dockerd is not installed: run deploy/bootstrap.sh install demo"
    engine_folder_is_short
}

engine_folder_is_short() {
    # The kernel allows at most 107 bytes, and containerd adds its own path.
    ((${#engine_folder} < 70)) || fail "$engine_folder is too long for the path of a socket: give a shorter --state"
}

# Ends and removes what a killed engine left: its pid file and its containerd's prevent the next start,
# and steps of a build continue to run.
engine_clear_leftovers() {
    running_pid "$engine_pid_file" "$engine_pid_file" >/dev/null &&
        fail "the engine at $engine_socket runs but does not answer: see $engine_log"
    ((EUID == 0)) || return 0
    rm -f "$engine_pid_file" "$engine_socket"
    stop_process "$engine_folder/exec/containerd/containerd.pid" "$engine_folder/exec"
    kill_cgroup "$engine_cgroup"
    remove_cgroup "$engine_cgroup"
    unmount_beneath "$engine_folder"
    rm -rf "$engine_folder/exec"
    remove_bridge "$engine_bridge"
}

# The bridges of the networks that were created in the separate engine. dockerd leaves them when it ends.
engine_network_bridges() {
    engine_answers "$engine_socket" || return 0
    curl --silent --max-time 5 --unix-socket "$engine_socket" http://engine/networks |
        jq --raw-output '.[] | select(.Driver == "bridge" and .Name != "bridge") | "br-" + .Id[:12]'
}

remove_bridge() {
    local table rule
    for table in filter nat; do
        while read -ra rule; do
            iptables --wait 5 --table "$table" --delete "${rule[@]}" 2>/dev/null || true
        done < <(iptables-save --table "$table" 2>/dev/null | sed -n "/ $1\\b/ s/^-A //p")
    done
    ip link delete "$1" 2>/dev/null || true
}

kill_cgroup() {
    local pid
    while read -r pid; do
        kill -KILL "$pid" 2>/dev/null || true
    done < <(find /sys/fs/cgroup -path "*/$1/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u)
}

remove_cgroup() {
    find /sys/fs/cgroup -depth -type d -path "*/$1*" -exec rmdir {} + 2>/dev/null || true
}

# Deepest first, and lazily, because an ending process may still use one.
unmount_beneath() {
    local mount
    while read -r mount; do
        umount --lazy "$mount" 2>/dev/null || true
    done < <(awk -v beneath="$1/" 'index($2, beneath) == 1 { print $2 }' /proc/self/mounts | sort --reverse)
}

# With these arguments besides.
engine_launch() {
    local pid
    mkdir -p "$engine_folder"
    : >"$engine_log"
    engine_make_bridge
    # dockerd writes the pid file itself, and refuses to start if there is one.
    pid=$(start_process "$engine_log" "$engine_program" \
        --data-root "$engine_folder/data" --exec-root "$engine_folder/exec" \
        --pidfile "$engine_pid_file" --host "unix://$engine_socket" \
        --bridge "$engine_bridge" --cgroup-parent "/$engine_cgroup" "$@")
    if ! wait_ready 60 "$pid" engine_answers "$engine_socket"; then
        show_log "$engine_log"
        engine_stop
        fail "dockerd did not start: see the lines above; or start the machine's own engine, which is then used"
    fi
}

# A separate bridge: a second dockerd on docker0 would assign the addresses of the first.
engine_make_bridge() {
    local third
    for ((third = 1; third < 255; third++)); do
        [[ -n $(ip route show "10.213.$third.0/24") ]] || break
    done
    ip link add "$engine_bridge" type bridge
    ip address add "10.213.$third.1/24" dev "$engine_bridge"
    ip link set "$engine_bridge" up
}
