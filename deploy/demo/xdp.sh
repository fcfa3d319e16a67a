#!/usr/bin/env bash
# xdp.sh - the demo as root: a node that receives by XDP and AF_XDP, and a million wanted events that
# come to it in the midst of a flood. demo.sh starts it, in namespaces that end with it.
#
#   xdp.sh BIN_DIR WORK_DIR
#
#   the node's network                        the senders' network
#   sluiced  -  node0 10.77.0.2  ----veth----  wire0 10.77.0.1   wanted events, hostile.py
#                                              wire0 any source  flood
#
# First a flood with all that a node should get rid of, then a new policy in the shadow and in force
# while the flood goes on. At the end every datagram that was sent is held against the ledgers.
# Exit: 0 only if all is as it should be; 77 where there is no native XDP, with the reason.
set -euo pipefail

bin=${1:?usage: xdp.sh BIN_DIR WORK_DIR} work=${2:?usage: xdp.sh BIN_DIR WORK_DIR}
# shellcheck source=deploy/demo/lib.sh
. "$(dirname "$0")/lib.sh"
PATH=$PATH:/usr/sbin:/sbin
network=10.77 node_ip=10.77.0.2 wire_ip=10.77.0.1 node_mac=02:00:00:00:00:02 port=7400
hostile_each=50 hostile_rate=1000
flood_rate=400000 # as much as there is time for, but not more
flood=(news=25 spoofed=25 telemetry=20 junk=10 malformed=10 debug=5 unnamed=5) # shares
more_events=200000
begun=$EPOCHREALTIME
pids=()
trap 'exit 130' INT TERM

# --- two networks -----------------------------------------------------------------------------------
cannot() { echo "No native XDP here ($*): on loopback, by the kernel's sockets."; exit 77; }

# The senders' network lives as long as a process in it.
"${tied[@]}" unshare --net sleep infinity &
there=$!
for _ in $(seq 500); do
  [ "$(readlink /proc/$there/ns/net)" = "$(readlink /proc/$$/ns/net)" ] || break
  sleep 0.01
done
in_senders=(nsenter --target "$there" --net)

# Programs that are pinned go with this mount, not to the machine's; without one nothing is pinned.
mount -t bpf bpf /sys/fs/bpf 2>/dev/null || mount -t tmpfs tmpfs /sys/fs/bpf 2>/dev/null || true

ip link set lo up
ip link add node0 address $node_mac numtxqueues 2 numrxqueues 2 type veth \
  peer name wire0 address 02:00:00:00:00:01 numtxqueues 2 numrxqueues 2 netns $there 2>"$work/why" ||
  cannot "no veth pair: $(tail -n 1 "$work/why")"
ip addr add $node_ip/16 dev node0
ip link set node0 up
"${in_senders[@]}" ip link set lo up
"${in_senders[@]}" ip addr add $wire_ip/16 dev wire0
"${in_senders[@]}" ip addr add 192.0.2.1/32 dev wire0 # a stranger to the node
"${in_senders[@]}" ip link set wire0 up
# The queue of a veth pair holds 256 frames. With a qdisc before it a sender waits while it is full
# (Linux >= 6.16); without one, or on an older kernel, what does not fit is lost on the wire.
"${in_senders[@]}" tc qdisc replace dev wire0 root mq

