#!/usr/bin/env bash
# deps.sh - installs what building, testing and the demo need, by package name, on Debian 12 or newer.
#
# Does nothing when all is there. libraft-dev >= 0.22 comes from <codename>-backports where the
# release itself is older; that suite is added from the mirror that apt already uses here.
# Exit: 0 all there; 1 something could not be had (said on stderr); 2 wrong system.
set -euo pipefail

packages=(
  gcc g++ make pkg-config git
  liburing-dev libuv1-dev libraft-dev libssl-dev libsodium-dev libxxhash-dev
  nanopb libnanopb-dev protobuf-compiler
  libfyaml-dev libjansson-dev libcmocka-dev
  clang libclang-rt-dev clang-format cppcheck
  python3 python3-protobuf nodejs
  iproute2 util-linux psmisc
)
raft_min=0.22

say() { printf 'deps: %s\n' "$*" >&2; }

installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

raft_ok() {
  local have
  have=$(dpkg-query -W -f '${Version}' libraft-dev 2>/dev/null) || return 1
  dpkg --compare-versions "$have" ge "$raft_min"
}

# What the machine already has under another name (a Node.js that is not Debian's package) counts.
wanted() {
  case "$1" in
    nodejs) ! command -v node >/dev/null ;;
    clang) ! command -v clang >/dev/null ;;
    libraft-dev) ! raft_ok ;;
    *) ! installed "$1" ;;
  esac
}

missing=()
for p in "${packages[@]}"; do
  if wanted "$p"; then missing+=("$p"); fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null || { say "needs a Debian system (no apt-get here); install by hand: ${missing[*]}"; exit 2; }
sudo=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { say "needs root or sudo to install: ${missing[*]}"; exit 1; }
  sudo=(sudo)
fi
apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0)

say "installing: ${missing[*]}"
"${apt[@]}" update >/dev/null || say "apt-get update failed; going on with the lists at hand"

candidate() { apt-cache policy "$1" | awk '$1 == "Candidate:" { print $2 }'; }

raft_versions() { apt-cache madison libraft-dev | awk -F'|' '{ gsub(/ /, "", $2); print $2 }'; }

# Adds <codename>-backports from the mirror that serves <codename> itself.
add_backports() {
  local codename mirror keyring
  codename=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
  mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT) $(CREATED_BY)' |
    awk -v c="$codename" '$2 == c && $3 == "main" { print $1; exit }')
  [ -n "$mirror" ] || { say "found no mirror of $codename among apt's sources"; return 1; }
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  printf 'Types: deb\nURIs: %s\nSuites: %s-backports\nComponents: main\n%s' "$mirror" "$codename" \
    "$([ -e $keyring ] && printf 'Signed-By: %s\n' "$keyring")" |
    "${sudo[@]}" tee "/etc/apt/sources.list.d/$codename-backports.sources" >/dev/null
  "${apt[@]}" update >/dev/null
}

newest_raft() { raft_versions | while read -r v; do
  if dpkg --compare-versions "$v" ge "$raft_min"; then printf '%s\n' "$v"; break; fi; done; }

todo=() lost=()
for p in "${missing[@]}"; do
  if [ "$p" = libraft-dev ]; then
    v=$(newest_raft)
    [ -n "$v" ] || { add_backports && v=$(newest_raft); } || true
    # The library comes from the same suite as its header.
    if [ -n "$v" ]; then todo+=("libraft-dev=$v" "libraft0=$v"); else lost+=("libraft-dev (>= $raft_min)"); fi
  elif c=$(candidate "$p") && [ -n "$c" ] && [ "$c" != "(none)" ]; then
    todo+=("$p")
  else
    lost+=("$p")
  fi
done
if [ ${#todo[@]} -gt 0 ] && ! "${apt[@]}" install -y --no-install-recommends "${todo[@]}" >/tmp/sluice-deps.$$ 2>&1; then
  tail -n 20 /tmp/sluice-deps.$$ >&2
  for p in "${todo[@]%%=*}"; do installed "$p" || lost+=("$p"); done
fi
rm -f /tmp/sluice-deps.$$
raft_ok || [[ " ${lost[*]-} " == *libraft-dev* ]] || lost+=("libraft-dev (>= $raft_min)")
if [ ${#lost[@]} -gt 0 ]; then
  say "could not get: ${lost[*]}"
  exit 1
fi
say "all there"
