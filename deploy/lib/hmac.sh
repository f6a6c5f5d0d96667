# shellcheck shell=bash
# HMAC-SHA256, as GitHub signs its webhooks.

# The HMAC of standard input with the key "$1", in hex. `openssl dgst -hmac KEY` would show the key to
# everyone who lists processes; here it stays in the shell. RFC 2104, block of 64 bytes.
hmac_sha256() {
    local key sum
    key=$(printf '%s' "$1" | hex)
    if ((${#key} > 128)); then
        key=$(printf '%s' "$1" | openssl dgst -sha256 -binary | hex)
    fi
    sum=$({
        pad "$key" 0x5c
        { pad "$key" 0x36 && cat; } | openssl dgst -sha256 -binary
    } | openssl dgst -sha256 -binary | hex)
    printf '%s\n' "$sum"
}

hex() {
    od -An -v -tx1 | tr -d ' \n'
}

# A hex key padded with zeros to one block, each byte XORed with "$2".
pad() {
    local key=$1 with=$2 digits byte
    while ((${#key} < 128)); do
        key+=00
    done
    for ((digits = 0; digits < 128; digits += 2)); do
        printf -v byte '\\x%02x' $((16#${key:digits:2} ^ with))
        printf '%b' "$byte"
    done
}
