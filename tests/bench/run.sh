#!/usr/bin/env bash
# run.sh - runs the benches of a build: `tests/bench/run.sh [DIR]` (default build/release).
#
# stdout: one line on the machine, then lines `bench NAME VALUE UNIT`; of programs of others, where they are
# installed, `peer PROGRAM NAME VALUE UNIT` and `ratio NAME OURS/THEIRS`. Everything else, the comparison with
# the targets at the end included, goes to stderr. Exit 1 when a bench failed; a target that was missed is
# said, and is no failure: how fast a machine is depends on the machine.
# SLUICE_BENCH_DIR: where the log is written (default /tmp). SLUICE_BENCHES: the benches to run, by name.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
dir=$(mktemp -d "${SLUICE_BENCH_DIR:-/tmp}/sluice-bench-XXXXXX") || exit 1
export SLUICE_BIN=$build SLUICE_BENCH_DIR=$dir TMPDIR=$dir
order=(decode ingest dedupe log node cluster xdp netns)
results=$dir/results one=$dir/one
: >"$results"
child=
stop() { # the running bench ends its daemon
  [ -z "$child" ] || { kill -TERM "$child" 2>/dev/null; wait "$child"; }
  exit 130
}
trap stop INT TERM HUP
trap 'rm -rf "$dir"' EXIT

machine() {
  local cpu disk
  cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)
  disk=$(df --output=source,fstype "$SLUICE_BENCH_DIR" | awk 'NR == 2 { print $2 " on " $1 }')
  echo "machine $(nproc) cores, ${cpu:-$(uname -m)}, kernel $(uname -r), $disk"
}

# The ones named in `order` first, then any other.
benches() {
  local b n
  for n in "${order[@]}"; do [ -x "$build/bench/bench_$n" ] && echo "$n"; done
  for b in "$build"/bench/bench_*; do
    n=${b##*/bench_}
    [[ -x $b && $n != *.* && " ${order[*]} " != *" $n "* ]] && echo "$n"
  done
  [ ! -x "$build/wan" ] || echo regions
}

# Two regions take namespaces, and are driven from Python.
run() {
  if [ "$1" = regions ]; then
    exec /usr/bin/python3 tests/bench/regions.py
  fi
  exec "$build/bench/bench_$1"
}

figure='(bench|peer [a-z-]+) [A-Za-z0-9_.]+ -?[0-9.]+ [^ ]+|ratio [A-Za-z0-9_.]+ -?[0-9.]+'
machine
rc=0 ran=0
for n in ${SLUICE_BENCHES:-$(benches)}; do
  echo "# bench_$n" >&2
  (run "$n") >"$one" &
  child=$!
  wait "$child"
  status=$?
  [ $status -ne 77 ] || status=0 # it cannot be here, and has said why
  child=
  # Whatever is not a measure is for people.
  grep -xE "$figure" "$one" | tee -a "$results"
  grep -vxE "$figure" "$one" >&2
  [ $status -eq 0 ] || { echo "# bench_$n: exit $status" >&2; rc=1; }
  ran=$((ran + 1))
done
[ $ran -gt 0 ] || { echo "# no bench in $build/bench" >&2; exit 1; }

# What targets are set for and no bench prints by itself: a verdict's time above that of an empty program, the
# loss-free pace against what is asked of it (as much as can be sent, if that is less), and the ratios to peers.
awk '
  $1 == "bench" { v[$2] = $3 }
  $1 == "ratio" { print "of", "ratio_" $2, $3, "ratio" }
  END {
    empty = "xdp_ns_per_packet_empty"
    n = split("accept drop malformed", verdict, " ")
    for (i = 1; i <= n; i++) {
      name = "xdp_ns_per_packet_" verdict[i]
      if (name in v && empty in v) print "of", "xdp_ns_above_empty_" verdict[i], v[name] - v[empty], "ns"
    }
    ours = v["ingest_loss_free_pps_afxdp"]; asked = 1.5 * v["ingest_loss_free_pps_socket"]
    most = 0.9 * v["sender_pps_max"] # the search ends somewhat below what it cannot reach
    if (asked > most) asked = most
    if (asked > 0) printf "of loss_free_pps_of_asked %.2f ratio\n", ours / asked
  }' "$results" >"$one"
cat "$one" >>"$results"

# target NAME at-least|at-most VALUE
target() {
  awk -v name="$1" -v how="$2" -v want="$3" '
    $1 != "peer" && $1 != "ratio" && $2 == name { got = $3; unit = $4 }
    END {
      if (got == "") { printf "# target  %-32s not measured\n", name; exit }
      met = how == "at-least" ? got >= want : got <= want
      printf "# target  %-32s %12s %-9s %-8s %s: %s\n", name, got, unit, how, want, met ? "met" : "MISSED"
    }' "$results" >&2
}
target ingest_events_per_s_socket at-least 1000000
target ingest_events_per_s_tcp at-least 1000000
target log_events_per_s_durable at-least 500000
target log_bytes_per_payload_byte at-most 1.35
target replicated_events_per_s_3 at-least 500000
target replicated_mb_per_s_3 at-least 200
target ratio_six_nodes_to_three at-least 0.45
target wan_bytes_per_payload_byte at-most 0.5
target switchover_pause_ms at-most 300
target region_end_to_end_ms_p99.9 at-most 1000
target leader_kill_gap_ms_median at-most 600
target one_node_down_p99_ratio at-most 1.5
target dedupe_ns_per_event at-most 150
target xdp_ns_above_empty_accept at-most 80
target xdp_ns_above_empty_drop at-most 80
target xdp_ns_above_empty_malformed at-most 80
target ingest_events_per_s_afxdp at-least 1000000
target loss_free_pps_of_asked at-least 1
target ratio_loss_free_pps at-least 1
target ratio_cpu_us_per_datagram at-most 0.5
target flood_goodput_ratio_xdp at-least 0.9
target class_latency_ratio at-most 1.5
exit $rc
