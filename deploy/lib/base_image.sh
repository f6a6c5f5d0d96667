# shellcheck shell=bash
# shellcheck disable=SC2154 # the options are assigned in bootstrap.sh
# Builds a base image with the static busybox, and pushes it directly to a registry: gantry resolves
# bases there, never in an engine. The same busybox gives the same digest.

base_image() {
    local folder
    folder=$(mktemp -d)
    # shellcheck disable=SC2064 # the current folder, not the one when the trap runs
    trap "rm -rf '$folder'" EXIT
    make_layer "$folder"
    make_config "$folder"
    make_manifest "$folder"

    local repository=${name%:*} tag=${name##*:}
    [[ $name == *:* ]] || tag=latest
    push_blob "$repository" "$folder/layer.tar.gz"
    push_blob "$repository" "$folder/config.json"
    push_manifest "$repository" "$tag" "$folder/manifest.json"
    printf 'BASE_IMAGE=%s/%s:%s@%s\n' "$registry" "$repository" "$tag" "$(digest_of "$folder/manifest.json")"
}

make_layer() {
    local root=$1/root busybox applet
    busybox=$(command -v busybox) || fail "busybox is not installed: run deploy/bootstrap.sh install demo"
    mkdir -p "$root"/{bin,etc,root,tmp}
    cp "$busybox" "$root/bin/busybox"
    for applet in $("$busybox" --list); do
        [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\n' >"$root/etc/group"
    chmod -R u=rwX,go=rX "$root"
    chmod 1777 "$root/tmp"
    tar --create --directory "$root" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar \
        --file "$1/layer.tar" .
    gzip --no-name --keep "$1/layer.tar"
}

make_config() {
    cat >"$1/config.json" <<JSON
{"architecture":"$(image_architecture)","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["$(digest_of "$1/layer.tar")"]}}
JSON
}

make_manifest() {
    cat >"$1/manifest.json" <<JSON
{"schemaVersion":2,"mediaType":"$manifest_type","config":$(descriptor "$1/config.json" application/vnd.oci.image.config.v1+json),"layers":[$(descriptor "$1/layer.tar.gz" application/vnd.oci.image.layer.v1.tar+gzip)]}
JSON
}

manifest_type=application/vnd.oci.image.manifest.v1+json

descriptor() {
    printf '{"mediaType":"%s","digest":"%s","size":%s}' "$2" "$(digest_of "$1")" "$(stat --format %s "$1")"
}

digest_of() {
    local sum
    sum=$(sha256sum "$1")
    printf 'sha256:%s' "${sum%% *}"
}

image_architecture() {
    case $(uname -m) in
        x86_64) printf amd64 ;;
        aarch64) printf arm64 ;;
        *) uname -m ;;
    esac
}

push_blob() {
    local location
    location=$(registry_curl --request POST --data '' --dump-header - "http://$registry/v2/$1/blobs/uploads/" |
        sed -n 's/^location: *\([^\r]*\).*/\1/Ip')
    local joint='?'
    [[ $location != *\?* ]] || joint='&'
    registry_curl --request PUT --header 'Content-Type: application/octet-stream' --data-binary "@$2" \
        "$location${joint}digest=$(digest_of "$2")"
}

push_manifest() {
    registry_curl --request PUT --header "Content-Type: $manifest_type" --data-binary "@$3" \
        "http://$registry/v2/$1/manifests/$2"
}

# The password is passed through standard input, because everyone on the machine can read arguments.
registry_curl() {
    local login=''
    [[ -z $user ]] || login="user = \"$user\""
    curl --silent --show-error --fail --max-time 60 --config - "$@" <<<"$login" ||
        fail "the registry at $registry refused: is it running, and is --user right?"
}
