#!/usr/bin/env bash
# `make demo`: a private MariaDB and PostgreSQL with lodging data and traffic, lakeward keeping a local lake equal to them.
#
#   DEMO_SECONDS=60 scripts/demo.sh   60 s of traffic, then compares; exit 0 only if source and lake are equal
#   scripts/demo.sh                   compares after 60 s, then goes on until Ctrl-C
#   scripts/demo.sh clean             removes what a demo left behind
#
# LAKEWARD=/path/to/lakeward runs that binary instead of building one. Everything it makes is below .run/.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT"

MYSQL_PORT=13306    # these two are in config.toml
POSTGRES_PORT=15432
DRAIN_SECONDS_MAX=60
RUN=$ROOT/.run
# "Everything": the key index, too.
export CACHE_DIRECTORY=$RUN/cache
LOG=$RUN/lakeward.log

daemon='' traffic='' keep_lake=''

# Background processes get a session of their own: Ctrl-C reaches only this script, which ends them in the right order.
stop_process() { # stop_process PID
    [[ -n $1 ]] || return 0
    kill -TERM "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || return $?
}

remove_servers() {
    scripts/server.sh destroy mariadb "$RUN/mariadb"
    scripts/server.sh destroy postgres "$RUN/postgres"
}

cleanup() {
    trap '' INT TERM # a second Ctrl-C must not leave servers behind
    echo "cleaning up"
    stop_process "$traffic" || true
    if [[ -n $daemon ]]; then
        # It drains on the first signal; it may take a moment, but not for ever.
        kill -TERM "$daemon" 2>/dev/null || true
        for _ in $(seq 100); do kill -0 "$daemon" 2>/dev/null || break; sleep 0.1; done
        kill -KILL "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    remove_servers
    if [[ -n $keep_lake ]]; then
        echo "kept for inspection: $RUN/lake and $LOG (remove: make clean)"
    else
        rm -rf "$RUN"
    fi
}

start_servers() {
    scripts/server.sh start mariadb "$RUN/mariadb" $MYSQL_PORT
    scripts/server.sh start postgres "$RUN/postgres" $POSTGRES_PORT
    mariadb --no-defaults --default-character-set=utf8mb4 -uroot -S "$RUN/mariadb/socket" <demo/schema-mysql.sql
    # By TCP, since PostgreSQL's socket folder moves with the user it runs as.
    export PGPASSWORD=postgres
    local psql=(psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$POSTGRES_PORT" -U postgres)
    "${psql[@]}" -d postgres -c "CREATE DATABASE loyalty"
    "${psql[@]}" -d loyalty -f demo/schema-postgres.sql
    unset PGPASSWORD
    mkdir -m 700 "$RUN/secrets"
    printf cdc >"$RUN/secrets/booking"
    printf cdc >"$RUN/secrets/loyalty"
    chmod 600 "$RUN"/secrets/*
}

start_traffic() {
    setsid "$PYTHON" demo/traffic.py run >"$RUN/traffic.log" 2>&1 </dev/null &
    traffic=$!
}

start_daemon() {
    setsid "$lakeward" run --config config.toml >"$LOG" 2>&1 </dev/null &
    daemon=$!
}

check_alive() {
    if ! kill -0 "$daemon" 2>/dev/null; then
        keep_lake=1
        echo "lakeward ended by itself; the end of $LOG:" >&2
        tail -n 20 "$LOG" >&2
        exit 1
    fi
}

show_for() { # show_for SECONDS: what has arrived, every 5 seconds
    local end=$((SECONDS + $1)) rest
    while ((SECONDS < end)); do
        rest=$((end - SECONDS))
        sleep $((rest < 5 ? rest : 5))
        check_alive
        echo
        echo "--- $(date +%H:%M:%S)"
        # The very first time the lake may be still empty.
        "$lakeward" tables --config config.toml || true
    done
}

compare() {
    local equal=0
    "$PYTHON" tests/oracle/compare.py --source "mysql://app:app@127.0.0.1:$MYSQL_PORT/" --lake "$RUN/lake/booking" \
        --table booking.reservations --table booking.coupons || equal=$?
    "$PYTHON" tests/oracle/compare.py --source "postgres://postgres:postgres@127.0.0.1:$POSTGRES_PORT/loyalty" \
        --lake "$RUN/lake/loyalty" --table public.points --table public.settlements || equal=$?
    return "$equal"
}

drain() { # until source and lake are equal, or the time is over: the comparison that counts comes after
    local end=$((SECONDS + DRAIN_SECONDS_MAX))
    until compare >/dev/null 2>&1; do
        check_alive
        ((SECONDS < end)) || return 0
        sleep 1
    done
}

if [[ ${1:-} = clean ]]; then
    remove_servers
    rm -rf "$RUN"
    exit 0
fi

scripts/setup.sh --demo
lakeward=${LAKEWARD:-$CARGO_TARGET_DIR/debug/lakeward}
if [[ -z ${LAKEWARD:-} ]]; then
    echo "building lakeward (the first time this takes some minutes)"
    cargo build
fi

remove_servers # of a demo that was killed
rm -rf "$RUN"
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$RUN"
start_servers
"$PYTHON" demo/traffic.py load
start_traffic
start_daemon
echo "lakeward runs, its log is $LOG"

show_for "${DEMO_SECONDS:-60}"

echo
echo "stopping the traffic, then comparing source and lake with DuckDB"
stop_process "$traffic" || { keep_lake=1; cat "$RUN/traffic.log" >&2; die "the traffic generator failed"; }
traffic=
tail -n 1 "$RUN/traffic.log"
drain

if [[ -n ${DEMO_SECONDS:-} ]]; then
    status=0
    stop_process "$daemon" || status=$?
    daemon=
    ((status == 0)) || { keep_lake=1; tail -n 20 "$LOG" >&2; die "lakeward ended with exit code $status"; }
    compare || { keep_lake=1; exit 1; }
    exit 0
fi

compare || { keep_lake=1; exit 1; }
cat <<TEXT

The demo goes on until Ctrl-C; then everything it made is removed.
  lake tables   $RUN/lake/<source>/<database or schema>/<table>
  log           $LOG
  state         $lakeward tables --config config.toml
  query         $PYTHON tests/oracle/rows.py --lake-table .run/lake/booking/booking/reservations \\
                    --sql "SELECT status, count(*) AS bookings, sum(amount) AS amount FROM t GROUP BY 1 ORDER BY 1"
  sources       mariadb -h 127.0.0.1 -P $MYSQL_PORT -uapp -papp booking
                psql postgres://postgres:postgres@127.0.0.1:$POSTGRES_PORT/loyalty
TEXT
start_traffic
while true; do show_for 5; done
