# shellcheck shell=bash
# shellcheck disable=SC2154 # the script that sources this assigns root
# An image of gantry without a registry and without a network: a base with files of this machine, and
# deploy/Dockerfile with an existing program.

# Builds the image "$1" in the engine with the program "$2".
runtime_image() {
    local image=$1 program=$2 folder
    folder=$(mktemp -d)
    runtime_base "$folder/root" "$program"
    tar --create --directory "$folder/root" . |
        engine_call POST '/images/create?fromSrc=-&repo=gantry-runtime&tag=base' --data-binary @- \
            --header 'Content-Type: application/x-tar' >/dev/null
    mkdir -p "$folder/context/deploy"
    cp "$root/deploy/Dockerfile" "$folder/context/deploy/Dockerfile"
    strip --strip-debug -o "$folder/context/gantry" "$program"
    tar --create --directory "$folder/context" . | build_image "$image"
    rm -rf "$folder"
}

# Builds the context on standard input with the engine's own builder, which needs no client.
build_image() {
    local said arguments='%7B%22BASE%22%3A%22gantry-runtime%3Abase%22%2C%22BUILDER%22%3A%22gantry-runtime%3Abase%22%7D'
    said=$(engine_call POST "/build?t=$1&dockerfile=deploy/Dockerfile&rm=1&forcerm=1&buildargs=$arguments" \
        --data-binary @- --header 'Content-Type: application/x-tar')
    if [[ $said == *'"errorDetail"'* ]]; then
        fail "cannot build $1: $(jq --raw-output '.stream // .error // empty' <<<"$said" | tail -n 20)"
    fi
}

# A shell and tools, git with https and ssh, and the libraries and certificates that they and gantry need.
runtime_base() {
    local base=$1 applet program
    mkdir -p "$base"/{bin,etc/ssl/certs,root,tmp,usr/bin,usr/lib/git-core,var/lib}
    chmod 1777 "$base/tmp"
    cp "$(command -v busybox)" "$base/bin/busybox"
    for applet in $("$base/bin/busybox" --list); do
        [[ $applet == busybox ]] || ln -s busybox "$base/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\ngantry:x:10001:10001::/data:/bin/sh\n' >"$base/etc/passwd"
    printf 'root:x:0:\ngantry:x:10001:\n' >"$base/etc/group"
    cp -L /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/"
    copy_program "$base" "$(command -v git)" /usr/bin/git
    copy_program "$base" "$(command -v ssh)" /usr/bin/ssh
    for program in git-remote-http git-remote-https; do
        copy_program "$base" "$(git --exec-path)/$program" "$(git --exec-path)/$program"
    done
    copy_libraries "$base" "$2"
}

# Copies a program into the base, with the libraries that it loads.
copy_program() {
    install -D --mode 755 "$2" "$1$3"
    copy_libraries "$1" "$2"
}

copy_libraries() {
    local library
    while read -r library; do
        [[ -e $1$library ]] || install -D --mode 755 "$library" "$1$library"
    done < <(ldd "$2" 2>/dev/null | grep -o '/[^ ]*')
}
