# shellcheck shell=bash disable=SC2034
# Sourced by the other scripts: where things are. Prints nothing, installs nothing.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${LAKEWARD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lakeward}
PYTHON=$CACHE/venv/bin/python
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}

# The MySQL 9 of Debian sid is unpacked here with its own libc, and is started through its own loader (scripts/setup.sh).
MYSQL9=$CACHE/mysql9/root

die() { echo "error: $*" >&2; exit 1; }
