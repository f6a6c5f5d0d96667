#!/usr/bin/env bash
# Tests `gantry up` against its OpenAPI document with schemathesis, with valid and invalid requests:
# deploy/fuzz_api.sh [SECONDS]. Uses a new data folder, and no engine.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
seconds=${1:-60}
version=4.32.5
home=${XDG_CACHE_HOME:-$HOME/.cache}/gantry/schemathesis-$version

if ! [[ -e $home/complete ]]; then
    printf 'installing schemathesis %s from PyPI\n' "$version" >&2
    rm -rf "$home"
    python3 -m venv "$home"
    "$home/bin/pip" --quiet --disable-pip-version-check --no-input install "schemathesis==$version" >&2
    touch "$home/complete"
fi
cargo build --package gantry

folder=$(mktemp -d)
gantry=
finish() {
    [[ -z $gantry ]] || kill "$gantry" 2>/dev/null || true
    wait
    rm -rf "$folder"
}
trap finish EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
DOCKER_HOST=unix:///nonexistent/docker.sock target/debug/gantry up --data "$folder/data" --listen "127.0.0.1:$port" \
    >"$folder/said" 2>"$folder/log" &
gantry=$!
for _ in $(seq 300); do
    ! grep -q '^Ctrl-C' "$folder/said" || break
    sleep 0.1
done
token=$(awk '/^ *token/ { print $2 }' "$folder/said")
[[ -n $token ]] || { cat "$folder/said" "$folder/log" >&2; exit 1; }

# Names and references have rules that are not in the schemas, so a string that matches a schema may be refused. An
# unsupported method gets 404. A run that revokes its own token would test nothing afterwards.
"$home/bin/schemathesis" run "http://127.0.0.1:$port/api/v1/openapi.json" --header "Authorization: Bearer $token" \
    --checks all --exclude-checks positive_data_acceptance,unsupported_method --exclude-path '/api/v1/tokens/{token}' \
    --seed "${SEED:-1}" --max-examples 40 --max-time "$seconds" --request-timeout 20 --continue-on-failure
# Debug builds panic on arithmetic overflow, and a panic leads to a 500 or to no response.
if grep -i panicked "$folder/log"; then exit 1; fi
