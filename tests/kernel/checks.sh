#!/usr/bin/env bash
# checks.sh - what run.sh has done on the old kernel: the XDP program under its verifier, and sluiced on veths,
# alone and beside others in libxdp's dispatcher, until the reasons why it is not the best there is.
#
#   checks.sh [SECTION...]   unit, alone, dispatcher, fallback; default: all, in this order
#
# The other end of every veth is in the network namespace `far`. No burst is longer than what a veth holds,
# or than the rings do: nothing can be lost, and every number is exact.
export SLUICE_PORT=7400 SLUICE_WAIT_S=600 SLUICE_MODE=quick
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/../e2e/lib.sh"
burst=200

# flat [FILE]: JSON without spaces as lines of a path and a value: `interfaces 0 name<TAB>va`.
flat() {
  awk '{ text = text $0 }
    END { at = 1; value("") }
    function matched(regex, s) {
      match(substr(text, at), regex)
      s = substr(text, at, RLENGTH)
      at += RLENGTH
      return s
    }
    function string(s) { s = matched("^\"([^\"\\\\]|\\\\.)*\""); return substr(s, 2, length(s) - 2) }
    function value(path, open, n, key) {
      open = substr(text, at, 1)
      if (open == "\"") { print path "\t" string(); return }
      if (open != "{" && open != "[") { print path "\t" matched("^[-+.0-9a-zA-Z]+"); return }
      for (at++; index("]}", substr(text, at, 1)) == 0;) {
        if (substr(text, at, 1) == ",") at++
        if (open == "{") { key = string(); at++ } else key = n++ + 0
        value(path == "" ? key : path " " key)
      }
      at++
    }' "$@"
}

# json FILE KEY...: as lib.sh has it, of values, without Python.
json() {
  local file=$1
  shift
  flat "$file" | awk -F '\t' -v path="$*" '$1 == path { print $2 }'
}

# --- the machine's network -------------------------------------------------------------------------

add_veth() { # add_veth NAME PEER NETWORK
  ip link add name "$1" type veth peer name "$2"
  ip link set "$2" netns far
  ip addr add "$3.1/24" dev "$1"
  ip link set "$1" up
  ip netns exec far ip addr add "$3.2/24" dev "$2"
  ip netns exec far ip link set "$2" up
}

# setup INTERFACES [MODE]: sluiced on them, with fresh data.
setup() {
  rm -rf "$data" "$SLUICE_SOCKET"
  ingest_more="  workers: 1
  address: [10.9.1.1, 10.9.2.1]
  insecure: true
  udp: { allow: [10.9.0.0/16] }
  xdp: { interfaces: [$1], mode: ${2-auto} }"
  configure ''
}

# --- who is attached -------------------------------------------------------------------------------

# In the dispatcher of an interface, by name; nothing when there is none.
programs() { xdp-loader status "$1" | awk '$1 == "=>" { print $3 }' | sort | xargs; }
program_id() { xdp-loader status "$1" | awk -v name="$2" '$1 == "=>" && $3 == name { print $4 }'; }
bare() { ! ip link show dev "$1" | grep -q xdp; }
neighbour_load() { exits 0 xdp-loader load --mode native --prio "$2" "$1" "$neighbour"; }
neighbour_unload() { exits 0 xdp-loader unload "$1" --id "$(program_id "$1" neighbour)"; }
# What the neighbour of an interface has seen.
seen() {
  local map
  map=$(bpftool prog show id "$(program_id "$1" neighbour)" | sed -nE 's/.*map_ids ([0-9]+).*/\1/p')
  bpftool map dump id "$map" | sed -nE 's/.*"value": ([0-9]+).*/\1/p'
}
pins() { find /sys/fs/bpf -name 'dispatch-*' | wc -l; }
detacher() { grep -l '^sluice-detacher$' /proc/[0-9]*/comm 2>/dev/null | cut -d/ -f3; }
no_detacher() { [ -z "$(detacher)" ]; }
capabilities() { awk '$1 == "CapPrm:" || $1 == "CapEff:" { print $2 }' "/proc/$1/status" | sort -u; }

# --- what sluiced says -----------------------------------------------------------------------------

# of_port NAME KEY: of an interface in `sluice xdp status`.
of_port() {
  sluice xdp status --json | flat | awk -F '\t' -v name="$1" -v key="$2" '
    $1 ~ /^interfaces [0-9]+ name$/ { on = $2 == name }
    on && $1 ~ "^interfaces [0-9]+ " key "$" { print $2 }'
}

