# lib.sh - what both forms of the demo share: what they say, how long things live, how a node starts.
#
# To be set before: $bin, the build directory, and $work, a temporary directory.
# shellcheck shell=bash disable=SC2034 # much is of use only to those who source this

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=/usr/bin/python3
udp_events=1000000 udp_batch=10 udp_rate=60000 # events; in datagrams of up to ten
tcp_events=100000 tcp_rate=10000

# What is started so ends when its parent does, however that ends.
tied=(setpriv --pdeathsig KILL --)

wrong=0
section() { printf '\n== %s\n' "$*"; }
oops() { printf '  WRONG: %s\n' "$*"; wrong=1; }
fatal() { printf '\ndemo: %s\n' "$*" >&2; [ ! -s "$work/log" ] || tail -n 5 "$work/log" >&2; exit 1; }
sluice() { "$bin/sluice" "$@"; }
number() { # number FILE KEY...: a member of a JSON document; what is not there is 0
  "$python" -c 'import json, sys
v = json.load(open(sys.argv[1]))
for k in sys.argv[2:]: v = v[int(k)] if isinstance(v, list) else v.get(k, 0)
print("%.0f" % v)' "$@"
}

# In $node; its configuration is $work/sluiced.yaml. In a session of its own, as a service would be: the
# scheduler then weighs it against what else runs, and not against its own producers.
start_node() {
  export SLUICE_SOCKET=$work/data/admin.sock
  "${tied[@]}" setsid "$bin/sluiced" --config "$work/sluiced.yaml" >"$work/log" 2>&1 &
  node=$!
  pids+=("$node")
  for _ in $(seq 500); do
    sluice status >"$work/status" 2>/dev/null && break
    kill -0 "$node" 2>/dev/null || fatal "sluiced did not start"
    sleep 0.02
  done
  [ -s "$work/status" ] || fatal "sluiced does not answer"
}

# start_wanted ADDRESS:PORT: a stream over UDP and one over TCP, by "${sender[@]}".
start_wanted() {
  "${sender[@]}" "$bin/sluice" send --generate $udp_events --udp --batch $udp_batch --rate $udp_rate \
    --run 1 --source demo-udp --address "$1" --json-summary --quiet >"$work/udp.json" 2>"$work/udp.err" &
  udp=$!
  "${sender[@]}" "$bin/sluice" send --generate $tcp_events --rate $tcp_rate --batch 50 \
    --run 2 --source demo-tcp --address "$1" --receipts-file "$work/receipts" --json-summary --quiet \
    >"$work/tcp.json" 2>"$work/tcp.err" &
  tcp=$!
  pids+=("$udp" "$tcp")
}

finish_wanted() {
  wait "$udp" || oops "sluice send --udp: $(tail -n 1 "$work/udp.err")"
  wait "$tcp" || oops "sluice send over TCP: $(tail -n 1 "$work/tcp.err")"
}

# Until so many datagrams have been seen and nothing is in flight, or nothing moves any more.
wait_for_datagrams() {
  for _ in $(seq 250); do
    sluice ledger --json >"$work/ledger.json" || true
    [ "$(number "$work/ledger.json" datagrams seen)" -ge "$1" ] &&
      [ "$(number "$work/ledger.json" events total inFlight)" = 0 ] && break
    sleep 0.02
  done
}

say_goodput() {
  printf '  UDP   %8d events/s   %s events in %s datagrams\n' \
    "$(number "$work/udp.json" events_per_s)" $udp_events "$(number "$work/udp.json" batches)"
  printf '  TCP   %8d events/s   a receipt after %d us (median), %d us (99 %%): on disk by then\n' \
    "$(number "$work/tcp.json" events_per_s)" "$(number "$work/tcp.json" receipt_latency_us p50)" \
    "$(number "$work/tcp.json" receipt_latency_us p99)"
}

# check_events RUN:SOURCE:COUNT...: reads all events back; $work/there.json is how many of each run.
check_events() {
  local begun=$EPOCHREALTIME
  sluice tail --from first --no-follow --json |
    "$python" "$here/check.py" events "$@" --receipts "$work/receipts" --receipted $tcp_events \
      --there "$work/there.json" || wrong=1
  awk -v a="$begun" -v b="$EPOCHREALTIME" -v n="$(number "$work/ledger.json" log events)" \
    'BEGIN { printf "  read back and checked in %.1f s, %d events/s\n", b - a, n / (b - a) }'
}

# stop_and_verify EVENTS: the end of the node, and what it has left.
stop_and_verify() {
  section "The node stops; its log is checked offline, every checksum and the hash chain"
  sluice status | grep -E '^(log|events|disk|digest|dedupe|memory)' | sed 's/^/  /' || true
  kill -TERM "$node"
  wait "$node" || oops "sluiced ended with $?"
  pids=()
  sluice log verify "$work/data" >"$work/verify" || oops "sluice log verify found problems"
  sed 's/^/  /' "$work/verify"
  [ "$(awk '$1 == "events" { gsub(/[^0-9]/, "", $2); print $2 }' "$work/verify")" = "$1" ] ||
    oops "the log does not hold all events"
}

# the_end BEGUN
the_end() {
  awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "\n%.0f s. ", b - a }'
  [ $wrong = 0 ] || { echo "Something is WRONG: see above."; exit 1; }
  echo "All accounts balance: nothing lost, nothing twice, nothing unexplained."
}
