#!/usr/bin/env bash
# run.sh DIR SECONDS - fuzzes every target in DIR from its corpus. New inputs are kept only when they crash:
# the file is left in the current folder and named in the output.
set -uo pipefail
dir=$1 seconds=$2 rc=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for t in "$dir"/fuzz_*; do
  [ -x "$t" ] || continue
  case $t in *.d | *.o) continue ;; esac
  name=$(basename "$t")
  mkdir -p "$work/$name"
  if out=$("$t" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
      -artifact_prefix="crash-$name-" "$work/$name" "tests/fuzz/corpus/${name#fuzz_}" 2>&1); then
    printf 'fuzz %-16s %s runs, %s inputs kept\n' "${name#fuzz_}" \
      "$(sed -n 's/^stat::number_of_executed_units: *//p' <<<"$out")" "$(find "$work/$name" -type f | wc -l)"
  else
    printf 'fuzz %-16s CRASHED\n' "${name#fuzz_}"
    grep -aE -m 5 'Assertion|runtime error|ERROR:' <<<"$out"
    tail -n 40 <<<"$out"
    rc=1
  fi
done
exit $rc