# port_is NAME MODE ATTACH NOTE: exactly so.
port_is() {
  expect "$(of_port "$1" mode)" "$2" "mode of $1"
  expect "$(of_port "$1" attach)" "$3" "how the program is attached to $1"
  expect "$(of_port "$1" note)" "$4" "note of $1"
}

send_udp() { # send_udp ADDRESS COUNT
  ip netns exec far "$bin/sluice" send --address "$1:$port" --udp --generate "$2" --quiet >"$work/sent" 2>&1 ||
    fail "send over UDP: $(cat "$work/sent")"
}
send_tcp() {
  ip netns exec far "$bin/sluice" send --address "$1:$port" --generate "$2" --quiet >"$work/sent" 2>&1 ||
    fail "send over TCP: $(cat "$work/sent")"
}

arrived_are() { [ "$(of_port "$1" arrived)" = "$2" ]; }
committed_are() { sluice ledger --json >"$work/ledger.json" && [ "$(json "$work/ledger.json" events total committed)" = "$1" ]; }

# takes NAME ADDRESS: a burst comes by AF_XDP, all of it, and the account balances.
takes() {
  local before committed
  before=$(of_port "$1" redirected)
  exits 0 sluice ledger --json
  committed=$(json "$work/out" events total committed)
  send_udp "$2" $burst
  until_true "$1 has taken a burst" committed_are $((committed + burst))
  expect "$(of_port "$1" redirected)" $((before + burst)) "redirected on $1"
  ledger
  exits 0 sluice xdp status
}

# drops NAME ADDRESS: the same with a policy that drops quotes; then without it again.
drops() {
  local arrived dropped committed
  arrived=$(of_port "$1" arrived)
  exits 0 sluice ledger --json
  committed=$(json "$work/out" events total committed)
  exits 0 sluice xdp policy set quote drop
  send_udp "$2" $burst
  until_true "$1 has seen a burst" arrived_are "$1" $((arrived + burst))
  dropped=$(of_port "$1" dropped)
  ((dropped > 0 && dropped < burst)) || fail "$dropped of $burst dropped on $1"
  until_true "the rest is committed" committed_are $((committed + burst - dropped))
  ledger
  expect "$(json "$work/ledger.json" xdp drops type_dropped)" "$dropped" "type_dropped in the ledger"
  exits 0 sluice xdp policy set quote default
}

# --- the program alone -----------------------------------------------------------------------------

check_unit() {
  local t
  for t in "$bin"/unit/test_xdp_*; do
    exits 0 timeout 1500 "$t"
    done_with "$(basename "$t"): $(tail -n 1 "$work/err")"
  done
}

check_alone() {
  setup va
  start_node
  port_is va native single "without a dispatcher: bpffs is not mounted"
  expect "$(capabilities "$node")" 0000000000000000 "what sluiced may do"
  no_detacher || fail "a detacher without a dispatcher"
  takes va 10.9.1.1
  drops va 10.9.1.1
  send_tcp 10.9.1.1 1000
  [ "$(of_port va tcpPassed)" -gt 0 ] || fail "no TCP passed on va"
  ledger
  stop_node
  bare va || fail "after the stop there is still a program on va"
  done_with "alone: native, by AF_XDP; the policy; no capabilities; the account balances; nothing left after the stop"
  start_node
  takes va 10.9.1.1
  kill_node
  until_true "va is bare after the kill" bare va
  done_with "alone: the kernel takes the program away when the process is killed"
}

# --- beside others ---------------------------------------------------------------------------------

both="neighbour sluice_ingress"

check_dispatcher() {
  in_front
  behind
  killed
  without_detacher
  taken_away
  two_interfaces
}

in_front() {
  local before
  setup va
  neighbour_load va 10
  start_node
  port_is va native dispatcher ""
  expect "$(programs va)" "$both" "programs on va"
  expect "$(capabilities "$node")" 0000000000000000 "what sluiced may do"
  expect "$(capabilities "$(detacher)")" 0000000000201000 "what its detacher may do" # CAP_SYS_ADMIN, CAP_NET_ADMIN
  before=$(seen va)
  takes va 10.9.1.1
  [ "$(seen va)" -ge $((before + burst)) ] || fail "the neighbour has not seen the burst"
  drops va 10.9.1.1
  stop_node
  expect "$(programs va)" neighbour "programs on va after the stop"
  expect "$(pins)" 1 "dispatchers in bpffs after the stop"
  no_detacher || fail "the detacher is still there after the stop"
  before=$(seen va)
  ip netns exec far ping -c 1 10.9.1.1 >/dev/null
  [ "$(seen va)" -gt "$before" ] || fail "the neighbour sees nothing after the stop"
  neighbour_unload va
  bare va || fail "after the last there is still a program on va"
  done_with "beside a program in front: both count; privileges are the detacher's; the stop leaves the neighbour"
}