# The queue of a veth pair holds 256 frames, and what does not fit is lost before any program sees it.
# So the flood has a core and a queue of its own, and what else is sent goes by the other queue.
mapfile -t cores < <("$python" -c 'import os; print(*sorted(os.sched_getaffinity(0)), sep="\n")')
cores_mask() {
  "$python" -c 'import sys
m = "%x" % sum(1 << int(c) for c in sys.argv[1:])
m = m.zfill((len(m) + 7) // 8 * 8)
print(",".join(m[i:i + 8] for i in range(0, len(m), 8)))' "$@"
}
queue_of_cores() { # QUEUE CORE...
  cores_mask "${@:2}" >"$work/sys/class/net/wire0/queues/tx-$1/xps_cpus"
}
sender=("${tied[@]}" "${in_senders[@]}") flooder=("${tied[@]}" "${in_senders[@]}" nice -n 10)
pin() {
  local last=${cores[-1]} others=("${cores[@]:0:${#cores[@]}-1}") rc=0
  [ ${#others[@]} -gt 0 ] && mkdir -p "$work/sys" &&
    "${in_senders[@]}" mount -t sysfs sysfs "$work/sys" || return
  { queue_of_cores 0 "${others[@]}" && queue_of_cores 1 "$last"; } || rc=1
  umount "$work/sys"
  [ $rc = 0 ] || return
  sender+=(taskset -c "$(IFS=,; echo "${others[*]}")")
  flooder+=(taskset -c "$last")
}
pin 2>"$work/why" || echo "The flood has no core and no queue of its own: wanted datagrams may be lost on the way."

# --- a node, and what it wants ----------------------------------------------------------------------
cat >"$work/sluiced.yaml" <<YAML
data:
  dir: $work/data
ingest:
  address: [$node_ip]
  port: $port
  insecure: true            # not loopback, but no other network either
  udp:
    allow: [$network.0.0/16]
  xdp:
    mode: native
    interfaces: [node0]
    ring: 8192              # two seconds of these datagrams, for a busy machine
YAML
start_node
grep -q '^xdp  *native' "$work/status" ||
  cannot "$(sed -n 's/^note  *xdp on node0: //p' "$work/status" | head -n 1)"
section "A node starts, on a network of its own"
grep -E '^(node|role|started in|memory|xdp|listening)' "$work/status" | sed 's/^/  /'

section "What it wants: the policy, which the program in the driver follows"
for setting in type.news=64 type.debug=65 type.telemetry=66 type.depth=67; do
  sluice config set "${setting%=*}" "${setting#*=}" >/dev/null || fatal "a type cannot be named"
done
policy() { # ARGUMENTS of `sluice xdp policy set`
  echo "  sluice xdp policy set $*"
  sluice xdp policy set "$@" >/dev/null || fatal "the policy cannot be changed"
}
policy news drop
policy debug "sample 1000"
policy limit source_per_s 10000
policy limit source_burst 10000

# --- the flood --------------------------------------------------------------------------------------
flooding='' # its process
flood_start() { # RUN KIND=SHARE...
  "${flooder[@]}" "$bin/flood" wire0 $node_mac $node_ip:$port $network "$1" $flood_rate 120 "${@:2}" \
    >"$work/flood$1.json" 2>"$work/flood.err" &
  flooding=$!
  pids+=("$flooding")
}
flood_stop() {
  kill -TERM $flooding 2>/dev/null || true
  wait $flooding || fatal "$(tail -n 1 "$work/flood.err")"
}
xdp_status() { sluice xdp status --json >"$work/xdp.json"; }
# until_true WHAT COMMAND...: while the flood goes on
until_true() {
  for _ in $(seq 600); do
    "${@:2}" && return
    kill -0 $flooding 2>/dev/null || break
    sleep 0.05
  done
  oops "not within 30 s, or the flood has ended: $1"
}
arrived() { xdp_status && [ "$(number "$work/xdp.json" interfaces 0 arrived)" -ge "$1" ]; }

section "The flood begins; $udp_events events over UDP and $tcp_events over TCP in the midst of it"
flood_start 1 "${flood[@]}"
until_true "100,000 datagrams of the flood arrive" arrived 100000
start_wanted $node_ip:$port
"${sender[@]}" "$python" "$here/hostile.py" --to $node_ip:$port --each $hostile_each --rate $hostile_rate \
  --denied-from 192.0.2.1 --dropped-type 64 >"$work/hostile.json" &
hostile=$!

echo "  a second of it (sluice xdp top):"
sluice xdp top --count 1 | awk 'NF == 0 { block++ } block == 1 || block == 3' | sed 's/^/  /' ||
  oops "sluice xdp top failed"
echo
echo "  samples of what is dropped (sluice tap):"
for reason in type_dropped source_denied source_rate event_malformed not_protobuf; do
  timeout 10 "$bin/sluice" tap --dropped $reason --count 1 >"$work/sample" || oops "no sample of $reason"
  awk 'NR == 1 { printf "  %-15s from %s\n", $2, $6 } NR <= 3 && NR > 1 { print "   " $0 }' "$work/sample"
done
finish_wanted
wait $hostile || oops "hostile.py did not end well"
flood_stop

section "How much that was"
printf '  flood %8d a second   %s datagrams in %s s, besides\n' "$(number "$work/flood1.json" per_s)" \
  "$(number "$work/flood1.json" sent)" "$(number "$work/flood1.json" seconds)"
say_goodput

# --- a new policy -----------------------------------------------------------------------------------
shadow_dropped() { xdp_status && [ "$(number "$work/xdp.json" shadow drops type_dropped)" -ge "$1" ]; }
depth_number() { # arrived or dropped
  "$python" -c 'import json, sys
types = json.load(open(sys.argv[1]))["types"]
print(sum(t[sys.argv[2]] for t in types if t["name"] == "depth"))' "$work/xdp.json" "$1"
}
depth_dropped() { xdp_status && [ "$(depth_number dropped)" -ge "$1" ]; }
say_depth() {
  printf '  depth: %d datagrams, %d dropped; the shadow would have dropped %d\n' \
    "$(depth_number arrived)" "$(depth_number dropped)" "$(number "$work/xdp.json" shadow drops type_dropped)"
}

section "A new policy, while the flood goes on, now with depth in it, and wanted events come"
echo "  In the shadow it counts what it would do, and changes nothing:"
policy --shadow depth drop
flood_start 2 "${flood[@]}" depth=5
"${sender[@]}" "$bin/sluice" send --generate $more_events --udp --batch $udp_batch --rate $udp_rate \
  --run 3 --source demo-more --address $node_ip:$port --json-summary --quiet \
  >"$work/more.json" 2>"$work/more.err" &
more=$!
until_true "the shadow has counted 10,000" shadow_dropped 10000
say_depth
echo "  Then it is put in force, under load:"
echo "  sluice xdp policy promote"
sluice xdp policy promote >/dev/null || oops "the shadow cannot be promoted"
until_true "10,000 are dropped" depth_dropped 10000
say_depth
wait $more || oops "sluice send --udp: $(tail -n 1 "$work/more.err")"
flood_stop

# --- the accounts -----------------------------------------------------------------------------------
sent_datagrams=$(($(number "$work/udp.json" batches) + $(number "$work/more.json" batches)))
wait_for_datagrams $((sent_datagrams + $(number "$work/hostile.json" sent) +
  $(number "$work/flood1.json" sent) + $(number "$work/flood2.json" sent)))
xdp_status || oops "the driver's account does not balance"
section "What the driver dropped, and why (sluice xdp status)"
sluice xdp status | sed -n '/^mode/,/^account/p; /^interfaces/,/^ *node0  /p; /^classes/,/^$/p; /^dropped/,/^ *source_rate/p' |
  awk '$1 !~ /^[a-z_]+$/ || $2 != "0"'

section "Is every wanted event there, exactly once, and where its receipt says?"
runs=("1:demo-udp:$udp_events" "2:demo-tcp:$tcp_events" "3:demo-more:$more_events")
for kind in debug1 telemetry1 debug2 telemetry2 depth2; do
  sent=$(number "$work/flood${kind: -1}.json" kinds "${kind%?}")
  runs+=("$kind:${kind%?}:$sent:some")
done
check_events "${runs[@]}"

section "Is that what was sent? Every datagram, by kind"
"$python" -B "$here/check_xdp.py" --work "$work" --datagrams "$sent_datagrams" \
  --events $((udp_events + tcp_events + more_events)) || wrong=1

stop_and_verify "$(number "$work/ledger.json" log events)"
the_end "$begun"
