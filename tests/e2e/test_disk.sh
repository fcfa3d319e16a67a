#!/usr/bin/env bash
# test_disk.sh - a disk that is full, and one that can no longer be written. A small ext4 image is mounted in
# a mount namespace of this test's own, so it needs root and a loop device.
if [ -z "${SLUICE_DISK_NS-}" ]; then
  [ "$(id -u)" = 0 ] || { echo "needs root, to mount a small file system"; exit 77; }
  unshare -m true 2>/dev/null || { echo "needs a mount namespace of its own (unshare -m)"; exit 77; }
  SLUICE_DISK_NS=1 exec unshare -m --propagation private bash "$0" "$@"
fi
. "$(dirname "$0")/lib.sh"

disk=$work/disk
data=$disk/data
mkdir "$disk"
truncate -s 200M "$work/image"
mkfs.ext4 -q -m 0 -F "$work/image" >/dev/null 2>&1 || skip "mkfs.ext4 does not work here"
mount -o loop "$work/image" "$disk" 2>"$work/why" || skip "no loop mount here: $(cat "$work/why")"
unmount_and_clean_up() {
  local rc=$?
  if [ -n "$node" ]; then kill -9 "$node" 2>/dev/null || true; wait "$node" 2>/dev/null || true; fi
  node=''
  umount -l "$disk" 2>/dev/null || true
  clean_up "$rc"
}
trap unmount_and_clean_up EXIT

configure 'log:
  segment_bytes: 4MiB
  disk_free_bytes_min: 16MiB'
run=0
# load COUNT: sends new events over TCP; receipts of all runs are gathered; what became of them in $work/sent.
load() {
  run=$((run + 1))
  sluice send --address "$to" --generate "$1" --run $run --source disk --types trade:1 --size 1000 --batch 50 --quiet \
    --json-summary --give-up 2 --receipts-file "$work/receipts" >"$work/sent" 2>"$work/send_err"
}
# Every event with a receipt is at its place, once; nothing is there that has neither a receipt nor lost one.
check_receipts() {
  sluice tail --from 1 --no-follow --json >"$work/events.jsonl" || not_so 1 "tail"
  "$python" - "$work/receipts" "$work/events.jsonl" <<'PY' || not_so 1 "receipts and log differ"
import base64, json, sys
log = {}
for line in open(sys.argv[2]):
    e = json.loads(line)
    ident = base64.b64decode(e["id"]).decode()
    if ident in log:
        sys.exit("twice: " + ident)
    log[ident] = e["enrichment"]["ingestionId"].split("-")[1:]
answered = refused = 0
for line in open(sys.argv[1]):
    ident, index, slot, reason = line.split()
    if reason in ("ACCEPTED", "DUPLICATE"):
        answered += 1
        if log.get(ident) != [index, slot]:
            sys.exit("%s: receipt says %s-%s, log %s" % (ident, index, slot, log.get(ident)))
    elif reason != "NO_RECEIPT":
        refused += 1
        if ident in log:
            sys.exit("%s was refused with %s, and is in the log" % (ident, reason))
print("     %d receipts, %d refused, %d events in the log" % (answered, refused, len(log)))
PY
}
disk_full() { sluice status --json >"$work/status" || [ $? = 1 ] || return 1; [ "$(json "$work/status" diskFull)" = "$1" ]; }

# --- full ------------------------------------------------------------------------------------------

start_node
load 20000 || fail "send to a disk that has room: $(cat "$work/sent" "$work/send_err")"
head -c 60M /dev/urandom >"$disk/balloon"
until_full() { ! load 30000; }
until_true "events are refused" until_full
[ "$(json "$work/sent" refused_by_reason DISK_FULL)" -gt 0 ] || fail "refused, but not as DISK_FULL: $(cat "$work/sent")"
kill -0 "$node" 2>/dev/null || fail "the node ended when the disk was full"
until_true "status says that the disk is full" disk_full true
exits 1 sluice status
says 'FULL'
free=$(df -B1 --output=avail "$disk" | tail -n 1)
[ "$free" -ge $((8 << 20)) ] || fail "only $free bytes are left: less than half of disk_free_bytes_min"
check_receipts
ledger
load 1000 && fail "events are taken although the disk is full"
expect "$(json "$work/sent" accepted)" 0 "accepted while the disk is full"
# A setting is a log entry too.
exits 4 sluice config set type.late 70
[ -s "$work/err" ] || fail "config set on a full disk is refused without a word"
kill -0 "$node" 2>/dev/null || fail "the node ended after config set on a full disk"
done_with "a full disk: events are refused as DISK_FULL, the node goes on, every receipt holds"

