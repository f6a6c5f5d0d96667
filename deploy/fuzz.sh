#!/usr/bin/env bash
# Fuzzes the parsers of untrusted bytes with libFuzzer: deploy/fuzz.sh [TARGET [SECONDS]]. Without a target, each runs
# for the default time. The corpus and the inputs that broke a target are in target/fuzz. Fix the parser, and add such
# an input to tests/fixtures/fuzz/TARGET, which the tests replay.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

targets=(archive github distribution webhook record reference dockerfile ignore terminal)
[[ -z ${1-} ]] || targets=("$1")
seconds=${2:-60}

version=0.13.2
home=${XDG_CACHE_HOME:-$HOME/.cache}/gantry/cargo-fuzz-$version
if ! [[ -x $home/bin/cargo-fuzz ]]; then
    printf 'installing cargo-fuzz %s from crates.io\n' "$version" >&2
    CARGO_TARGET_DIR=$home/target cargo install cargo-fuzz --version "$version" --locked --root "$home" >&2
    rm -rf "$home/target"
fi

found=target/fuzz
# The fuzzer's instrumentation needs a nightly flag; this variable makes a stable compiler accept it.
export RUSTC_BOOTSTRAP=1
for target in "${targets[@]}"; do
    printf '==> %s, %s seconds\n' "$target" "$seconds"
    mkdir -p "$found/$target"
    examples=tests/fixtures/fuzz/$target
    [[ $target != webhook ]] || examples=tests/fixtures/webhooks
    GANTRY_FUZZ_TARGET=$target "$home/bin/cargo-fuzz" fuzz run --fuzz-dir tests/fuzz --sanitizer none \
        --target-dir "$found/build" strangers "$found/$target" "$examples" -- \
        -max_total_time="$seconds" -max_len=65536 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$found/$target-broken-"
done
