#!/usr/bin/env bash
# One private database or S3 server for the demo and the tests, on 127.0.0.1 only.
#
#   server.sh start   KIND DIR PORT [OPTION...]   idempotent; returns when the server answers
#   server.sh stop    KIND DIR                    clean shutdown, data kept
#   server.sh reset   KIND DIR PORT [OPTION...]   stop, throw the data away, start
#   server.sh destroy KIND DIR                    kill, throw the data away
#
# KIND     mariadb | mysql | postgres (Debian's) | postgres16 | postgres17 | postgres18
#          s3 (ministack, in memory) | s3-unsafe (s3rver: ignores If-None-Match)
# OPTION   a line for the server's config that overrides ours: binlog_format=STATEMENT, skip-log-bin, wal_level=replica
#
# DIR gets: pid, port, kind, log, data, socket (MySQL, MariaDB: the socket; PostgreSQL: its folder). Some of these are
# links into a folder below /tmp: socket paths must be short, and PostgreSQL refuses to run as root, while the user it
# runs as may not be able to reach DIR (a home folder is often 0700).
#
# Users    MySQL, MariaDB: root (no password), app/app (everything), cdc/cdc (what lakeward needs, no more)
#          PostgreSQL:     postgres/postgres (superuser), cdc/cdc (LOGIN REPLICATION, pg_read_all_data)
#          S3:             key S3RVER, secret S3RVER, bucket "lake"
#
# The servers' own time zone is +09:00, so that whoever forgets to set one in his session gets wrong values at once.
set -euo pipefail
. "$(dirname "$0")/env.sh"

