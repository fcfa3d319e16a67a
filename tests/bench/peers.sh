#!/usr/bin/env bash
# peers.sh - a cluster of three beside those of others, under the same load: `make bench-peers`, or
# `tests/bench/peers.sh [DIR]` (default build/release).
#
# In every pair the one runs after the other, anew each time, on this machine, on loopback, with its
# data on the same disk, and the client (tests/bench/peers/) beside it, as fast as we could make it
# for each. Every figure is the median of its pairs. Events have 128 bytes.
#
#   single   one event a message, CONNECTIONS x WINDOW messages in flight: events/s
#   batch    200 events a message (for others: one message, or one value, of as many bytes), CONNECTIONS
#            x BATCH_WINDOW in flight: events/s. Sluice takes a batch apart: each event is checked, hashed and
#            looked up by its id. To the others it is one run of bytes with one acknowledgement.
#   latency  one event a message, an open loop on one connection, at half of the best rate that the
#            other one reached in `single`: p50 and p99 from when due to the answer, us
#
# What an answer says, and so what is compared:
#   sluice     the event is on the disks (O_DSYNC) of two of three nodes, deduplicated by its id, checked, in
#              one hash chain
#   nats       JetStream, a stream with three replicas and file storage, as shipped: two of three servers
#              have written it to a file, which is synced later (every two minutes). Power lost at two
#              of them loses what was acknowledged. Not deduplicated.
#   nats-sync  the same, its store on a file system that is mounted `-o sync`, so written means on the
#              disk: what Sluice promises. As root, where an image can be mounted.
#   etcd       a put is in the log of two of three members, and synced. Puts of new keys, over gRPC; the key
#              space it keeps besides is what it is for, and part of its cost.
#
# A run counts only if all that was acknowledged is there: of ours in the logs of all three, verified on
# disk, with one chain; of a stream, the number of its messages and all replicas current; of etcd, the
# number of keys and one hash at all members. Otherwise this ends with 1.
#
# stdout: `peer PROGRAM NAME VALUE UNIT`, ours as PROGRAM sluice-beside-OTHER, and `ratio NAME OURS/THEIRS`.
# PEERS: which (default: all that are installed). PEERS_PAIRS (5), PEERS_S (10: seconds of each run),
# PEERS_PARTS ("single batch latency"). SLUICE_BENCH_DIR as in run.sh.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
pairs=${PEERS_PAIRS:-5} seconds=${PEERS_S:-10} parts=${PEERS_PARTS:-single batch latency}
connections=4 window=1024 batch=200 batch_window=64 latency_window=8192
PATH=$PATH:/usr/sbin:/sbin
export SLUICE_BIN=$build
dir=$(mktemp -d "${SLUICE_BENCH_DIR:-/tmp}/sluice-peers-XXXXXX") || exit 1
export SLUICE_BENCH_DIR=$dir
servers=() mounted=

