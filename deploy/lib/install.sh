# shellcheck shell=bash
# Installs the missing packages for a purpose with apt.

install_for() {
    local purpose=$1 missing
    mapfile -t missing < <(missing_packages "$purpose")
    ((${#missing[@]} > 0)) || return 0
    if ((EUID != 0)); then
        say "missing: ${missing[*]}"
        fail "only root can install: run sudo deploy/bootstrap.sh install $purpose"
    fi
    command -v apt-get >/dev/null || fail "this machine has no apt: install what ${missing[*]} are called here"
    say "installing ${missing[*]}"
    without_autostart apt_install "${missing[@]}"
    keep_from_boot "${missing[@]}"
}

# An installed program counts, whatever its package: Docker's own packages conflict with Debian's
# docker.io.
missing_packages() {
    has curl || printf '%s\n' curl
    has_engine || printf '%s\n' docker.io
    has git || printf '%s\n' git
    has ssh || printf '%s\n' openssh-client
    has docker-registry || printf '%s\n' docker-registry
    has_static_busybox || printf '%s\n' busybox-static
    has lighttpd || printf '%s\n' lighttpd
    has openssl || printf '%s\n' openssl
    has jq || printf '%s\n' jq
    has ip || printf '%s\n' iproute2
    has make || printf '%s\n' make
    has cc || printf '%s\n' gcc
    [[ -e /usr/include/stdlib.h ]] || printf '%s\n' libc6-dev
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || printf '%s\n' ca-certificates
    [[ $1 == demo ]] || has_rabbitmq || printf '%s\n' rabbitmq-server
    [[ $1 == demo ]] || has redis-server || printf '%s\n' redis-server
    [[ $1 != test ]] || { has prometheus && has promtool; } || printf '%s\n' prometheus
    [[ $1 != test ]] || has docker-compose || printf '%s\n' docker-compose
    [[ $1 != test ]] || has git-lfs || printf '%s\n' git-lfs
    [[ $1 != test ]] || [[ -x /usr/sbin/sshd ]] || printf '%s\n' openssh-server
    [[ $1 != test ]] || has strace || printf '%s\n' strace
    [[ $1 != test ]] || has faketime || printf '%s\n' faketime
    [[ $1 != test ]] || has strip || printf '%s\n' binutils
    [[ $1 != test ]] || has shellcheck || printf '%s\n' shellcheck
    [[ $1 != test ]] || has_python_venv || printf '%s\n' python3-venv
    [[ $1 != test ]] || has runc || printf '%s\n' runc
    [[ $1 != test ]] || [[ -e /usr/lib/binfmt.d/qemu-aarch64.conf ]] || printf '%s\n' qemu-user-static
    [[ $1 != test ]] || has iptables || printf '%s\n' iptables
    [[ $1 != test ]] || [[ -e /usr/share/keyrings/debian-archive-trixie-stable.gpg ]] || printf '%s\n' debian-archive-keyring
    [[ $1 != bench ]] || has webhook || printf '%s\n' webhook
}

has() {
    command -v "$1" >/dev/null
}

# Debian's python3 has no pip for a new environment without this package.
has_python_venv() {
    has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null
}

# Its program is not in PATH.
has_rabbitmq() {
    [[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]]
}

has_engine() {
    has dockerd || answering_engine >/dev/null
}

has_static_busybox() {
    has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1
}

# The package lists are updated only if the existing ones are not sufficient.
apt_install() {
    local attempt
    for attempt in 1 2 3; do
        if apt_get install --yes --no-install-recommends "$@"; then
            return
        fi
        ((attempt == 3)) || apt_get update || sleep "$attempt"
    done
    fail "apt could not install $*: see the lines above; fix the cause, then run this again"
}

# The output of apt is shown only if it fails.
apt_get() {
    local output
    output=$(DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@" 2>&1) ||
        { say "$output" && return 1; }
}

# Packages start their services when installed, on ports that may be in use. A policy prevents that
# while "$@" runs. An existing policy is restored, even after a run that was killed.
without_autostart() {
    local policy=/usr/sbin/policy-rc.d
    [[ ! -e $policy || -e $policy.before-gantry ]] || mv "$policy" "$policy.before-gantry"
    trap restore_autostart EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    "$@"
    restore_autostart
    trap - EXIT
}

restore_autostart() {
    rm -f /usr/sbin/policy-rc.d
    [[ ! -e /usr/sbin/policy-rc.d.before-gantry ]] || mv /usr/sbin/policy-rc.d.before-gantry /usr/sbin/policy-rc.d
}

# These are started here on loopback only; at the next boot they would listen on all addresses.
keep_from_boot() {
    local package
    [[ -d /run/systemd/system ]] || return 0
    for package; do
        case $package in
            docker-registry | lighttpd | prometheus | rabbitmq-server | redis-server | webhook) systemctl disable --quiet "$package" ;;
            openssh-server) systemctl disable --quiet ssh ;;
            *) ;;
        esac
    done
}
