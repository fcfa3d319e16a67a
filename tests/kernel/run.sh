#!/usr/bin/env bash
# run.sh - the oldest kernel that Sluice is for: Debian 12's Linux 6.1, in QEMU, without installing it.
#
#   tests/kernel/run.sh [SECTION...]   what checks.sh does there: unit, alone, dispatcher, fallback
#
# The kernel, busybox and xdp-loader are fetched by `apt-get download` and unpacked under build/kernel; with
# the binaries of SLUICE_BIN (default build/release, no sanitizers) and the libraries that they need they
# make an initramfs. The machine is emulated: some minutes on an idle host, more on a busy one;
# SLUICE_KERNEL_S (5400) seconds are the limit.
# Exit: 0, 1, or 77 with a reason when QEMU or a package cannot be had, and with SLUICE_MODE=quick.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${SLUICE_BIN:-build/release}
store=build/kernel
unit=(delivery differential packet policy source threads walk campaign) # not peers: that needs Python

skip() { printf '%s\n' "$*"; exit 77; }

[ "${SLUICE_MODE-full}" = full ] || skip "a kernel of its own only in full mode"
[ "$(uname -m)" = x86_64 ] || skip "knows how to boot x86-64 only"
command -v qemu-system-x86_64 >/dev/null || skip "qemu-system-x86_64 is not installed (package qemu-system-x86)"
command -v apt-get >/dev/null || skip "no apt-get here, to fetch Linux 6.1 with"
meta=linux-image-cloud-amd64
image=$(apt-cache depends $meta 2>/dev/null | sed -nE 's/^ *Depends: (linux-image-6\.1\..*)$/\1/p')
[ -n "$image" ] || skip "apt knows no Linux 6.1: $meta is $(apt-cache policy $meta | awk '$1 == "Candidate:" { print $2 }')"

work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-kernel.XXXXXX")
trap 'rm -rf "$work"' EXIT

# unpacked PACKAGE: into $store/PACKAGE, once.
unpacked() {
  local to=$store/$1
  [ ! -d "$to" ] || return 0
  mkdir -p "$work/$1"
  (cd "$work/$1" && apt-get -q download "$1") >"$work/apt" 2>&1 ||
    skip "apt-get cannot download $1: $(grep -m 1 '^E:' "$work/apt")"
  mkdir -p "$to.part"
  dpkg-deb -x "$work/$1"/*.deb "$to.part"
  mv "$to.part" "$to"
}
for package in "$image" busybox-static xdp-tools; do unpacked "$package"; done

make -s -j"$(nproc)" BUILD="${bin##*/}" all "${unit[@]/#/$bin/unit/test_xdp_}" "$bin/tests/kernel/neighbour.bpf.o"

# --- the initramfs ---------------------------------------------------------------------------------

tree=$work/tree
mkdir -p "$tree"/{bin,modules,sluice/tests/{kernel,e2e},"sluice/$bin"/{unit,tests/kernel}}

# program FILE [PLACE]: with the libraries that it is linked with.
program() {
  local to=$tree${2:-$1} library
  install -D "$1" "$to"
  ldd "$1" >"$work/ldd" 2>&1 || return 0 # it needs none
  ! grep 'not found' "$work/ldd" || skip "a library of $1 is not installed"
  while read -r library; do
    [ -e "$tree$library" ] || install -D "$library" "$tree$library"
  done < <(grep -oE '/[^ ]+\.so[^ ]*' "$work/ldd")
}
program $store/busybox-static/bin/busybox /bin/busybox
program "$store/xdp-tools/usr/sbin/xdp-loader" /usr/sbin/xdp-loader
for tool in bash ip bpftool setpriv; do
  file=$(PATH=$PATH:/usr/sbin:/sbin command -v $tool) || skip "$tool is not installed"
  program "$file" "/bin/$tool"
done
ln -s bash "$tree/bin/sh"
for file in sluiced sluice "${unit[@]/#/unit/test_xdp_}"; do program "$bin/$file" "/sluice/$bin/$file"; done
cp "$bin/tests/kernel/neighbour.bpf.o" "$tree/sluice/$bin/tests/kernel/"
cp tests/kernel/checks.sh "$tree/sluice/tests/kernel/"
cp tests/e2e/lib.sh "$tree/sluice/tests/e2e/"
cp tests/kernel/init.sh "$tree/init"
chmod +x "$tree/init"
cp "$store/$image"/lib/modules/*/kernel/drivers/net/{veth,dummy}.ko "$tree/modules/"
# What libxdp loads as the dispatcher.
dispatcher=$(ls /usr/lib/*/bpf/xdp-dispatcher.o 2>/dev/null) || skip "xdp-dispatcher.o is not installed (package libxdp1)"
install -D "$dispatcher" "$tree$dispatcher"
printf '%s\n' "$*" >"$tree/sections"
(cd "$tree" && find . | "$OLDPWD/$store/busybox-static/bin/busybox" cpio -o -H newc 2>/dev/null) |
  gzip -1 >"$work/initramfs"

# --- the machine -----------------------------------------------------------------------------------

timeout --foreground --kill-after=10 "${SLUICE_KERNEL_S:-5400}" qemu-system-x86_64 -machine q35 -accel tcg -cpu max \
  -smp 1 -m 1536 -display none -monitor none -serial stdio -nic none -no-reboot \
  -kernel "$store/$image"/boot/vmlinuz-* -initrd "$work/initramfs" \
  -append "console=ttyS0 quiet panic=-1" </dev/null 2>&1 |
  sed -u 's/\r$//' | tee "$work/console" ||
  { echo "the machine was not done within ${SLUICE_KERNEL_S:-5400} s"; exit 1; }
rc=$(sed -nE 's/^checks ended with ([0-9]+)$/\1/p' "$work/console")
[ -n "$rc" ] || { echo "the machine has ended before its checks"; exit 1; }
[ "$rc" = 0 ] || exit 1
