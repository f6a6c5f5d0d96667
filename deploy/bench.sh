#!/usr/bin/env bash
# Runs the benches, each with the limit and the peer that it is compared with, over a real engine,
# registry and git server. Arguments select parts: deploy/bench.sh accept forged. The report goes to
# standard output as Markdown.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/process.sh
source "$root/deploy/lib/process.sh"
# shellcheck source=deploy/lib/parts.sh
source "$root/deploy/lib/parts.sh"

cd "$root"
deploy/bootstrap.sh install bench
with_test_parts "$root/.test"
# The client that users have, for what is measured with it.
cargo build --profile bench --package gantry
cargo bench --workspace --bench speed -- "$@"