(($# >= 3)) || die "usage: server.sh start|stop|reset|destroy KIND DIR [PORT [OPTION...]]"
action=$1 kind=$2
dir=$(realpath -m "$3")
port=${4:-}
shift $(($# < 4 ? $# : 4))
options=("$@")

case $kind in
    mariadb | mysql | postgres | s3 | s3-unsafe) engine=$kind ;;
    postgres16 | postgres17 | postgres18) engine=postgres ;;
    *) die "no such kind of server: $kind" ;;
esac
short=/tmp/lakeward-$(id -u)-$(sha256sum <<<"$dir" | cut -c1-12)

# --- processes -------------------------------------------------------------------------------------------------------

# Kernel start time of a process: with the pid it names one process for good, so that stop never hits a stranger that
# got the number of a server which died.
started_at() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

remember_pid() {
    echo "$1" >"$dir/pid"
    started_at "$1" >"$dir/pid-started"
}

running() { # prints the pid
    local pid
    pid=$(cat "$dir/pid" 2>/dev/null) || return 1
    [[ -n $pid && $(started_at "$pid") = "$(cat "$dir/pid-started" 2>/dev/null)" ]] || return 1
    [[ $(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | cut -c1) != Z ]] || return 1
    echo "$pid"
}

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

# In a session of its own: Ctrl-C in the demo's terminal must reach the demo, which then stops the servers in order.
# All other descriptors are closed, so that a caller that waits for the end of our output does not wait for the server.
spawn() {
    setsid "$@" >>"$dir/log" 2>&1 </dev/null 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
    remember_pid $!
}

wait_until() { # wait_until SECONDS COMMAND...: until it succeeds; fails at once when the server dies
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if ! running >/dev/null; then
            tail -n 15 "$dir/log" >&2
            die "$kind did not start; its log is $dir/log"
        fi
        ((SECONDS < deadline)) || die "$kind does not answer on port $port; its log is $dir/log"
        sleep 0.1
    done
}

# --- MySQL and MariaDB -----------------------------------------------------------------------------------------------

sql_root() { mariadb --no-defaults --batch --skip-column-names -uroot -S "$short/socket" "$@"; }

write_my_cnf() {
    # Only root may, and then must, name the user.
    {
        echo "[mysqld]"
        [[ $(id -u) != 0 ]] || echo "user=root"
        cat <<CONF
datadir=$dir/data
socket=$short/socket
pid-file=$short/server.pid
port=$port
bind-address=127.0.0.1
skip-name-resolve
max_connections=200
character-set-server=utf8mb4
default-time-zone=+09:00
innodb_buffer_pool_size=256M
innodb_flush_log_at_trx_commit=2
sync_binlog=0
server-id=1
log-bin=binlog
binlog_format=ROW
binlog_row_image=FULL
binlog_row_metadata=FULL
max_allowed_packet=256M
CONF
        if [[ $kind = mariadb ]]; then
            echo "gtid_strict_mode=1"
        else
            cat <<CONF
gtid_mode=ON
enforce_gtid_consistency=ON
mysqlx=OFF
secure-file-priv=
basedir=$MYSQL9/usr
lc-messages-dir=$MYSQL9/usr/share/mysql
character-sets-dir=$MYSQL9/usr/share/mysql/charsets
plugin-dir=$MYSQL9/usr/lib/mysql/plugin
CONF
        fi
        ((${#options[@]} == 0)) || printf '%s\n' "${options[@]}"
    } >"$dir/my.cnf"
}

mysql9() { # the command line of the MySQL 9 server in $command
    [[ -e $CACHE/mysql9/ready ]] || die "MySQL 9 is not installed; run scripts/setup.sh --test"
    local loader
    loader=$(ls "$MYSQL9"/usr/lib/*/ld-linux-*.so.* | head -n 1)
    command=("$loader" --library-path "$(dirname "$loader")" "$MYSQL9/usr/sbin/mysqld")
}

# A new data folder takes 3 to 6 s to make; a copy of one made before, well under one.
new_data_folder() {
    local template making user=()
    template=$CACHE/data-$kind-$("${command[@]}" --no-defaults --version | sha256sum | cut -c1-12)
    if [[ ! -d $template ]]; then
        mkdir -p "$CACHE"
        making=$(mktemp -d "$CACHE/data-making.XXXXXX")
        [[ $(id -u) != 0 ]] || user=(--user=root)
        if [[ $kind = mariadb ]]; then
            mariadb-install-db --no-defaults "${user[@]}" --datadir="$making" --auth-root-authentication-method=normal \
                --skip-test-db >"$dir/log" 2>&1 || { cat "$dir/log" >&2; die "mariadb-install-db failed"; }
        else
            sed "s|^datadir=.*|datadir=$making|" "$dir/my.cnf" >"$dir/init.cnf"
            "${command[@]}" --defaults-file="$dir/init.cnf" --initialize-insecure --skip-log-bin >"$dir/log" 2>&1 ||
                { cat "$dir/log" >&2; die "mysqld --initialize-insecure failed"; }
            # It holds the server's UUID: each copy must get its own, GTIDs are made of it.
            rm -f "$making/auto.cnf"
        fi
        # Another run may have been quicker; both are equally good.
        mv -T "$making" "$template" 2>/dev/null || rm -rf "$making"
    fi
    cp -a "$template" "$dir/data"
}

create_mysql_users() {
    local monitor="REPLICATION CLIENT"
    if [[ $kind = mysql ]]; then monitor+=", XA_RECOVER_ADMIN"; else monitor="BINLOG MONITOR"; fi
    # Not in the binlog: the log begins with the test's own statements.
    sql_root <<SQL
SET SESSION sql_log_bin = 0;
CREATE USER IF NOT EXISTS root@'127.0.0.1';
GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;
CREATE USER IF NOT EXISTS app@'%' IDENTIFIED BY 'app';
GRANT ALL ON *.* TO app@'%' WITH GRANT OPTION;
CREATE USER IF NOT EXISTS cdc@'%' IDENTIFIED BY 'cdc';
GRANT SELECT, REPLICATION SLAVE, $monitor, RELOAD, LOCK TABLES, SHOW VIEW ON *.* TO cdc@'%';
SQL
}

start_mysql() {
    local command=(mariadbd)
    [[ $kind = mariadb ]] && PATH=$PATH:/usr/sbin || mysql9
    write_my_cnf
    local new=
    if [[ ! -d $dir/data ]]; then
        new_data_folder
        new=1
    fi
    ln -sfn "$short/socket" "$dir/socket"
    spawn "${command[@]}" --defaults-file="$dir/my.cnf"
    wait_until 60 sql_root -e "SELECT 1"
    [[ -z $new && -e $dir/users-created ]] || { create_mysql_users && touch "$dir/users-created"; }
    version=$(sql_root -e "SELECT VERSION()")
}

# --- PostgreSQL ------------------------------------------------------------------------------------------------------

as_postgres() { # PostgreSQL refuses to run as root
    if [[ $(id -u) = 0 ]]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

psql_super() { as_postgres psql -X -q -v ON_ERROR_STOP=1 -h "$short" -p "$port" -U postgres "$@"; }

# After a kill -9 of the server its busy backends live on; a second server beside them would ruin the data. They all
# stand in the data folder.
kill_orphans() {
    local process
    for process in /proc/[0-9]*; do
        if [[ $(readlink "$process/cwd" 2>/dev/null) = "$short/data" && $(cat "$process/comm" 2>/dev/null) = postgres ]]; then
            kill -KILL "${process#/proc/}" 2>/dev/null || true
            while [[ -e $process/cwd ]]; do sleep 0.05; done
        fi
    done
}

# Where the programs of this kind are, in $bin.
find_postgres() {
    if [[ $kind = postgres ]]; then
        # 15 where it is there (the version the tests were written on), else the newest.
        bin=/usr/lib/postgresql/15/bin
        [[ -x $bin/postgres ]] || bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
        return
    fi
    [[ -e $CACHE/$kind/ready ]] || die "$kind is not installed; run scripts/setup.sh --matrix"
    bin=$CACHE/$kind/native/bin
    as_postgres test -x "$bin/postgres" 2>/dev/null && return
    # The user it runs as may not enter the cache: a home folder is often 0700. A copy it can reach, made once.
    local shared making
    shared=/tmp/lakeward-$(id -u)-$kind-$(cat "$CACHE/$kind/ready")
    if [[ ! -d $shared ]]; then
        making=$(mktemp -d "$shared.XXXXXX")
        cp -a "$CACHE/$kind/native/." "$making"
        chmod -R a+rX "$making"
        mv -T "$making" "$shared" 2>/dev/null || rm -rf "$making"
    fi
    [[ ! -L $shared && -O $shared ]] || die "$shared belongs to somebody else"
    bin=$shared/bin
}

start_postgres() {
    local bin data=$short/data new=
    find_postgres
    [[ $(id -u) != 0 ]] || chown postgres "$short"
    if [[ ! -s $data/PG_VERSION ]]; then
        rm -rf "$data"
        as_postgres "$bin/initdb" -D "$data" -U postgres -A trust --no-sync -E UTF8 --locale=C.UTF-8 >"$dir/log" 2>&1 ||
            { cat "$dir/log" >&2; die "initdb failed"; }
        new=1
    fi
    {
        cat <<CONF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = '$short'
max_connections = 200
shared_buffers = 128MB
wal_level = logical
max_wal_senders = 100
# Tests may leave their slots behind; a free place costs nothing.
max_replication_slots = 1000
max_prepared_transactions = 20
fsync = off
synchronous_commit = off
timezone = 'Asia/Seoul'
datestyle = 'iso, mdy'
log_timezone = 'UTC'
CONF
        ((${#options[@]} == 0)) || printf '%s\n' "${options[@]}"
    } >"$data/postgresql.conf"
    # Superuser by socket without password; by TCP everybody needs the right one, so that a wrong one can be tested.
    cat >"$data/pg_hba.conf" <<CONF
local all         all              trust
host  all         all 127.0.0.1/32 scram-sha-256
host  replication all 127.0.0.1/32 scram-sha-256
CONF
    ln -sfn "$short" "$dir/socket"
    ln -sfn "$data" "$dir/data"
    ln -sfn "$short/log" "$dir/log"
    kill_orphans
    # With nobody in the folder, old lock files mean nothing.
    rm -f "$data/postmaster.pid" "$short"/.s.PGSQL.*
    # pg_ctl puts the server in a session of its own.
    if ! as_postgres "$bin/pg_ctl" -D "$data" -l "$short/log" -w -t 60 start >/dev/null </dev/null; then
        tail -n 15 "$short/log" >&2
        die "postgres did not start; its log is $dir/log"
    fi
    remember_pid "$(head -n 1 "$data/postmaster.pid")"
    if [[ -n $new ]]; then
        psql_super -d postgres <<'SQL'
ALTER ROLE postgres PASSWORD 'postgres';
CREATE ROLE cdc LOGIN REPLICATION PASSWORD 'cdc';
GRANT pg_read_all_data TO cdc;
SQL
    fi
    version=$(psql_super -d postgres -At -c "SHOW server_version")
}

# --- S3 --------------------------------------------------------------------------------------------------------------

start_s3() {
    if [[ $kind = s3 ]]; then
        [[ -x $CACHE/venv/bin/ministack ]] || die "ministack is not installed; run scripts/setup.sh --test"
        # Without these it listens on all addresses, and opens an MQTT port besides.
        mkdir -p "$dir/tmp" # it leaves a pid file and certificates in its temp folder
        TMPDIR=$dir/tmp IOT_MTLS_ENABLED=0 BIND_HOST=127.0.0.1 GATEWAY_PORT=$port spawn "$CACHE/venv/bin/ministack"
        wait_until 30 curl -fsS -X PUT "http://127.0.0.1:$port/lake"
        version="ministack $("$PYTHON" -c 'import importlib.metadata as m; print(m.version("ministack"))')"
    else
        local bin=$CACHE/s3rver/node_modules/.bin/s3rver
        [[ -x $bin ]] || die "s3rver is not installed; run scripts/setup.sh --test"
        spawn "$bin" --directory "$dir/data" --address 127.0.0.1 --port "$port" --silent --no-vhost-buckets --configure-bucket lake
        wait_until 30 curl -sS "http://127.0.0.1:$port/"
        version="s3rver $("$bin" --version)"
    fi
}

# --- actions ---------------------------------------------------------------------------------------------------------

start() {
    [[ $port =~ ^[0-9]+$ ]] || die "start needs a port"
    local version
    if running >/dev/null; then
        echo "$kind already runs on port $(cat "$dir/port")"
        return
    fi
    # A server that was killed a moment ago may still hold it.
    for _ in $(seq 30); do port_taken || break; sleep 0.1; done
    ! port_taken || die "port $port is taken by another program; $kind cannot use it"
    mkdir -p "$dir"
    [[ -d $short ]] || mkdir -m 0755 "$short"
    # Anybody may create folders in /tmp: never use one that somebody else prepared.
    [[ ! -L $short && ( -O $short || $(stat -c %U "$short") = postgres ) ]] || die "$short belongs to somebody else"
    echo "$port" >"$dir/port"
    echo "$kind" >"$dir/kind"
    case $engine in
        mariadb | mysql) start_mysql ;;
        postgres) start_postgres ;;
        *) start_s3 ;;
    esac
    echo "$kind $version on port $port"
}

stop() { # stop [now]
    local pid signal=TERM deadline=$((SECONDS + 20))
    if pid=$(running); then
        # PostgreSQL: INT is its fast shutdown, TERM would wait for every client to leave; QUIT is the immediate one.
        [[ $engine != postgres ]] || signal=INT
        if [[ ${1:-} = now ]]; then [[ $engine = postgres ]] && signal=QUIT || signal=KILL; fi
        kill -"$signal" "$pid" 2>/dev/null || true
        while running >/dev/null; do
            if ((SECONDS >= deadline)); then
                [[ $engine = postgres ]] && signal=QUIT || signal=KILL
                kill -"$signal" "$pid" 2>/dev/null || true
                deadline=$((SECONDS + 20))
            fi
            sleep 0.05
        done
    fi
    rm -f "$dir/pid" "$dir/pid-started"
}

destroy() {
    # Never wipe a folder that `start` did not make.
    [[ -e $dir/port || -z $(ls -A "$dir" 2>/dev/null) ]] || die "$dir does not look like a server's folder; nothing removed"
    stop now
    [[ $engine != postgres ]] || kill_orphans
    rm -rf "$short"
    rm -rf "$dir"
}

case $action in
    start) start ;;
    stop) stop ;;
    reset) destroy && start ;;
    destroy) destroy ;;
    *) die "no such action: $action" ;;
esac
