# shellcheck shell=bash
# shellcheck disable=SC2154 # the options are assigned in bootstrap.sh
# A registry to push to: Debian's docker-registry on loopback.

registry_start() {
    registry_names
    if [[ -f $registry_folder/address ]] && running_pid "$registry_pid_file" "$registry_config" >/dev/null; then
        fail "a registry already runs at $(cat "$registry_folder/address"): stop it first"
    fi
    command -v docker-registry >/dev/null || fail "docker-registry is not installed: run deploy/bootstrap.sh install demo"
    mkdir -p "$registry_folder"
    local address pid
    address=127.0.0.1:$(port_or_free "$port")
    registry_write_config "$address"
    pid=$(start_process "$registry_log" docker-registry serve "$registry_config")
    printf '%s\n' "$pid" >"$registry_pid_file"
    if ! wait_ready 20 "$pid" registry_answers "$address"; then
        show_log "$registry_log"
        registry_stop
        fail "the registry did not start at $address: see the lines above"
    fi
    printf '%s\n' "$address" >"$registry_folder/address"
    printf 'REGISTRY=%s\n' "$address"
}

registry_stop() {
    registry_names
    stop_process "$registry_pid_file" "$registry_config"
    rm -f "$registry_folder/address"
}

registry_names() {
    registry_folder=$state/registry
    registry_config=$registry_folder/config.yml
    registry_pid_file=$registry_folder/registry.pid
    registry_log=$registry_folder/registry.log
}

# If credentials are required, 401 also means that it responds.
registry_answers() {
    local status
    status=$(curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}' "http://$1/v2/") || return 1
    [[ $status == 200 || $status == 401 ]]
}

registry_write_config() {
    (
        umask 077
        {
            registry_base_config "$1"
            [[ -z $htpasswd ]] || registry_auth_config
            [[ -z $notify_url ]] || registry_notify_config
        } >"$registry_config"
    )
}

registry_base_config() {
    cat <<CONFIG
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: $registry_folder/data}
  delete: {enabled: true}
http: {addr: $1, secret: one-process-needs-no-shared-secret}
CONFIG
}

registry_auth_config() {
    bcrypt_line "$htpasswd" >"$registry_folder/htpasswd"
    cat <<CONFIG
auth:
  htpasswd: {realm: gantry, path: $registry_folder/htpasswd}
CONFIG
}

# The registry supports only bcrypt. perl is essential in Debian and its libcrypt supports bcrypt, so no
# further package is needed.
bcrypt_line() {
    LOGIN=$1 perl -e 'my ($user, $password) = split /:/, $ENV{LOGIN}, 2;
        my $salt = join "", map { ("a" .. "z", 0 .. 9)[rand 36] } 1 .. 21;
        print "$user:", crypt($password, "\$2y\$05\$${salt}u"), "\n"'
}

registry_notify_config() {
    cat <<CONFIG
notifications:
  events: {includereferences: true}
  endpoints:
    - name: gantry
      url: $notify_url
      headers: {Authorization: ["Bearer $notify_token"]}
      timeout: 1s
      threshold: 3
      backoff: 2s
      ignore: {mediatypes: [application/octet-stream], actions: [pull]}
CONFIG
}
