#!/usr/bin/env bash
# The tests that depend on a server, once for each server and version, each alone: what fails is that server's. Ends with
# a table: server, passed | failed | SKIPPED. Exit code 0 if nothing failed; a server that cannot be had is no failure,
# and is named. The tests of anything else are `make test`'s.
#
#   test-matrix.sh [TEST-NAME...]                          arguments go to the tests as filters
#   LAKEWARD_MATRIX="postgres17 postgres18" test-matrix.sh   only these servers
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT"

# Test binaries by what they need. `tests/NAME.rs` and `tests/NAME/main.rs` are the same to cargo.
every=(first_light types transactions schema)
mysql=(mysql_source mysql_schema metadata)
postgres=(postgres_source postgres_schema)
# What is about lakeward under faults, not about a server's version: once per kind of server.
once=(failures crash race)
# Spark is no server: it reads spliced data files.
spark=(splice)

logs=$CARGO_TARGET_DIR/matrix
mkdir -p "$logs"

# Built once, before the first server starts; a test that does not compile is no server's fault.
cargo test --tests --no-run --quiet

chosen() { # the options of cargo test for these binaries, as far as they exist
    local name
    for name in "$@"; do
        if [[ -e tests/$name.rs || -e tests/$name/main.rs ]]; then printf -- '--test\n%s\n' "$name"; fi
    done
}

version_of() { # the server's own words, from the line that server.sh printed when it started
    if [[ $1 = spark ]]; then cat "$CACHE/spark/ready"; return; fi
    sed -n "s/^$1 \(.*\) on port .*/\1/p" "$logs/$1.log" | head -n 1
}

installed() {
    case $1 in
        mysql) [[ -e $CACHE/mysql9/ready ]] ;;
        postgres1?) [[ -e $CACHE/$1/ready ]] ;;
        mariadb) PATH=$PATH:/usr/sbin command -v mariadbd >/dev/null ;;
        spark) [[ -e $CACHE/spark/ready ]] ;;
        postgres) compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null ;;
        *) die "no such server: $1" ;;
    esac
}

failed=0
table=()
for server in ${LAKEWARD_MATRIX:-mariadb mysql postgres postgres16 postgres17 postgres18 spark}; do
    if ! installed "$server"; then
        table+=("$server|-|SKIPPED: the server is not installed (see above, and scripts/setup.sh --matrix)")
        continue
    fi
    case $server in
        mariadb | mysql) own=("${mysql[@]}" "${once[@]}") ;;
        postgres) own=("${postgres[@]}" "${once[@]}") ;;
        spark) own=() ;;
        *) own=("${postgres[@]}") ;;
    esac
    databases=$server
    if [[ $server = spark ]]; then
        databases=
        mapfile -t options < <(chosen "${spark[@]}")
    else
        mapfile -t options < <(chosen "${every[@]}" "${own[@]}")
    fi
    echo "matrix: $server: ${options[*]}"
    status=0
    started=$SECONDS
    scripts/with-servers.sh --databases "$databases" cargo test --no-fail-fast "${options[@]}" -- "$@" \
        >"$logs/$server.log" 2>&1 || status=$?
    counts=$(awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed", passed, failed }' \
        "$logs/$server.log")
    counts+=", $((SECONDS - started)) s"
    if ((status == 0)); then
        table+=("$server|$(version_of "$server")|passed ($counts)")
    else
        failed=1
        table+=("$server|$(version_of "$server")|FAILED ($counts; $logs/$server.log)")
        grep -E '^(test .* FAILED|error|thread .* panicked)' "$logs/$server.log" | sed 's/^/    /' || true
    fi
done

echo
for row in "server|version|result" "${table[@]}"; do
    IFS='|' read -r server version result <<<"$row"
    printf '%-12s %-28s %s\n' "$server" "$version" "$result"
done
exit $failed
