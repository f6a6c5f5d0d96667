#!/usr/bin/env bash
# Installs and starts what the demo, the tests and the benches need.
#
# Everything that a command starts listens on loopback or on a socket, keeps its files under --state,
# and is stopped by the `stop` of the same name. The `docker` program is never called.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/lib/process.sh
source "$here/lib/process.sh"
# shellcheck source=deploy/lib/install.sh
source "$here/lib/install.sh"
# shellcheck source=deploy/lib/debian13.sh
source "$here/lib/debian13.sh"
# shellcheck source=deploy/lib/emulation.sh
source "$here/lib/emulation.sh"
# shellcheck source=deploy/lib/engine.sh
source "$here/lib/engine.sh"
# shellcheck source=deploy/lib/registry.sh
source "$here/lib/registry.sh"
# shellcheck source=deploy/lib/base_image.sh
source "$here/lib/base_image.sh"
# shellcheck source=deploy/lib/git_server.sh
source "$here/lib/git_server.sh"
# shellcheck source=deploy/lib/rabbitmq.sh
source "$here/lib/rabbitmq.sh"
# shellcheck source=deploy/lib/redis.sh
source "$here/lib/redis.sh"
# shellcheck source=deploy/lib/s3.sh
source "$here/lib/s3.sh"

usage() {
    cat <<'USAGE'
usage: deploy/bootstrap.sh COMMAND

  install demo|test|bench      installs missing packages with apt
                               test: also lets this machine execute programs for arm64
  install servers              unpacks Debian 13's Redis and RabbitMQ, without installing them

  engine start --state DIR     uses a running engine, or starts dockerd
                               prints DOCKER_HOST=unix://SOCKET
  engine start --state DIR --debian 13 [--store classic|containerd]
                               starts Debian 13's dockerd with that image store
                               also prints DOCKERD=PROGRAM, which starts another such dockerd
  engine stop --state DIR

  registry start --state DIR [--port N] [--htpasswd USER:PASSWORD] [--notify URL TOKEN]
                               prints REGISTRY=127.0.0.1:PORT
  registry stop --state DIR

  base-image --registry HOST --name NAME:TAG [--user USER:PASSWORD]
                               builds an image with the static busybox and pushes it
                               prints BASE_IMAGE=HOST/NAME:TAG@DIGEST

  oras                         prints GANTRY_TEST_ORAS=PROGRAM, which pushes artifacts

  arm64-busybox                prints GANTRY_TEST_ARM64_BUSYBOX=PROGRAM, a static busybox for arm64

  git-server start --state DIR [--port N] [--user USER:PASSWORD]
                               serves the bare repositories in DIR/git/repositories
                               prints GIT_URL=http://127.0.0.1:PORT
  git-server stop --state DIR

  rabbitmq start --state DIR [--port N] [--debian 13]
                               prints GANTRY_TEST_AMQP=amqp://127.0.0.1:PORT, user and password guest,
                               and GANTRY_TEST_RABBITMQ_API=http://127.0.0.1:PORT
  rabbitmq stop --state DIR

  redis start --state DIR [--port N] [--debian 13]
                               prints GANTRY_TEST_REDIS=redis://127.0.0.1:PORT
  redis stop --state DIR

  s3 start --state DIR [--port N]
                               serves S3 from memory
                               prints GANTRY_TEST_S3=http://127.0.0.1:PORT
  s3 stop --state DIR
USAGE
}

# Reads `--name value…` into the variables below; `--notify` takes two values.
options() {
    state='' port='' htpasswd='' notify_url='' notify_token='' registry='' name='' user=''
    debian=${GANTRY_TEST_DEBIAN-} store=classic
    while (($# > 0)); do
        (($# > 1)) || misuse "$1 needs a value"
        case $1 in
            --state) state=$2 ;;
            --port) port=$2 ;;
            --htpasswd) htpasswd=$2 ;;
            --registry) registry=$2 ;;
            --name) name=$2 ;;
            --user) user=$2 ;;
            --debian) debian=$2 ;;
            --store) store=$2 ;;
            --notify)
                (($# > 2)) || misuse "--notify needs a URL and a token"
                notify_url=$2 notify_token=$3
                shift
                ;;
            *) misuse "unknown option $1" ;;
        esac
        shift 2
    done
    [[ -z $debian || $debian == 13 ]] || misuse "--debian takes 13"
    [[ $store == classic || ($store == containerd && $debian == 13) ]] ||
        misuse "--store takes classic, or containerd with --debian 13"
}

misuse() {
    printf '%s\n\n' "$1" >&2
    usage >&2
    exit 2
}

# Makes the state folder's path absolute: processes are recognised by this path in their command lines.
state_folder() {
    [[ -n $state ]] || misuse "--state DIR is missing"
    mkdir -p "$state"
    state=$(cd "$state" && pwd)
}

main() {
    local command="${1-} ${2-}"
    case $command in
        "install demo" | "install test" | "install bench")
            install_for "$2"
            [[ $2 != test ]] || s3_install
            [[ $2 != test ]] || debian13_install_engine
            [[ $2 != test ]] || emulation_install
            [[ $2 != test ]] || debian13_install_oras
            ;;
        "install servers")
            install_for test
            debian13_install_servers
            ;;
        "engine start" | "engine stop" | "registry start" | "registry stop" | "git-server start" | "git-server stop" | "rabbitmq start" | "rabbitmq stop" | "redis start" | "redis stop" | "s3 start" | "s3 stop")
            options "${@:3}"
            state_folder
            local verb="${command//[- ]/_}"
            "$verb"
            ;;
        "oras ")
            printf 'GANTRY_TEST_ORAS=%s\n' "$(debian13_oras)"
            ;;
        "arm64-busybox ")
            printf 'GANTRY_TEST_ARM64_BUSYBOX=%s\n' "$(emulation_busybox)"
            ;;
        "base-image "*)
            options "${@:2}"
            [[ -n $registry && -n $name ]] || misuse "base-image needs --registry and --name"
            base_image
            ;;
        "help "* | "--help "* | "-h "*) usage ;;
        " ") misuse "no command given" ;;
        *) misuse "unknown command: $command" ;;
    esac
}

main "$@"
