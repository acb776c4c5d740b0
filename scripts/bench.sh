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
scripts/with-servers.sh "$PYTHON" benches/backlog.py --lakeward "$CARGO_TARGET_DIR/release/lakeward" \
    --out "$CARGO_TARGET_DIR/bench/backlog.json" "$@"
scripts/with-servers.sh "$PYTHON" benches/snapshot.py --lakeward "$CARGO_TARGET_DIR/release/lakeward" \
    --out "$CARGO_TARGET_DIR/bench/snapshot.json"
scripts/with-servers.sh --databases mariadb "$PYTHON" benches/add_column.py --lakeward "$CARGO_TARGET_DIR/release/lakeward" \
    --out "$CARGO_TARGET_DIR/bench/add_column.json"
# Both transactions are several gigabytes on the servers' disks, and again on ours.
exec scripts/with-servers.sh "$PYTHON" benches/huge_transaction.py --lakeward "$CARGO_TARGET_DIR/release/lakeward" \
    --out "$CARGO_TARGET_DIR/bench/huge_transaction.json"
