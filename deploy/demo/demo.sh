#!/usr/bin/env bash
# demo.sh - a node at work: a million events over UDP and 100,000 with receipts over TCP, among them
# hostile datagrams of every kind; then an account of all of them. `make demo` builds and runs it.
#
#   demo.sh BIN_DIR
#
# Root, where the kernel lets it have namespaces and XDP, sees xdp.sh: the same under a flood, on a
# network of its own; and then regions.py: six nodes in two regions, one of which is lost, and comes
# back (DEMO_KEEP=1 leaves those up). Else no privileges are needed and all happens on loopback. Either
# way everything is under a temporary directory, and is gone at the end, even after `kill -9` of this
# script.
# Exit 0 only if every valid event is committed exactly once and where its receipt says, every hostile
# datagram is counted under its reason, nothing was lost, and the ledgers balance.
set -euo pipefail

bin=$(cd "${1:?usage: demo.sh BIN_DIR}" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-demo.XXXXXX")
# shellcheck source=deploy/demo/lib.sh
. "$(dirname "$0")/lib.sh"
hostile_each=200 hostile_rate=2500
dropped_type=100 # the settings name it and drop it

# Who waits there has all of us holding the other end of the pipe: when nobody does any more, however
# that came about, the directory goes.
# shellcheck disable=SC2016,SC2034
exec {alive}> >(exec setsid bash -c 'trap "" INT TERM HUP; cat; rm -rf -- "$1"' - "$work" >/dev/null 2>&1)

pids=()
clean_up() {
  exec 2>/dev/null # the shell has a word to say on each that is killed
  for p in "${pids[@]}"; do kill -9 "$p" || true; done
  rm -rf "$work" || true
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Network, mounts and processes of its own: all of that ends with its first process, which is xdp.sh.
apart=("${tied[@]}" unshare --net --mount --pid --fork --kill-child --mount-proc)
if [ "$(id -u)" != 0 ]; then
  echo "Not root: on loopback, by the kernel's sockets. As root it is XDP, under a flood."
elif ! "${apart[@]}" true 2>"$work/why"; then
  echo "No namespaces ($(tail -n 1 "$work/why")): on loopback, by the kernel's sockets."
else
  "${apart[@]}" "$here/xdp.sh" "$bin" "$work" </dev/null &
  pids=($!)
  rc=0
  wait $! || rc=$?
  pids=()
  if [ $rc = 0 ]; then # the other half
    "${apart[@]}" "$here/regions.py" "$bin" "$work" &
    pids=($!)
    wait $! || rc=$?
    exit $rc
  fi
  [ $rc = 77 ] || exit $rc
  rm -rf "${work:?}"/*
fi

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

section "A node starts (loopback, port $port)"
start_node
grep -E '^(node|role|started in|memory|listening)' "$work/status" | sed 's/^/  /'
sluice config set type.unwanted $dropped_type >/dev/null || fatal "a type cannot be named"
sluice config set admit.unwanted drop >/dev/null || fatal "a type cannot be dropped"

section "Events come: $udp_events over UDP, $tcp_events over TCP, hostile datagrams between them"
sender=("${tied[@]}")
start_wanted "127.0.0.1:$port"
"${tied[@]}" "$python" "$here/hostile.py" --to "127.0.0.1:$port" --each $hostile_each --rate $hostile_rate \
  --denied-from 127.0.0.2 --dropped-type $dropped_type >"$work/hostile.json" &
hostile=$!
pids+=("$hostile")
finish_wanted
wait "$hostile" || oops "hostile.py did not end well"
pids=("$node")

sent_datagrams=$(number "$work/udp.json" batches)
wait_for_datagrams $((sent_datagrams + $(number "$work/hostile.json" sent)))
say_goodput

section "The ledgers: what became of every datagram and every event"
sluice ledger | sed 's/^/  /' || oops "a ledger does not balance"

section "Is that what was sent?"
"$python" "$here/check.py" ledger --datagrams "$sent_datagrams" --events $((udp_events + tcp_events)) \
  --hostile "$work/hostile.json" <"$work/ledger.json" || wrong=1

section "Is every event there, exactly once, and where its receipt says?"
check_events 1:demo-udp:$udp_events 2:demo-tcp:$tcp_events

section "Some of them"
sluice tail --from first --no-follow --source demo-udp --count 3 | sed 's/^/  /' || oops "tail failed"
sluice get --source demo-tcp 2-99999 | sed 's/^/  /' || oops "the last event over TCP is not found"

stop_and_verify $((udp_events + tcp_events))
the_end "$begun"
