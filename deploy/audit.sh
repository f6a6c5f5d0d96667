#!/usr/bin/env bash
# Checks gantry's dependencies against deny.toml: bans, licences, sources, and the advisories of RustSec.
#
# The advisories come from a git repository; ADVISORIES names a mirror of RustSec's. If it cannot be reached, the audit
# fails after all other checks, because unknown advisories do not count as passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=0.20.2
home=${XDG_CACHE_HOME:-$HOME/.cache}/gantry/cargo-deny-$version
deny=$home/bin/cargo-deny
if ! [[ -x $deny ]]; then
    printf 'installing cargo-deny %s from crates.io\n' "$version" >&2
    CARGO_TARGET_DIR=$home/target cargo install cargo-deny --version "$version" --locked --root "$home" >&2
    rm -rf "$home/target"
fi

"$deny" --log-level error check bans licenses sources

if [[ -n ${ADVISORIES:-} ]]; then
    export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.$ADVISORIES.insteadOf"
    export GIT_CONFIG_VALUE_0=https://github.com/RustSec/advisory-db
fi
"$deny" --log-level error check advisories