servers_end() {
  [ ${#servers[@]} -eq 0 ] || { kill -KILL "${servers[@]}"; wait "${servers[@]}"; } 2>/dev/null
  servers=()
  if [ -n "$mounted" ]; then umount "$mounted" && mounted=; fi
  rm -rf "$dir/data" "$dir/image"
}
trap 'servers_end; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM HUP

# Six ports that nobody has now: the clients', then the servers' own.
ports() {
  python3 -c '
import socket
s = [socket.socket() for _ in range(6)]
for x in s: x.bind(("127.0.0.1", 0))
print(*[x.getsockname()[1] for x in s])'
}

mount_sync() {
  truncate -s 8G "$dir/image" && mkfs.ext4 -q -F "$dir/image" && mount -o loop,sync "$dir/image" "$dir/data" &&
    mounted=$dir/data
}

nats_start() {
  local i routes
  routes="\"nats://127.0.0.1:${p[3]}\", \"nats://127.0.0.1:${p[4]}\", \"nats://127.0.0.1:${p[5]}\""
  for i in 0 1 2; do
    cat >"$dir/nats$i.conf" <<END
server_name: "${p[i]}"
listen: "127.0.0.1:${p[i]}"
jetstream { store_dir: "$dir/data/$i" }
cluster { name: bench, listen: "127.0.0.1:${p[i + 3]}", routes: [ $routes ] }
END
    nats-server -c "$dir/nats$i.conf" >"$dir/log$i" 2>&1 &
    servers+=($!)
  done
}

etcd_start() {
  local i
  for i in 0 1 2; do
    etcd --name "m$i" --data-dir "$dir/data/$i" --quota-backend-bytes $((8 << 30)) \
      --listen-client-urls "http://127.0.0.1:${p[i]}" --advertise-client-urls "http://127.0.0.1:${p[i]}" \
      --listen-peer-urls "http://127.0.0.1:${p[i + 3]}" --initial-advertise-peer-urls "http://127.0.0.1:${p[i + 3]}" \
      --initial-cluster "m0=http://127.0.0.1:${p[3]},m1=http://127.0.0.1:${p[4]},m2=http://127.0.0.1:${p[5]}" \
      >"$dir/log$i" 2>&1 &
    servers+=($!)
  done
}

# run PROGRAM MODE CONNECTIONS WINDOW EVENTS [PER_S] -> its line in $line
run() {
  local program=$1 client=${1%-sync} p
  read -ra p < <(ports)
  mkdir -p "$dir/data"
  [ "$program" != nats-sync ] || mount_sync || return 1
  [ "$client" = sluice ] || "${client}_start"
  "$build/peers/$client" "$2" "${p[@]:0:3}" "$3" "$4" "$5" "$seconds" ${6+"$6"} >"$dir/line" || {
    echo "# $program: a run that does not count" >&2
    [ ! -e "$dir/log0" ] || tail -n 3 "$dir"/log? >&2
    return 1
  }
  line=$(<"$dir/line")
  servers_end
  echo "# $program $2, $5 in a message: $line (events/s, messages, p50 us, p99 us)" >&2
}

median() { printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# figure PROGRAM NAME UNIT: of the arrays `ours` and `theirs`
figure() {
  local a b
  a=$(median "${ours[@]}") b=$(median "${theirs[@]}")
  echo "peer sluice-beside-$1 $2 $a $3"
  echo "peer $1 $2 $b $3"
  awk -v a="$a" -v b="$b" -v n="$2_${1//-/_}" 'BEGIN { if (b > 0) printf "ratio %s %.3f\n", n, a / b }'
}

# pairs_of PROGRAM ARGUMENTS...: fills lines_ours and lines_theirs
pairs_of() {
  local i program=$1
  shift
  lines_ours=() lines_theirs=()
  for ((i = 0; i < pairs; i++)); do
    run sluice "$@" || return 1
    lines_ours+=("$line")
    run "$program" "$@" || return 1
    lines_theirs+=("$line")
  done
}

# column N: of all lines, into `ours` and `theirs`
column() {
  mapfile -t ours < <(printf '%s\n' "${lines_ours[@]}" | awk -v n="$1" '{ print $n }')
  mapfile -t theirs < <(printf '%s\n' "${lines_theirs[@]}" | awk -v n="$1" '{ print $n }')
}

compare() {
  local program=$1 best
  if [[ $parts == *single* || $parts == *latency* ]]; then
    pairs_of "$program" rate $connections $window 1 || return 1
    column 1
    figure "$program" events_per_s_single events/s
    best=$(printf '%s\n' "${theirs[@]}" | sort -g | tail -n 1)
  fi
  if [[ $parts == *batch* ]]; then
    pairs_of "$program" rate $connections $batch_window $batch || return 1
    column 1
    figure "$program" events_per_s_batch events/s
  fi
  if [[ $parts == *latency* ]]; then
    pairs_of "$program" latency 1 $latency_window 1 $((best / 2)) || return 1
    echo "peer $program latency_rate $((best / 2)) events/s"
    column 3
    figure "$program" latency_us_p50 us
    column 4
    figure "$program" latency_us_p99 us
  fi
}

can_mount_sync() {
  local ok=1
  [ "$(id -u)" = 0 ] || return 1
  mkdir -p "$dir/data"
  mount_sync 2>/dev/null && ok=0
  servers_end
  return $ok
}

if [ -z "${PEERS-}" ]; then
  PEERS=
  command -v nats-server >/dev/null && PEERS+=" nats"
  command -v nats-server >/dev/null && can_mount_sync && PEERS+=" nats-sync"
  command -v etcd >/dev/null && PEERS+=" etcd"
fi
[ -n "$PEERS" ] || { echo "peers: none is installed: deploy/deps.sh peers" >&2; exit 1; }
echo "machine $(nproc) cores, kernel $(uname -r), $(df --output=source,fstype "$dir" | awk 'NR == 2 { print $2 " on " $1 }')"
rc=0
for program in $PEERS; do
  compare "$program" || { servers_end; rc=1; }
done
exit $rc
