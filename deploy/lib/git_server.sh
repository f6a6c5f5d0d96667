# shellcheck shell=bash
# shellcheck disable=SC2154 # the options are assigned in bootstrap.sh
# Git over smart HTTP on loopback: lighttpd in front of `git http-backend`.
#
# busybox's httpd would be smaller, but does not support chunked requests, which git sends for a large push.

git_server_start() {
    git_server_names
    if [[ -f $git_folder/url ]] && running_pid "$git_pid_file" "$git_config" >/dev/null; then
        fail "a git server already runs at $(cat "$git_folder/url"): stop it first"
    fi
    command -v lighttpd >/dev/null || fail "lighttpd is not installed: run deploy/bootstrap.sh install demo"
    mkdir -p "$git_folder/repositories" "$git_folder/uploads"
    local pid
    port=$(port_or_free "$port")
    git_server_write_config
    pid=$(start_process "$git_log" lighttpd -D -f "$git_config")
    printf '%s\n' "$pid" >"$git_pid_file"
    if ! wait_ready 10 "$pid" port_answers "$port"; then
        show_log "$git_log"
        git_server_stop
        fail "the git server did not start on port $port: see the lines above"
    fi
    printf 'http://127.0.0.1:%s\n' "$port" >"$git_folder/url"
    printf 'GIT_URL=http://127.0.0.1:%s\n' "$port"
}

git_server_stop() {
    git_server_names
    stop_process "$git_pid_file" "$git_config"
    rm -f "$git_folder/url"
}

git_server_names() {
    git_folder=$state/git
    git_config=$git_folder/lighttpd.conf
    git_pid_file=$git_folder/lighttpd.pid
    git_log=$git_folder/lighttpd.log
}

git_server_write_config() {
    (
        umask 077
        {
            git_server_base_config
            [[ -z $user ]] || git_server_auth_config
        } >"$git_config"
    )
}

# Any commit can be fetched by its id, as from the large hosts. A push needs `http.receivepack`
# unless the server requires credentials.
git_server_base_config() {
    cat <<CONFIG
server.modules = ("mod_alias", "mod_auth", "mod_authn_file", "mod_cgi", "mod_setenv")
server.bind = "127.0.0.1"
server.port = $port
server.document-root = "$git_folder/repositories"
server.upload-dirs = ("$git_folder/uploads")
server.stream-response-body = 1
alias.url = ("/" => "$(git_backend)/")
cgi.assign = ("" => "")
setenv.set-environment = (
    "GIT_PROJECT_ROOT" => "$git_folder/repositories",
    "GIT_HTTP_EXPORT_ALL" => "1",
    "GIT_CONFIG_COUNT" => "3",
    "GIT_CONFIG_KEY_0" => "http.receivepack", "GIT_CONFIG_VALUE_0" => "true",
    "GIT_CONFIG_KEY_1" => "uploadpack.allowAnySHA1InWant", "GIT_CONFIG_VALUE_1" => "true",
    "GIT_CONFIG_KEY_2" => "uploadpack.allowFilter", "GIT_CONFIG_VALUE_2" => "true",
)
CONFIG
}

git_server_auth_config() {
    printf '%s\n' "$user" >"$git_folder/users"
    cat <<CONFIG
auth.backend = "plain"
auth.backend.plain.userfile = "$git_folder/users"
auth.require = ("" => ("method" => "basic", "realm" => "gantry", "require" => "valid-user"))
CONFIG
}

git_backend() {
    local backend
    backend=$(git --exec-path)/git-http-backend
    [[ -x $backend ]] || fail "$backend is not there: install Debian's git"
    printf '%s\n' "$backend"
}
