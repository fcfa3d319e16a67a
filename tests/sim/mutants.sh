#!/usr/bin/env bash
# mutants.sh - plants a bug at a time and looks how many seeds the simulator needs to find it.
#
#   tests/sim/mutants.sh [SEEDS] [NAME...]    at most SEEDS (4000) each; all of tests/sim/mutants.txt
#
# Prints a line for each; exit 1 when one was not found.
set -uo pipefail
cd "$(dirname "$0")/../.."
seeds=${1:-4000}
shift $(($# > 0))
rc=0
mapfile -t names < <(if [ $# -gt 0 ]; then printf '%s\n' "$@"; else awk '!/^(#|$)/ { print $1 }' tests/sim/mutants.txt; fi)
for name in "${names[@]}"; do
  make -s -j"$(nproc)" BUILD=release PLANT="$name" "build/release-$name/sim" >/dev/null || { rc=1; continue; }
  said=$("build/release-$name/sim" -s 1 -n "$seeds" -1 2>&1 | grep -E '^seed ' | head -n 1)
  if [ -n "$said" ]; then
    printf 'found      %-20s %s\n' "$name" "$(tr -s ' ' <<<"$said" | cut -c1-110)"
  else
    printf 'NOT FOUND  %-20s in %s seeds\n' "$name" "$seeds"
    rc=1
  fi
done
exit $rc
