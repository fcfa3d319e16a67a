#!/usr/bin/env bash
# make.sh - builds Debian packages of what is committed here into build/deb, and has lintian look at them.
#
# Exit 1 when a package cannot be built, or lintian finds an error or a warning.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$PWD/build/deb
rm -rf "$out"
mkdir -p "$out/sluice"
git archive HEAD | tar -x -C "$out/sluice"
cp -r deploy/debian "$out/sluice/debian"
rm "$out/sluice/debian/make.sh"
version=$(sed -n 's/^#define SLUICE_VERSION "\(.*\)"/\1/p' userspace/client/sluice.h)
if ! grep -q "^sluice ($version)" deploy/debian/changelog; then
  echo "deploy/debian/changelog does not begin with version $version" >&2
  exit 1
fi
if ! (cd "$out/sluice" && dpkg-buildpackage -us -uc -b -j"$(nproc)") >"$out/log" 2>&1; then
  tail -n 30 "$out/log" >&2
  exit 1
fi
rm -rf "$out/sluice"
lintian --fail-on error,warning --tag-display-limit 0 "$out"/*.changes
ls -1 "$out"/*.deb
