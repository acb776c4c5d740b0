#!/usr/bin/env bash
# Is compose/compose.yaml valid? `docker compose config` says so, and needs no container engine. Where docker has no
# compose plugin, the program is fetched from Debian sid (one package) into the cache.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$ROOT/compose"

fetched=$CACHE/docker-compose/usr/libexec/docker/cli-plugins/docker-compose
if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
else
    if [[ ! -x $fetched ]] && ! why=$("$ROOT/scripts/debian-sid.sh" --alone "$CACHE/docker-compose" docker-compose 2>&1); then
        echo "SKIPPED docker compose config: $(tail -n 1 <<<"$why")" >&2
        exit 0
    fi
    compose=("$fetched")
fi

"${compose[@]}" --env-file .env.example -f compose.yaml config --quiet
echo "compose/compose.yaml: valid"
