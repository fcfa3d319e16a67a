#!/usr/bin/env bash
# tidy.sh - style, layout and dependency direction, as STYLE.md says. Prints what falls short; exit 1 then.
set -uo pipefail
cd "$(dirname "$0")/.."
rc=0
bad() { printf '%s\n' "$*"; rc=1; }

mapfile -t all < <(git ls-files '*.c' '*.h')
mapfile -t source < <(git ls-files 'userspace/*.[ch]' 'cluster/*.[ch]' 'bpf/*.[ch]')

# Sizes: a file <= 800 lines, a line <= 100 columns, a function <= 70 lines; an opening comment says what for.
while read -r line; do bad "$line"; done < <(awk '
  FNR == 1 { if ($0 !~ /^\/\*/) print FILENAME ": does not open with what it is for"; start = 0 }
  length($0) > 100 { print FILENAME ":" FNR ": " length($0) " columns" }
  FNR == 801 { print FILENAME ": more than 800 lines" }
  /^[a-z_].*[a-z0-9_]\(/ || /^[a-z].*\)$/ { head = FNR; name = $0 }
  /^{$/ { start = FNR }
  /^}$/ { if (start && FNR - start - 1 > 70) print FILENAME ":" start ": function of " FNR - start - 1 " lines"; start = 0 }
' "${all[@]}")

if command -v clang-format >/dev/null; then
  out=$(clang-format --dry-run "${all[@]}" 2>&1 | grep -E 'warning:' | cut -d: -f1 | sort | uniq -c)
  [ -z "$out" ] || bad "clang-format: files and places:"$'\n'"$out"
else
  bad "clang-format is not installed (deploy/deps.sh)"
fi

# Who may include whom. Ingest stages share headers, but only stages.c knows their order.
includes() { # includes FOLDER ALLOWED-REGEX
  local hit
  hit=$(git ls-files "$1/*.c" "$1/*.h" | xargs -r grep -nE '^#include "' | grep -vE "#include \"($2)" || true)
  [ -z "$hit" ] || bad "$1 may not include:"$'\n'"$hit"
}
includes bpf '[a-z]+(\.bpf)?\.h"$'
includes userspace/base 'base/|proto/'
includes cluster 'cluster/|base/|proto/'
includes userspace/ingest 'ingest/|bpf/|base/|proto/|cluster/(cluster|block)\.h'
includes userspace/store 'store/|base/|proto/|cluster/(cluster|block|log)\.h'
includes userspace/serve 'serve/|store/|base/|proto/|cluster/(cluster|block|log)\.h'
includes userspace/client 'client/|base/|proto/'
includes userspace/cli 'cli/|client/|serve/|store/|base/|proto/|cluster/(block|log)\.h'
hit=$(grep -lE '#include <(uv|raft)\.h>' "${source[@]}" | grep -v '^cluster/' || true)
[ -z "$hit" ] || bad "only cluster/ knows libuv and libraft: $hit"
hit=$(grep -lE '#include <(bpf|xdp)/|skel\.h"' "${source[@]}" | grep -vE '^(bpf/|userspace/ingest/(attach|afxdp|prefilter)\.c)' || true)
[ -z "$hit" ] || bad "only ingest/attach.c, prefilter.c and afxdp.c know libbpf and libxdp: $hit"
hit=$(grep -lE '#include <liburing\.h>' "${source[@]}" | grep -vE '^(cluster/disk_uring\.c|userspace/ingest/)' || true)
[ -z "$hit" ] || bad "liburing belongs to ingest/ and cluster/disk_uring.c: $hit"

# At least 20 assertions per 1,000 lines in cluster/ and base/. The aim for tests is one line per line of source.
for f in cluster userspace/base; do
  mapfile -t files < <(git ls-files "$f/*.c")
  lines=$(cat "${files[@]}" | wc -l)
  asserts=$(cat "${files[@]}" | grep -cE '\b(assert|_Static_assert)\(')
  [ $((asserts * 1000)) -ge $((lines * 20)) ] || bad "$f: $asserts assertions in $lines lines (wanted: 20 per 1,000)"
done
have=$(git ls-files 'tests/*.c' 'tests/*.h' 'tests/*.py' 'tests/*.sh' | xargs cat | wc -l)
want=$(cat "${source[@]}" | wc -l)
echo "tidy: $have lines of tests for $want lines of source"

# Habits.
hit=$(grep -nE '\b(TODO|FIXME)\b' "${all[@]}" || true)
[ -z "$hit" ] || bad "unfinished:"$'\n'"$hit"
hit=$(grep -nE '\b(strcat|sprintf|gets|strtok)\(' "${source[@]}" || true)
[ -z "$hit" ] || bad "unbounded string functions:"$'\n'"$hit"
hit=$(grep -nE '\b(sleep|usleep)\(' $(git ls-files 'tests/unit/*.c' 'tests/lib/*.c') || true)
[ -z "$hit" ] || bad "a sleep in place of a condition:"$'\n'"$hit"

[ $rc -eq 0 ] && echo "tidy: all well"
exit $rc
