#!/usr/bin/env bash
# demo.sh - a node at work: a million events over UDP and 100,000 with receipts over TCP, among them
# hostile datagrams of every kind; then an account of all of them. `make demo` builds and runs it.
#
#   demo.sh BIN_DIR
#
# Needs no privileges; everything happens on loopback, under a temporary directory that is removed again.
# Exit 0 only if every valid event is committed exactly once and where its receipt says, every hostile
# datagram is counted under its reason, nothing was lost, and both ledgers balance.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "${1:?usage: demo.sh BIN_DIR}" && pwd)
python=/usr/bin/python3
udp_events=1000000 udp_batch=10 udp_rate=60000 # events; in datagrams of up to ten
tcp_events=100000 tcp_rate=10000
hostile_each=200 hostile_rate=2500
dropped_type=100 # the settings name it and drop it

work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-demo.XXXXXX")
pids=()
clean_up() {
  for p in "${pids[@]}"; do kill -9 "$p" 2>/dev/null || true; done
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

wrong=0
section() { printf '\n== %s\n' "$*"; }
oops() { printf '  WRONG: %s\n' "$*"; wrong=1; }
fatal() { printf '\ndemo: %s\n' "$*" >&2; [ ! -s "$work/log" ] || tail -n 5 "$work/log" >&2; exit 1; }
sluice() { "$bin/sluice" "$@"; }
number() { # number FILE KEY...: a member of a JSON document
  "$python" -c 'import json, sys
v = json.load(open(sys.argv[1]))
for k in sys.argv[2:]: v = v[k]
print("%.0f" % v)' "$@"
}

# A port that TCP and UDP have free on both loopbacks.
free_port() {
  "$python" -c 'import random, socket
while True:
    port, open_ = random.randrange(10000, 32000), []
    try:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                try:
                    open_.append(socket.socket(family, kind))
                except OSError:
                    continue  # a machine without IPv6
                open_[-1].bind((host, port))
    except OSError:
        continue
    print(port)
    break'
}

begun=$EPOCHREALTIME
port=$(free_port)
addresses='[127.0.0.1, "::1"]'
[ -e /proc/net/if_inet6 ] && grep -q 'lo$' /proc/net/if_inet6 || addresses='[127.0.0.1]'
cat >"$work/sluiced.yaml" <<YAML
data:
  dir: $work/data
ingest:
  address: $addresses
  port: $port
  udp:
    allow: [127.0.0.1/32]   # so 127.0.0.2 is a stranger
    buffers: 16384          # seconds of these datagrams, for disks that pause
YAML
export SLUICE_SOCKET=$work/data/admin.sock

section "A node starts (loopback, port $port)"
"$bin/sluiced" --config "$work/sluiced.yaml" >"$work/log" 2>&1 &
node=$!
pids+=("$node")
for _ in $(seq 500); do
  sluice status >"$work/status" 2>/dev/null && break
  kill -0 "$node" 2>/dev/null || fatal "sluiced did not start"
  sleep 0.02
done
[ -s "$work/status" ] || fatal "sluiced does not answer"
grep -E '^(node|role|started in|memory|listening)' "$work/status" | sed 's/^/  /'
sluice config set type.unwanted $dropped_type >/dev/null || fatal "a type cannot be named"
sluice config set admit.unwanted drop >/dev/null || fatal "a type cannot be dropped"

section "Events come: $udp_events over UDP, $tcp_events over TCP, hostile datagrams between them"
sluice send --generate $udp_events --udp --batch $udp_batch --rate $udp_rate --run 1 --source demo-udp \
  --address "127.0.0.1:$port" --json-summary --quiet >"$work/udp.json" 2>"$work/udp.err" &
udp=$!
sluice send --generate $tcp_events --rate $tcp_rate --run 2 --source demo-tcp --batch 50 \
  --address "127.0.0.1:$port" --receipts-file "$work/receipts" --json-summary --quiet \
  >"$work/tcp.json" 2>"$work/tcp.err" &
tcp=$!
"$python" "$here/hostile.py" --to "127.0.0.1:$port" --each $hostile_each --rate $hostile_rate \
  --denied-from 127.0.0.2 --dropped-type $dropped_type >"$work/hostile.json" &
hostile=$!
pids+=("$udp" "$tcp" "$hostile")
wait "$udp" || oops "sluice send --udp: $(tail -n 1 "$work/udp.err")"
wait "$tcp" || oops "sluice send over TCP: $(tail -n 1 "$work/tcp.err")"
wait "$hostile" || oops "hostile.py did not end well"
pids=("$node")

# Until all that was sent has been seen and nothing is in flight, or nothing moves any more.
sent_datagrams=$(number "$work/udp.json" batches)
all=$((sent_datagrams + $(number "$work/hostile.json" sent)))
for _ in $(seq 250); do
  sluice ledger --json >"$work/ledger.json" || true
  [ "$(number "$work/ledger.json" datagrams seen)" -ge "$all" ] &&
    [ "$(number "$work/ledger.json" events total inFlight)" = 0 ] && break
  sleep 0.02
done
printf '  UDP   %8d events/s   %s events in %s datagrams\n' \
  "$(number "$work/udp.json" events_per_s)" $udp_events "$sent_datagrams"
printf '  TCP   %8d events/s   a receipt after %d us (median), %d us (99 %%): on disk by then\n' \
  "$(number "$work/tcp.json" events_per_s)" "$(number "$work/tcp.json" receipt_latency_us p50)" \
  "$(number "$work/tcp.json" receipt_latency_us p99)"

section "The ledgers: what became of every datagram and every event"
sluice ledger | sed 's/^/  /' || oops "a ledger does not balance"

section "Is that what was sent?"
"$python" "$here/check.py" ledger --datagrams "$sent_datagrams" --events $((udp_events + tcp_events)) \
  --hostile "$work/hostile.json" <"$work/ledger.json" || wrong=1

section "Is every event there, exactly once, and where its receipt says?"
read_begun=$EPOCHREALTIME
sluice tail --from first --no-follow --json |
  "$python" "$here/check.py" events 1:demo-udp:$udp_events 2:demo-tcp:$tcp_events \
    --receipts "$work/receipts" --receipted $tcp_events || wrong=1
awk -v a="$read_begun" -v b="$EPOCHREALTIME" -v n=$((udp_events + tcp_events)) \
  'BEGIN { printf "  read back and checked in %.1f s, %d events/s\n", b - a, n / (b - a) }'

section "Some of them"
sluice tail --from first --no-follow --source demo-udp --count 3 | sed 's/^/  /' || oops "tail failed"
sluice get --source demo-tcp 2-99999 | sed 's/^/  /' || oops "the last event over TCP is not found"

section "The node stops; its log is checked offline, every checksum and the hash chain"
sluice status | grep -E '^(log|events|disk|digest|dedupe|memory)' | sed 's/^/  /' || true
kill -TERM "$node"
wait "$node" || oops "sluiced ended with $?"
pids=()
sluice log verify "$work/data" >"$work/verify" || oops "sluice log verify found problems"
sed 's/^/  /' "$work/verify"
[ "$(awk '$1 == "events" { gsub(/[^0-9]/, "", $2); print $2 }' "$work/verify")" = $((udp_events + tcp_events)) ] ||
  oops "the log does not hold all events"

awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "\n%.0f s. ", b - a }'
[ $wrong = 0 ] || { echo "Something is WRONG: see above."; exit 1; }
echo "All accounts balance: nothing lost, nothing twice, nothing unexplained."
