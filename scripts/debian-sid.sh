#!/usr/bin/env bash
# Unpacks packages of Debian sid into a folder, without installing anything: the system's apt lists and package status
# stay untouched. For programs that Debian's stable release does not have.
#
#   debian-sid.sh TARGET PACKAGE...          with all they depend on, libc included
#   debian-sid.sh --alone TARGET PACKAGE...  only these
set -euo pipefail

alone=
if [[ $1 = --alone ]]; then
    alone=1
    shift
fi
target=$1
shift

# The mirror this machine's apt uses already, whatever it is.
mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "Debian" && $2 == "Debian" && !uri { uri = $3 } END { print uri }')
[[ -n $mirror ]] || { echo "apt knows no Debian mirror (run apt-get update?)" >&2; exit 1; }

apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
touch "$apt/status" # an empty package status makes apt fetch every dependency
architecture=$(dpkg --print-architecture)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$apt/sid.list"
cat >"$apt/apt.conf" <<CONF
Dir::Etc::SourceList "$apt/sid.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Architecture "$architecture";
APT::Architectures {"$architecture";};
APT::Sandbox::User "root";
Acquire::Languages "none";
CONF
export APT_CONFIG=$apt/apt.conf
apt-get update -qq
cd "$apt/cache/archives"
if [[ -n $alone ]]; then
    apt-get download -qq "$@"
else
    apt-get install -y -qq --no-install-recommends --download-only "$@" >/dev/null
fi
mkdir -p "$target"
for package in *.deb; do dpkg -x "$package" "$target"; done
