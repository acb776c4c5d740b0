#!/usr/bin/env bash
# End-to-end measurements of the release build on real servers, told in docs/performance.md and README.md; arguments go to
# benches/backlog.py.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT"

if ! command -v mariadb-binlog >/dev/null; then
    # The raw ceiling on MariaDB is its own tool.
    echo "setup: installing mariadb-client (mariadb-binlog)"
    sudo=$( ((EUID == 0)) || echo sudo)
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends mariadb-client >/dev/null
fi
"$PYTHON" -m pip install --quiet --disable-pip-version-check -r scripts/requirements-bench.txt
cargo build --release
export LAKEWARD_BENCH_MYSQL_ROOT=$MYSQL9
# Of key indexes.
CACHE_DIRECTORY=$(mktemp -d)
export CACHE_DIRECTORY
trap 'rm -rf "$CACHE_DIRECTORY"' EXIT
bench() { # bench NAME [ARGUMENT...], with the servers that `servers` names
    scripts/with-servers.sh --databases "$servers" "$PYTHON" "benches/$1.py" --lakeward "$CARGO_TARGET_DIR/release/lakeward" \
        --out "benches/results/$1.json" "${@:2}"
}
servers=mariadb,mysql,postgres
bench backlog "$@"
bench snapshot
servers=mariadb
bench add_column
bench merge --rows 1000000,5000000,50000000
bench steady
# Its transactions are several gigabytes on the servers' disks, and again on ours.
servers=mariadb,postgres
failed=0
bench huge_transaction || failed=$?
"$PYTHON" benches/report.py benches/results
exit "$failed"