behind() {
  local before
  setup va
  start_node
  expect "$(programs va)" sluice_ingress "programs on va"
  neighbour_load va 90
  expect "$(programs va)" "$both" "programs on va"
  before=$(seen va)
  takes va 10.9.1.1
  [ "$(seen va)" -lt $((before + burst)) ] || fail "the neighbour behind has seen what went to the rings"
  before=$(seen va)
  send_tcp 10.9.1.1 1000
  [ "$(seen va)" -gt "$before" ] || fail "the neighbour behind has not seen TCP"
  neighbour_unload va
  expect "$(programs va)" sluice_ingress "programs on va"
  takes va 10.9.1.1
  expect "$(of_port va attached)" true "attached after the neighbour's way out"
  stop_node
  bare va || fail "after the stop there is still a program on va"
  expect "$(pins)" 0 "dispatchers in bpffs after the stop"
  done_with "others come in behind and go while it runs: it stays, and they see what it passes"
}

killed() {
  local id
  setup va
  neighbour_load va 90
  start_node
  id=$(program_id va sluice_ingress)
  takes va 10.9.1.1
  kill_node
  until_true "the detacher ends with the daemon" no_detacher
  expect "$(programs va)" "$both" "programs on va after the kill"
  expect "$(program_id va sluice_ingress)" "$id" "our program after the kill"
  start_node
  expect "$(programs va)" "$both" "programs on va after the next start"
  [ "$(program_id va sluice_ingress)" != "$id" ] || fail "the killed daemon's program was not taken over"
  takes va 10.9.1.1
  stop_node
  expect "$(programs va)" neighbour "programs on va after the stop"
  done_with "killed: the program stays, and the next start takes it over"
}

without_detacher() {
  start_node
  kill -KILL "$(detacher)"
  stop_node
  grep -q 'xdp_stays.*the program stays in its dispatcher, until the next start: No such process' "$work/log" ||
    fail "not a word on the program that stays"
  expect "$(programs va)" "$both" "programs on va without the detacher"
  start_node
  expect "$(programs va)" "$both" "programs on va after the next start"
  stop_node
  expect "$(programs va)" neighbour "programs on va after the stop"
  neighbour_unload va
  done_with "without its detacher the stop says that the program stays, and the next start takes it over"
}

not_attached() { [ "$(of_port "$1" attached)" = false ]; }

taken_away() {
  local committed
  start_node
  exits 0 sluice ledger --json
  committed=$(json "$work/out" events total committed)
  exits 0 xdp-loader unload va --all
  until_true "sluiced sees that its program is gone" not_attached va
  send_udp 10.9.1.1 $burst
  until_true "a burst has come by the sockets" committed_are $((committed + burst))
  stop_node
  expect "$(grep -c xdp_stays "$work/log")" 1 "stops with a program that stays" # without_detacher's
  expect "$(pins)" 0 "dispatchers in bpffs"
  done_with "taken away by somebody else: datagrams come by the sockets, and the stop finds nothing amiss"
}

two_interfaces() {
  setup "va, vb"
  neighbour_load vb 10
  start_node
  port_is va native dispatcher ""
  port_is vb native dispatcher ""
  takes va 10.9.1.1
  takes vb 10.9.2.1
  expect "$(of_port va arrived)" $burst "arrived on va"
  kill_node
  expect "$(programs va)" sluice_ingress "programs on va after the kill"
  expect "$(programs vb)" "$both" "programs on vb after the kill"
  start_node
  takes va 10.9.1.1
  takes vb 10.9.2.1
  ip link del vb
  until_true "sluiced sees that vb is gone" not_attached vb
  takes va 10.9.1.1
  stop_node
  bare va || fail "after the stop there is still a program on va"
  expect "$(pins)" 0 "dispatchers in bpffs after the stop"
  add_veth vb wb 10.9.2
  done_with "two interfaces: each in its dispatcher, killed, taken over; of one that is gone nothing is left"
}

# --- less than the best ----------------------------------------------------------------------------