dd if=/dev/zero of="$disk/fill" bs=1M >/dev/null 2>&1 || true
[ "$(df -B1 --output=avail "$disk" | tail -n 1)" -lt $((1 << 20)) ] || fail "the disk cannot be filled to the last byte"
load 100 && fail "events are taken although not a byte is left"
kill -0 "$node" 2>/dev/null || fail "the node ended when others filled the disk to the last byte"
exits 1 sluice status
check_receipts
done_with "filled by others to the last byte"

rm "$disk/balloon" "$disk/fill"
again() { load 1000; }
until_true "events are taken again" again
until_true "status says that there is space" disk_full false
exits 0 sluice config set type.late 70
check_receipts
ledger
stop_node
exits 0 sluice log verify "$data"
start_node
check_receipts
done_with "space again: it goes on by itself"

# --- not to be written any more --------------------------------------------------------------------

sluice send --address "$to" --generate 0 --rate 2000 --run 900 --source disk --types trade:1 --size 1000 --batch 20 --quiet --give-up 2 \
  --receipts-file "$work/receipts" >/dev/null 2>&1 &
background=("$!")
lines=$(wc -l <"$work/receipts")
moving() { [ "$(wc -l <"$work/receipts")" -ge $((lines + 2000)) ]; }
until_true "load before the disk fails" moving
# As when ext4 meets an error and remounts itself: writes fail from one moment to the next.
if mount -o remount,abort "$disk" 2>/dev/null || echo 1 >"/sys/fs/ext4/$(basename "$(findmnt -no SOURCE "$disk")")/trigger_fs_error" 2>/dev/null; then
  ended 3 "its disk fails"
  tail -n 3 "$work/log" | grep -qE 'node_failed.*(Input/output|Read-only|errno|write|log)' ||
    fail "its last words do not say what failed: $(tail -n 3 "$work/log")"
  wait "${background[0]}" || true
  background=()
  umount -l "$disk"
  mount -o loop "$work/image" "$disk" || skip "the image cannot be mounted again"
  start_node
  check_receipts
  load 1000 || fail "send after the disk is back"
  check_receipts
  ledger
  stop_node
  exits 0 sluice log verify "$data"
  done_with "a disk that fails under load: exit 3, and no receipt that does not hold"
else
  kill "${background[0]}"
  wait "${background[0]}" || true
  background=()
  stop_node
  done_with "(a failing disk cannot be brought about here)"
fi

mount -o remount,ro "$disk"
launch_node
ended 1 "a read-only directory"
tail -n 1 "$work/log" | grep -q 'Read-only file system' || fail "does not say that it is read-only: $(tail -n 1 "$work/log")"
mount -o remount,rw "$disk"
start_node
check_receipts
stop_node
done_with "a read-only file system: refused with a sentence, and no harm done"

# --- start on a full disk --------------------------------------------------------------------------

start_node
head -c "$(($(df -B1 --output=avail "$disk" | tail -n 1) - (8 << 20)))" /dev/zero >"$disk/balloon"
until_true "events are refused" until_full
stop_node
start_node
check_receipts
load 100 && fail "events are taken after a restart although the disk is full"
expect "$(json "$work/sent" refused_by_reason DISK_FULL)" 100 "refused after a restart on a full disk"
kill_node
start_node
check_receipts
rm "$disk/balloon"
until_true "events are taken again" again
stop_node
exits 0 sluice log verify "$data"
done_with "stop, kill and start on a full disk"
