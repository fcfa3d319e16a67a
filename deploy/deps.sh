#!/usr/bin/env bash
# deps.sh - installs what building, testing and the demo need, by package name, on Debian 12 or newer.
#
# `deps.sh peers`: also the programs of others that `make bench-peers` measures. `deps.sh deb`: also what
# `make deb` needs.
# Does nothing when all is there. libraft-dev >= 0.22 comes from <codename>-backports where the
# release itself is older; that suite is added from the mirror that apt already uses here.
# Exit: 0 all there; 1 something could not be had (said on stderr); 2 wrong system.
set -euo pipefail

packages=(
  gcc g++ make pkg-config git
  liburing-dev libuv1-dev libraft-dev libssl-dev libsodium-dev libxxhash-dev libzstd-dev
  nanopb libnanopb-dev protobuf-compiler
  libfyaml-dev libjansson-dev libcmocka-dev
  libbpf-dev libxdp-dev bpftool
  clang libclang-rt-dev clang-format cppcheck
  python3 python3-protobuf python3-scapy
  iproute2 ethtool # the tests of several hosts, in network namespaces
  mount e2fsprogs # the tests with a full and a failing disk
  openssl # the tests of the certificates
)
if [ "${1-}" = peers ]; then
  packages+=(nats-server etcd-server libnghttp2-dev)
elif [ "${1-}" = deb ]; then
  packages+=(debhelper dpkg-dev fakeroot lintian)
fi
raft_min=0.22

say() { printf 'deps: %s\n' "$*" >&2; }

# What of the packages is not installed; a libraft that is too old counts as not installed. A compiler
# that is there under another package's name will do.
find_missing() {
  local -A have=()
  local p v status
  while read -r p status v; do
    [ "$status" != installed ] || have[${p%%:*}]=$v
  done < <(dpkg-query -W -f '${Package} ${db:Status-Status} ${Version}\n' "${packages[@]}" 2>/dev/null)
  missing=()
  for p in "${packages[@]}"; do
    case $p in
      libraft-dev) [ -n "${have[$p]-}" ] && dpkg --compare-versions "${have[$p]}" ge "$raft_min" ;;
      gcc | g++ | clang | clang-format) command -v "$p" >/dev/null ;;
      *) [ -n "${have[$p]-}" ] ;;
    esac || missing+=("$p")
  done
}

find_missing
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null || { say "needs Debian 12 or newer (no apt-get here); install by hand: ${missing[*]}"; exit 2; }
sudo=()
if [ "$(id -u)" != 0 ]; then
  { command -v sudo >/dev/null && sudo true; } || { say "needs root or sudo to install: ${missing[*]}"; exit 1; }
  sudo=(sudo)
fi
apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# An update that fetched only a part of the lists ends with 0, and says so with a W: or an E:.
update() {
  if ! "${apt[@]}" update >"$log" 2>&1 || grep -qE '^[WE]: (Failed|Some)' "$log"; then
    say "apt-get update failed; going on with the lists at hand:"
    grep -E '^[WE]:' "$log" | head -n 5 >&2 || true
  fi
}

say "installing: ${missing[*]}"
update

candidate() { apt-cache policy "$1" | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'; }

newest_raft() {
  local v
  for v in $(apt-cache madison libraft-dev | awk -F'|' '{ gsub(/ /, "", $2); print $2 }'); do
    if dpkg --compare-versions "$v" ge "$raft_min"; then printf '%s\n' "$v"; return; fi
  done
}

# Adds <codename>-backports from the mirror that serves <codename> itself.
backports=/etc/apt/sources.list.d/sluice-backports.sources
add_backports() {
  local id codename mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  # shellcheck disable=SC1091 # that file is the system's
  read -r id codename < <(. /etc/os-release && printf '%s %s\n' "$ID" "${VERSION_CODENAME-}")
  if [ "$id" != debian ] || [ -z "$codename" ]; then
    say "knows where to find a newer libraft only for Debian's releases"
    return 1
  fi
  # shellcheck disable=SC2016 # apt-get's names, not the shell's
  mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' |
    awk -v c="$codename" '$2 == c && $3 == "main" { print $1; exit }')
  [ -n "$mirror" ] || { say "found no mirror of $codename among apt's sources"; return 1; }
  say "adding $codename-backports from $mirror ($backports)"
  {
    printf 'Types: deb\nURIs: %s\nSuites: %s-backports\nComponents: main\n' "$mirror" "$codename"
    [ ! -e $keyring ] || printf 'Signed-By: %s\n' "$keyring"
  } | "${sudo[@]}" tee "$backports" >/dev/null
  update
  [ -n "$(newest_raft)" ] || { "${sudo[@]}" rm -f "$backports"; return 1; }
}

todo=()
for p in "${missing[@]}"; do
  if [ "$p" != libraft-dev ]; then
    [ -z "$(candidate "$p")" ] || todo+=("$p")
    continue
  fi
  v=$(newest_raft)
  [ -n "$v" ] || { add_backports && v=$(newest_raft); } || true
  [ -n "$v" ] || continue
  # The library comes from the same suite as its header.
  so=$(apt-cache show "libraft-dev=$v" | sed -nE 's/^Depends:.*\b(libraft[0-9][^ ,]*) .*/\1/p')
  todo+=("libraft-dev=$v" "$so=$v")
done
if [ ${#todo[@]} -gt 0 ] && ! "${apt[@]}" install -y --no-install-recommends "${todo[@]}" >"$log" 2>&1; then
  say "apt-get install failed:"
  tail -n 20 "$log" >&2
fi
find_missing
if [ ${#missing[@]} -gt 0 ]; then
  say "could not get: ${missing[*]/#libraft-dev/libraft-dev (>= $raft_min)}"
  exit 1
fi
say "all there"