check_fallback() {
  foreign
  drivers
  no_compiler
  users
}

foreign() {
  local note="another program is attached there"
  setup va
  exits 0 ip link set dev va xdp object "$neighbour" section xdp
  start_node
  port_is va socket "" "no native XDP: $note; no generic XDP: $note"
  send_udp 10.9.1.1 $burst
  until_true "a burst has come by the sockets" committed_are $burst
  ledger
  stop_node
  ip link show dev va | grep -q 'name neighbour' || fail "the other program is gone"
  exits 0 ip link set dev va xdp off
  done_with "a program that stands alone is left alone: sockets"
}

drivers() {
  ip netns exec far ip link set vp mtu 9000
  ip link add name plain type dummy
  ip link set plain up
  setup "va, plain, none"
  start_node
  port_is va generic dispatcher "no native XDP: the MTU is too large for it"
  port_is plain generic dispatcher "no native XDP: the driver cannot do that"
  port_is none socket "" "there is no interface none"
  takes va 10.9.1.1
  stop_node
  setup va native
  start_node
  port_is va socket "" "no native XDP: the MTU is too large for it"
  stop_node
  ip link del plain
  ip netns exec far ip link set vp mtu 1500
  expect "$(pins)" 0 "dispatchers in bpffs"
  done_with "generic where the driver or the MTU leaves no more; sockets where native is asked for"
}

# The kernel extends only programs that are compiled.
no_compiler() {
  echo 0 >/proc/sys/net/core/bpf_jit_enable
  setup va
  start_node
  port_is va native single "without a dispatcher: Operation not supported"
  takes va 10.9.1.1
  kill_node
  until_true "va is bare after the kill" bare va
  echo 1 >/proc/sys/net/core/bpf_jit_enable
  done_with "where libxdp finds no way to a dispatcher: alone, by a link"
}

# sluiced as a user of its own, with these capabilities and so much memory that may be locked.
as_user() { # as_user CAPABILITIES KIB
  local caps=-all${1:+,$1}
  lock_kib=$2
  as=(setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps "$caps" --ambient-caps "$caps")
  setup va
  mkdir "$data"
  chown 1000:1000 "$data"
}
as=() lock_kib=unlimited
launch_node() {
  (ulimit -l "$lock_kib" && exec "${as[@]}" "$bin/sluiced" --config "$work/sluiced.yaml") >>"$work/log" 2>&1 &
  node=$!
}

users() {
  local alone="without a dispatcher: it takes CAP_SYS_ADMIN" asks="it asks for CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
  chmod 777 "$work"
  as_user +bpf,+net_admin,+perfmon,+net_raw,+ipc_lock 64
  start_node
  port_is va native single "$alone"
  expect "$(capabilities "$node")" 0000000000000000 "what sluiced may do"
  takes va 10.9.1.1
  drops va 10.9.1.1
  stop_node
  bare va || fail "after the stop there is still a program on va"
  as_user +bpf,+net_admin,+perfmon,+net_raw 9000
  start_node
  port_is va native single "$alone; ingest.xdp.ring is 512: RLIMIT_MEMLOCK"
  takes va 10.9.1.1
  stop_node
  as_user +bpf,+net_admin,+perfmon 64
  start_node
  port_is va native single "no AF_XDP; $alone; no AF_XDP on queue 0: it asks for CAP_NET_RAW"
  stop_node
  as_user "" 64
  start_node
  port_is va socket "" "no native XDP: $asks; no generic XDP: $asks"
  stop_node
  done_with "a user's: alone with five capabilities; with fewer as far as they go, and it says which"
}

# --- all of it -------------------------------------------------------------------------------------

# What is the kernel's own fault, or ours in the kernel.
kernel_is_well() {
  ! dmesg | grep -E 'BUG:|WARNING: CPU|Oops|cut here' || fail "the kernel complains"
}

neighbour=$bin/tests/kernel/neighbour.bpf.o
[ -d /busybox ] || fail "this is for the machine that run.sh starts"
ip netns add far
ip netns exec far ip link set lo up
add_veth va vp 10.9.1
add_veth vb wb 10.9.2
[ $# != 0 ] || set -- unit alone dispatcher fallback
for section; do
  case $section in
    unit | alone) ;;
    *) grep -q ' /sys/fs/bpf ' /proc/mounts || mount -t bpf bpf /sys/fs/bpf ;;
  esac
  "check_$section"
  kernel_is_well
done
done_with "$(uname -r)"
