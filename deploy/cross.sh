#!/usr/bin/env bash
# cross.sh - builds for arm64 on amd64, with the libraries of Debian's arm64, which are kept apart from this system's:
# `deploy/cross.sh [TARGET...]` (default: all, and a test of what the processor's own instructions do).
#
# The packages are fetched from the mirrors that apt uses here into build/sysroot-arm64; what this system has installed
# stays as it is, but for the compiler and the emulator, which are installed if they are missing.
# Exit: 0 built, and it runs in the emulator; 1 not.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD/build/sysroot-arm64
packages=(liburing-dev libuv1-dev libraft-dev libssl-dev libsodium-dev libxxhash-dev libzstd-dev libnanopb-dev libfyaml-dev
  libjansson-dev libcmocka-dev libbpf-dev libxdp-dev linux-libc-dev)
tools=(gcc-aarch64-linux-gnu qemu-user-static)

say() { printf 'cross: %s\n' "$*" >&2; }

deploy/deps.sh
missing=()
for p in "${tools[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
if [ ${#missing[@]} -gt 0 ]; then
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

# An apt of its own: another architecture, another state, the same sources and keys.
if [ ! -e "$root/complete" ]; then
  rm -rf "$root"
  mkdir -p "$root"/apt/{lists/partial,archives/partial}
  : >"$root/apt/status"
  apt=(-q -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::State="$root/apt" -o Dir::State::lists="$root/apt/lists"
    -o Dir::State::status="$root/apt/status" -o Dir::Cache="$root/apt" -o Dir::Cache::archives="$root/apt/archives"
    -o APT::Sandbox::User=root -o APT::Install-Recommends=false)
  # Sources of others may have nothing for that architecture.
  apt-get "${apt[@]}" update >"$root/log" 2>&1 || true
  wanted=()
  for p in "${packages[@]}"; do
    [ "$p" = libraft-dev ] || { wanted+=("$p"); continue; }
    v=$(apt-cache "${apt[@]}" madison libraft-dev | awk -F'|' '{ gsub(/ /, "", $2); print $2 }' | head -n 1)
    so=$(apt-cache "${apt[@]}" show "libraft-dev=$v" | sed -nE 's/^Depends:.*\b(libraft[0-9][^ ,]*) .*/\1/p')
    wanted+=("libraft-dev=$v" "$so=$v")
  done
  apt-get "${apt[@]}" -y --download-only install "${wanted[@]}" >>"$root/log" 2>&1 || { tail -n 20 "$root/log" >&2; exit 1; }
  for deb in "$root"/apt/archives/*.deb; do dpkg-deb -x "$deb" "$root"; done
  rm -rf "$root/apt"
  touch "$root/complete"
fi

export PKG_CONFIG_LIBDIR=$root/usr/lib/aarch64-linux-gnu/pkgconfig:$root/usr/share/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root
targets=("$@")
build=build/release-aarch64
[ ${#targets[@]} -gt 0 ] || targets=(all "$build/unit/test_hash")
make -s -j"$(nproc)" BUILD=release ARCH=aarch64 CC=aarch64-linux-gnu-gcc SYSROOT="$root" "${targets[@]}"
[ $# -eq 0 ] || exit 0
run=(qemu-aarch64-static -L "$root" -E "LD_LIBRARY_PATH=$root/lib/aarch64-linux-gnu:$root/usr/lib/aarch64-linux-gnu")
for program in sluiced sluice; do
  file=$(od -An -tx2 -j18 -N2 "$build/$program" | tr -d ' ')
  [ "$file" = 00b7 ] || { say "$build/$program is not for arm64"; exit 1; } # EM_AARCH64
  "${run[@]}" "$build/$program" --version
done
"${run[@]}" "$build/unit/test_hash" 2>&1 | tail -n 1
say "built for arm64: $build"
