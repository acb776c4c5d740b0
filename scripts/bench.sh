#!/usr/bin/env bash
# End-to-end measurements of the release build on real servers; arguments go to benches/backlog.py.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT"

if ! command -v mariadb-binlog >/dev/null; then
    # The raw ceiling on MariaDB is its own tool.
    echo "setup: installing mariadb-client (mariadb-binlog)"
    sudo=$( ((EUID == 0)) || echo sudo)
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends mariadb-client >/dev/null
fi
cargo build --release
export LAKEWARD_BENCH_MYSQL_ROOT=$MYSQL9
# Of key indexes.
CACHE_DIRECTORY=$(mktemp -d)
export CACHE_DIRECTORY
trap 'rm -rf "$CACHE_DIRECTORY"' EXIT
bench() { # bench NAME [ARGUMENT...], with the servers that `servers` names
    scripts/with-servers.sh --databases "$servers" "$PYTHON" "benches/$1.py" --lakeward "$CARGO_TARGET_DIR/release/lakeward" \
        --out "$CARGO_TARGET_DIR/bench/$1.json" "${@:2}"
}
servers=mariadb,mysql,postgres
bench backlog "$@"
bench snapshot
servers=mariadb
bench add_column
bench merge
bench steady
# Its transactions are several gigabytes on the servers' disks, and again on ours.
servers=mariadb,postgres
bench huge_transaction
