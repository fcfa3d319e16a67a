# lib.sh - what the end-to-end tests in shell share: a node in a temporary directory, and expectations.
#
# SLUICE_BIN names the build directory (default build/release), SLUICE_MODE is quick or full. A test says
# what it did, a line each; it ends at the first thing that is not as it should be (exit 1), or with 77
# and a reason when the machine does not let it run. Nothing waits for a time, only for a condition.
# With SLUICE_KEEP_GOING set a test goes on behind what is wrong, to find out what else is.
# shellcheck shell=bash
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${SLUICE_BIN:-build/release}
[[ $bin = /* ]] || bin=$root/$bin
# shellcheck disable=SC2034 # of use to those who source this
mode=${SLUICE_MODE:-quick}
python=/usr/bin/python3
wait_s=${SLUICE_WAIT_S:-60} # sanitizers and busy machines are slow; nothing that works comes near this

work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-e2e.XXXXXX")
node='' background=()
data=$work/data
export SLUICE_SOCKET=$work/admin.sock

failed=0
clean_up() {
  local rc=${1-$?}
  local p
  [ "$rc" != 0 ] || rc=$failed
  # shellcheck disable=SC2015 # killed or not: on to the next
  for p in $node "${background[@]}"; do kill -9 "$p" 2>/dev/null && wait "$p" 2>/dev/null || true; done
  if [ "$rc" != 0 ] && [ "$rc" != 77 ] && [ -s "$work/log" ]; then
    echo "--- last words of sluiced:"
    tail -n 15 "$work/log"
  fi
  rm -rf "$work"
  exit "$rc"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# not_so DEPTH SENTENCE: what is wrong, and where in the test (DEPTH callers up).
not_so() {
  printf 'FAIL %s:%s: %s\n' "${BASH_SOURCE[$1 + 1]##*/}" "${BASH_LINENO[$1]}" "$2"
  failed=1
  [ -n "${SLUICE_KEEP_GOING-}" ] || exit 1
}
fail() { not_so 1 "$*"; }
skip() { printf '%s\n' "$*"; exit 77; }
done_with() { printf 'ok   %s\n' "$*"; }
sluice() { "$bin/sluice" "$@"; }

# expect GOT WANTED WHAT
expect() { [ "$1" = "$2" ] || not_so 1 "$3: got '$1', wanted '$2'"; }

# exits CODE COMMAND...: runs it, its output goes to $work/out and $work/err; fails unless it ends so.
exits() {
  local wanted=$1 rc=0
  shift
  "$@" >"$work/out" 2>"$work/err" </dev/null || rc=$?
  [ "$rc" = "$wanted" ] ||
    not_so 1 "exit $rc instead of $wanted: $*"$'\n'"$(head -c 2000 "$work/out" "$work/err")"
}

# says PATTERN: the output or the errors of the last `exits` match it.
says() {
  grep -qE -- "$1" "$work/out" "$work/err" ||
    not_so 1 "nothing like '$1' in:"$'\n'"$(head -c 2000 "$work/out" "$work/err")"
}

# until_true WHAT COMMAND...: waits for the command to succeed.
until_true() {
  local what=$1 end=$((SECONDS + wait_s))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { not_so 1 "not within $wait_s s: $what"; exit 1; }
    sleep 0.02
  done
}

# json FILE KEY...: a member of a JSON document, as text.
json() {
  "$python" -c 'import json, sys
v = json.load(open(sys.argv[1]))
for k in sys.argv[2:]:
    v = v[int(k)] if isinstance(v, list) else v[k]
print(v if isinstance(v, str) else json.dumps(v))' "$@"
}

free_port() {
  "$python" -c 'import random, socket
while True:
    port, taken = random.randrange(10000, 32000), []
    try:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                taken.append(socket.socket(family, kind))
                taken[-1].bind((host, port))
    except OSError:
        continue
    print(port)
    break'
}
port=${SLUICE_PORT:-$(free_port)}
# shellcheck disable=SC2034
to=127.0.0.1:$port

# configure [SECTION-YAML]: a configuration with the test's own paths and port; `ingest` is written here,
# so what the test adds to it goes into $ingest_more (indented by two).
ingest_more=
configure() {
  cat >"$work/sluiced.yaml" <<YAML
data:
  dir: $data
admin:
  socket: $SLUICE_SOCKET
ingest:
  port: $port
$ingest_more
${1-}
YAML
}

launch_node() { "$bin/sluiced" --config "$work/sluiced.yaml" >>"$work/log" 2>&1 & node=$!; }

start_node() {
  local end=$((SECONDS + wait_s))
  launch_node
  until sluice status >/dev/null 2>&1; do
    kill -0 "$node" 2>/dev/null || { not_so 1 "sluiced ended when it should start"; exit 1; }
    [ $SECONDS -lt $end ] || { not_so 1 "sluiced does not answer within $wait_s s"; exit 1; }
    sleep 0.02
  done
}

# ended WANTED WHAT: the node ends by itself, with this exit code.
ended() {
  local rc=0 end=$((SECONDS + wait_s))
  while kill -0 "$node" 2>/dev/null; do
    [ $SECONDS -lt $end ] || { not_so 1 "sluiced goes on: $2"; exit 1; }
    sleep 0.02
  done
  wait "$node" || rc=$?
  node=
  [ "$rc" = "$1" ] || not_so 1 "exit $rc of sluiced instead of $1: $2"
}

stop_node() { kill -TERM "$node"; ended 0 "after SIGTERM"; }
kill_node() { kill -KILL "$node"; wait "$node" 2>/dev/null || true; node=; }

# The account, once nothing is in flight, in $work/ledger.json.
ledger_quiet() {
  sluice ledger --json >"$work/ledger.json" || [ $? = 1 ] || return 1
  [ "$(json "$work/ledger.json" events total inFlight)" = 0 ]
}
ledger() {
  until_true "nothing is in flight" ledger_quiet
  exits 0 sluice ledger
}
