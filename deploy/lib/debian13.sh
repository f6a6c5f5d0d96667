# shellcheck shell=bash
# Programs of Debian 13, unpacked into the cache folder.
#
# apt fetches the packages, with separate package lists, and verifies them with Debian's keys.
# Nothing is installed, and no script of a package runs.

debian13_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

debian13_home() {
    printf '%s/gantry/debian13-%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}" "$1"
}

debian13_install_engine() {
    debian13_unpack engine download docker.io containerd
}

# With their dependencies, and the shell and tools that RabbitMQ's scripts call.
debian13_install_servers() {
    debian13_unpack servers --yes --no-install-recommends --download-only install \
        redis-server rabbitmq-server dash coreutils findutils grep mawk sed util-linux
}

# A Go program, which needs no library but libc.
debian13_install_oras() {
    debian13_unpack oras download oras
}

debian13_oras() {
    printf '%s/usr/bin/oras\n' "$(debian13_home oras)"
}

# Fetches packages with apt-get and these arguments, once, for this machine or for debian13_architecture. The folder gets its name when it is complete.
debian13_unpack() {
    local home made package
    home=$(debian13_home "$1")
    [[ ! -e $home ]] || return 0
    say "fetching the $1 of Debian 13"
    mkdir -p "$(dirname "$home")"
    made=$(mktemp --directory "$home.XXXXXX")
    if ! debian13_fetch "$made/apt" "${@:2}"; then
        rm -rf "$made"
        fail "apt could not fetch from Debian 13: see the lines above; fix the cause, then run this again"
    fi
    for package in "$made"/apt/archives/*.deb; do
        dpkg-deb --extract "$package" "$made"
    done
    rm -rf "$made/apt"
    chmod 755 "$made"
    # A concurrent run may have been faster.
    mv --no-target-directory "$made" "$home" 2>/dev/null || rm -rf "$made"
}

debian13_fetch() {
    local folder=$1 options
    mkdir -p "$folder"/{lists,archives}/partial
    : >"$folder/status"
    printf 'deb [signed-by=%s] %s trixie main\n' "$debian13_keyring" "$(debian_mirror)" >"$folder/sources.list"
    options=(
        -o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::lists=$folder/lists" -o "Dir::State::status=$folder/status"
        -o "Dir::Cache=$folder" -o "Dir::Cache::archives=$folder/archives"
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o APT::Sandbox::User=root
    )
    [[ -z ${debian13_architecture-} ]] ||
        options+=(-o "APT::Architecture=$debian13_architecture" -o "APT::Architectures=$debian13_architecture")
    apt_get "${options[@]}" update || return
    # `download` writes into the current folder.
    (cd "$folder/archives" && apt_get "${options[@]}" "${@:2}")
}

# The Debian mirror in this machine's apt sources, or the default one.
debian_mirror() {
    local mirror
    # shellcheck disable=SC2016 # apt-get replaces these, not the shell
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1)
    printf '%s\n' "${mirror:-http://deb.debian.org/debian}"
}

# Writes a program that runs Debian 13's server at a path in its /usr. The server sees that /usr, and
# this machine's files otherwise.
debian13_write_server() {
    local file=$1 program=$2 home
    home=$(debian13_home servers)
    [[ -e $home ]] || fail "Debian 13's servers are not here: run deploy/bootstrap.sh install servers"
    cat >"$file" <<PROGRAM
#!/bin/sh
LC_ALL=C # other locales were not unpacked
export LC_ALL
[ "\$(id -u)" = 0 ] && as='' || as=--map-root-user
exec unshare --mount \$as sh -c 'mount --bind "$home/usr" /usr && exec $program "\$@"' "\$0" "\$@"
PROGRAM
    chmod 755 "$file"
}

# Writes a program that runs Debian 13's dockerd with a configuration file.
debian13_write_dockerd() {
    local file=$1 config=$2 home
    home=$(debian13_home engine)
    [[ -e $home ]] || fail "Debian 13's engine is not here: run deploy/bootstrap.sh install test"
    cat >"$file" <<PROGRAM
#!/bin/sh
PATH=$home/usr/sbin:$home/usr/bin:\$PATH
export PATH
exec dockerd --config-file '$config' "\$@"
PROGRAM
    chmod 755 "$file"
}
