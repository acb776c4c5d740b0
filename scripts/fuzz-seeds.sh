#!/usr/bin/env bash
# Records the seed corpus of the fuzz targets from real servers, anew.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT"
rm -rf fuzz/corpus
exec scripts/with-servers.sh "$PYTHON" fuzz/record.py
