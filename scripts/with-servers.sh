#!/usr/bin/env bash
# Runs a command beside real servers: starts one of each kind, says where they are by LAKEWARD_TEST_*, runs the command,
# stops them. A server that is not installed is named, loudly, in the last line.
#
#   with-servers.sh [--databases KIND,...] COMMAND [ARGUMENT...]
#
# Databases: mariadb,mysql,postgres when none are named; see server.sh for the others. There is one PostgreSQL at a time.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT"

databases=mariadb,mysql,postgres
if [[ ${1:-} = --databases ]]; then
    databases=$2
    shift 2
fi

LAKEWARD_TEST_SERVERS=$(mktemp -d "${TMPDIR:-/tmp}/lakeward-test.XXXXXX")
# PostgreSQL's user and the tests' own servers must get in; what is inside is throw-away data.
chmod 755 "$LAKEWARD_TEST_SERVERS"
export LAKEWARD_TEST_SERVERS LAKEWARD_TEST_PYTHON=$PYTHON
# Only tests of data files ask for Spark (scripts/setup.sh --matrix).
[[ ! -e $CACHE/spark/ready ]] || export LAKEWARD_TEST_SPARK_PYTHON=$CACHE/spark/bin/python

cleanup() {
    # Also those a test started for itself below this folder and could not stop because it was killed.
    find "$LAKEWARD_TEST_SERVERS" -name kind -printf '%h\n' | while read -r dir; do
        "$ROOT/scripts/server.sh" destroy "$(cat "$dir/kind")" "$dir" || true
    done
    rm -rf "$LAKEWARD_TEST_SERVERS"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

free_port() {
    "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start() { # start KIND VARIABLE
    local port
    port=$(free_port)
    "$ROOT/scripts/server.sh" start "$1" "$LAKEWARD_TEST_SERVERS/$1" "$port"
    export "$2=$port"
}

skipped=()
for database in ${databases//,/ }; do
    case $database in
        mariadb) start mariadb LAKEWARD_TEST_MARIADB_PORT ;;
        mysql)
            if [[ -e $CACHE/mysql9/ready ]]; then start mysql LAKEWARD_TEST_MYSQL_PORT; else skipped+=(mysql); fi
            ;;
        postgres*)
            if [[ $database = postgres || -e $CACHE/$database/ready ]]; then
                # Tests that need a server of their own start the same kind.
                export LAKEWARD_TEST_POSTGRES_KIND=$database
                start "$database" LAKEWARD_TEST_POSTGRES_PORT
            else
                skipped+=("$database")
            fi
            ;;
        *) die "no such database: $database" ;;
    esac
done
start s3 LAKEWARD_TEST_S3_PORT
start s3-unsafe LAKEWARD_TEST_S3_UNSAFE_PORT

status=0
"$@" || status=$?

((${#skipped[@]} == 0)) || echo "SKIPPED: nothing ran on ${skipped[*]} (server not installed, see scripts/setup.sh)" >&2
exit "$status"
