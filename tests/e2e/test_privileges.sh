#!/usr/bin/env bash
# test_privileges.sh - what a node may still do once it runs, and with how little it runs: as root it gives up
# every capability, in every thread, and keeps two where directories are another user's; an ordinary user
# needs none; and who has too little is told what it is.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root, to have something to give up"
setpriv --reuid 65534 --regid 65534 --clear-groups true 2>/dev/null || skip "setpriv cannot become another user here"

# Where nobody can read them.
mkdir "$work/bin"
cp "$bin/sluiced" "$work/bin/"
chmod 755 "$work" "$work/bin" "$work/bin/sluiced"
dac_override=1 fowner=3
other=65534

wrap=()
launch_node() { "${wrap[@]}" "$work/bin/sluiced" --config "$work/sluiced.yaml" >>"$work/log" 2>&1 & node=$!; }
as_nobody=(setpriv --reuid "$other" --regid "$other" --clear-groups)
new_node() { # new_node NAME [SECTION-YAML]: with directories of its own, port and log
  data=$work/$1/data
  SLUICE_SOCKET=$work/$1/admin.sock
  mkdir -p "$work/$1"
  : >"$work/log"
  configure "${2-}"
  chmod 644 "$work/sluiced.yaml"
}

# threads_have FIELD VALUE: in /proc/PID/status of every thread, io_uring's own included.
threads_have() {
  local t got n=0
  for t in /proc/"$node"/task/*; do
    got=$(awk -v f="$1:" '$1 == f { print $2 }' "$t/status" 2>/dev/null) || continue
    [ -n "$got" ] || continue # it has ended
    n=$((n + 1))
    [ "$((16#$got))" = "$(($2))" ] || not_so 1 "$1 of thread $(cat "$t/comm"): $got instead of $(printf %x "$2")"
  done
  [ $n -ge 6 ] || not_so 1 "only $n threads"
}
works() {
  exits 0 sluice send --generate 500 --address "$to" --quiet --json-summary
  expect "$(json "$work/out" accepted)" 500 "accepted"
  exits 0 sluice config set type.x 70
  exits 0 sluice tail --from first --no-follow --count 3
  ledger
}
notes() { sluice status --json >"$work/status"; json "$work/status" notes; }

# --- root ------------------------------------------------------------------------------------------

ingest_more='  workers: 2'
new_node root
start_node
for set in CapInh CapPrm CapEff CapBnd CapAmb; do threads_have $set 0; done
threads_have NoNewPrivs 1
works
# The receive buffer is set before, whatever net.core.rmem_max is.
[[ $(notes) != *'receive buffer'* ]] || not_so 0 "no full receive buffer as root: $(notes)"
for set in CapPrm CapEff CapBnd; do threads_have $set 0; done # also of threads that came with the work
stop_node
start_node # on what is there already
works
stop_node
grep -q '"event":"privileges"' "$work/log" && not_so 0 "something was kept: $(cat "$work/log")"
done_with "root: no capability is left in any thread, and it works and restarts"

# Directories of another user's: $1 is made so before the start.
of_another() {
  new_node "$1"
  mkdir -p "$data"
  for d in "${@:2}"; do
    mkdir -p "$work/$1/$d"
    chown $other "$work/$1/$d"
    chmod 700 "$work/$1/$d"
  done
  start_node
  threads_have CapEff $((1 << dac_override | 1 << fowner))
  threads_have CapPrm $((1 << dac_override | 1 << fowner))
  threads_have CapBnd $((1 << dac_override | 1 << fowner))
  threads_have NoNewPrivs 1
  grep -q 'kept: CAP_DAC_OVERRIDE, CAP_FOWNER' "$work/log" || not_so 1 "nothing is said of what was kept"
  works
  stop_node
  exits 0 sluice log verify "$data"
}
of_another their_data data
of_another their_log data/log
of_another their_socket .
done_with "root where a directory is another user's: two capabilities are kept, and said"

# --- an ordinary user ------------------------------------------------------------------------------

wrap=("${as_nobody[@]}")
new_node nobody
chown $other "$work/nobody"
start_node
for set in CapPrm CapEff CapAmb; do threads_have $set 0; done
threads_have NoNewPrivs 1
works
buffer=$((8 << 20)) # ingest.udp.receive_buffer_bytes
if [ "$(cat /proc/sys/net/core/rmem_max)" -lt $buffer ]; then
  [[ $(notes) == *"receive buffer is $(cat /proc/sys/net/core/rmem_max) of $buffer bytes"* ]] ||
    not_so 0 "nothing is said of the receive buffer: $(notes)"
else
  expect "$(notes)" '[]' "notes"
fi
stop_node
start_node
works
stop_node
exits 0 sluice log verify "$data"
done_with "an ordinary user: works and restarts without any; a smaller receive buffer is said"

# --- too little ------------------------------------------------------------------------------------

# Rings are locked memory to some kernels, of all processes of a user together. Root's limit is raised
# where that is allowed; else the node works, or says what it has too little of.
works_or_says() {
  launch_node
  goes_or_ends() { ! kill -0 "$node" 2>/dev/null || sluice status >/dev/null 2>&1; }
  until_true "the node serves or ends" goes_or_ends
  if kill -0 "$node" 2>/dev/null; then
    works
    stop_node
    return
  fi
  ended 1 "too little locked memory"
  grep -q 'start_failed.*ulimit -l' "$work/log" || not_so 1 "what is missing is not said: $(cat "$work/log")"
}
wrap=(prlimit --memlock=65536:65536)
new_node little 'log:
  writes_max: 256'
works_or_says
wrap=(prlimit --memlock=4096:4096)
new_node least
works_or_says
wrap=(prlimit --memlock=65536:65536 "${as_nobody[@]}")
new_node less
chown $other "$work/less"
works_or_says
# A soft limit is the user's own to raise.
hard=$(ulimit -Hl)
if [ "$hard" = unlimited ] || [ "$hard" -ge 2048 ]; then
  wrap=(prlimit --memlock=65536: "${as_nobody[@]}")
  new_node soft
  chown $other "$work/soft"
  start_node
  works
  stop_node
fi
# A directory that may not be written, a port that may not be bound.
wrap=("${as_nobody[@]}")
new_node unwritable
launch_node
ended 1 "a data directory that cannot be made"
grep -q "start_failed.*$data: Permission denied" "$work/log" || not_so 0 "$(cat "$work/log")"
done_with "too little locked memory, no right to the data directory: said, or done without"
