#!/usr/bin/env bash
# test_damage.sh - what happened to a data directory while nobody ran: flipped bits, cut, missing and stale
# files. What the log alone has must be found and refused, with a sentence that names the file, and nothing
# may be changed by the refusal; what can be made from the log again is made again, and nothing is forgotten.
. "$(dirname "$0")/lib.sh"

n=39000
configure 'log:
  segment_bytes: 1MiB
log_level: info'
now=$("$python" -c 'import time; print(time.time_ns() - 3600 * 10**9)')
send() { # send RECEIPTS-FILE
  sluice send --address "$to" --generate $n --run 1 --time-from "$now" --source s --quiet --json-summary \
    --batch 200 --receipts-file "$1"
}
# last_record FILE: where the last record of a segment begins.
last_record() {
  "$python" - "$1" <<'PY'
import sys
data = open(sys.argv[1], "rb").read()
at = max((i for i in range(0, len(data), 4096) if data[i:i + 4096].strip(b"\0")), default=0)
while at > 4096 and data[at:at + 4] != data[4096:4100]:
    at -= 4096
print(at)
PY
}
# How the events fall into records is a matter of time, and so is where the last segment ends; what is
# damaged below lies in its first 20 KiB and must be there.
end=0
while [ "$end" -le 24576 ]; do
  n=$((n + 1000))
  start_node
  rm -f "$work/receipts"
  send "$work/receipts" >"$work/out" || fail "send"
  exits 0 sluice config set type.news 70
  stop_node
  mapfile -t segments < <(cd "$data/log" && ls -- *.seg)
  end=$(last_record "$data/log/${segments[-1]}")
done
mv "$data" "$work/good"
sort "$work/receipts" | cut -d' ' -f1-3 >"$work/places"
[ ${#segments[@]} -ge 5 ] || fail "only ${#segments[@]} segments"
last=${segments[-1]} before_last=${segments[-2]} middle=${segments[2]}
find "$work/good" -type f | sed "s|$work/good/||" | sort >"$work/files"
done_with "a directory of ${#segments[@]} segments with $n events"

fresh() { rm -rf "$data"; cp -a "$work/good" "$data"; }
sums() { (cd "$data/log" && find . -type f ! -name LOCK -exec sha256sum {} + | sort); }

# flip FILE OFFSET [BIT]
flip() {
  "$python" - "$data/$1" "$2" "${3-3}" <<'PY'
import os, sys
f = os.open(sys.argv[1], os.O_RDWR)
at = int(sys.argv[2])
byte = os.pread(f, 1, at)
os.pwrite(f, bytes([byte[0] ^ 1 << int(sys.argv[3])]), at)
PY
}

serves() { sluice status >/dev/null 2>&1 || ! kill -0 "$node" 2>/dev/null; }

# refused PATTERN WHAT: the node does not start, says why, and changes nothing that is there.
refused() {
  local said
  sums >"$work/before"
  : >"$work/log"
  launch_node
  until_true "the node starts or refuses: $2" serves
  if kill -0 "$node" 2>/dev/null; then
    not_so 1 "the node starts in spite of: $2"
    stop_node
    return
  fi
  ended 1 "$2"
  said=$(tail -n 1 "$work/log")
  [[ $said == *start_failed* ]] || not_so 1 "$2: says '$said'"
  grep -qE -- "$1" <<<"$said" || not_so 1 "$2: '$said' does not say '$1'"
  sums | comm -23 "$work/before" - >"$work/changed"
  [ ! -s "$work/changed" ] || not_so 1 "$2: the refused start changed the log: $(cat "$work/changed")"
}

# found PATTERN WHAT: `sluice log verify` finds something, and says where.
found() {
  exits 1 sluice log verify "$data"
  grep '^problem:' "$work/out" | grep -qE -- "$1" || fail "$2: verify does not say '$1' but: $(head -n 3 "$work/out")"
  exits 1 sluice log verify "$data" --json
  [ "$(json "$work/out" problems)" != '[]' ] || fail "$2: no problems in verify's JSON"
}

# knows WHAT: the node starts, has every event at its place, and knows all of them when they are sent again.
knows() {
  start_node
  rm -f "$work/again"
  send "$work/again" >"$work/out" || fail "$1: send again"
  expect "$(json "$work/out" duplicates)" $n "$1: duplicates"
  sort "$work/again" | cut -d' ' -f1-3 | cmp -s - "$work/places" || fail "$1: first places differ"
  exits 0 sluice status --json
  expect "$(json "$work/out" events)" $n "$1: events"
  exits 0 sluice config get type.news --json
  expect "$(json "$work/out" 0 value)" 70 "$1: a setting"
  exits 0 sluice ledger
  stop_node
  exits 0 sluice log verify "$data"
}

fresh
knows "no damage"
done_with "an undamaged copy starts and knows everything"

# --- rot in the log --------------------------------------------------------------------------------

# Offsets in a segment: its header; the first record's header, its payload, and a later one's.
for segment in "${segments[0]}" "$middle" "$last"; do
  for at in 0 20 4096 4100 4130 4240 $((4096 + 160)) $((4096 + 300)) 20480; do
    fresh
    flip "log/$segment" $at
    found "$segment" "bit flip in $segment at $at"
    [ $at -lt 4096 ] || grep -qE 'offset|at [0-9]' "$work/out" || fail "verify does not name an offset: $(cat "$work/out")"
  done
done
done_with "verify finds every flipped bit and names file and offset"

# What a checkpoint covers is not read by a start; what lies above it is.
for at in 0 4096 4130 $((4096 + 300)); do
  fresh
  rm -rf "$data/checkpoint" "$data/dedupe"
  flip "log/$middle" $at
  refused "$middle" "bit flip in a middle segment, nothing but the log left, at $at"
  fresh
  flip "log/$last" $at
  refused "$last" "bit flip in the last segment at $at"
done
# A damaged record below the checkpoint is told when it is read, and the rest can still be read.
fresh
flip "log/$middle" $((4096 + 300))
launch_node
until_true "the node starts or refuses" serves
if kill -0 "$node" 2>/dev/null; then
  exits 4 sluice tail --from 1 --no-follow --json
  says 'damaged'
  first=$((16#${middle:17:16}))
  exits 4 sluice get "1-$first-0"
  says 'damaged'
  stop_node
else
  ended 1 "rot below the checkpoint"
fi
done_with "a start refuses rot, says where, and changes nothing; rot that is met later is told, not given out"

# The very last record: the mark says that it was durable, so it is rot, not a torn write.
fresh
flip "log/$last" $((end + 8))
found "$last" "bit flip in the last record"
refused "$last" "bit flip in the last record"
fresh
"$python" -c 'import os, sys; os.pwrite(os.open(sys.argv[1], os.O_RDWR), b"\0" * 4096, int(sys.argv[2]))' "$data/log/$last" "$end"
refused '.' "the last record zeroed"
done_with "the last record, rotten or gone, is missed"

# --- files of the log, missing, cut and stale ------------------------------------------------------

fresh; rm "$data/log/$middle"
found '.' "a middle segment removed"
fresh; rm "$data/log/$middle"; rm -rf "$data/checkpoint" "$data/dedupe"
refused '.' "a middle segment removed"
fresh; rm "$data/log/$before_last"
refused '.' "the segment before the last removed"
fresh; rm "$data/log/$last"
refused '.' "the last segment removed"
fresh; rm "$data/log/"*.seg
refused '.' "all segments removed"
fresh; rm "$data/log/"*.seg "$data/log/mark"
refused '.' "all but state removed"
fresh; find "$data/log" -type f ! -name state -delete; rm -rf "$data/checkpoint" "$data/dedupe"
refused '.' "all but state removed, checkpoint and dedupe too"
fresh; truncate -s 8192 "$data/log/$last"
refused "$last" "the last segment cut"
fresh; truncate -s 40960 "$data/log/$middle"
found "$middle" "a middle segment cut"
fresh; : >"$data/log/$last"
refused "$last" "the last segment empty"
fresh; cp "$data/log/$middle" "$data/log/$last"
refused "$last" "another segment's content in the last one"
fresh; cp "$data/log/$middle" "$data/log/0000000000000001-00000000ffffffff.seg"
refused '.' "a segment too many"
fresh; touch "$data/log/strange.seg"
refused 'strange.seg' "a file that is no segment"
fresh; rm "$data/log/mark"
refused 'mark' "mark removed"
fresh; rm "$data/log/state"
refused 'state' "state removed"
found 'term and vote are missing' "state removed"
done_with "segments, mark or state missing, cut, empty or exchanged: refused"

# --- two-slot files --------------------------------------------------------------------------------

for file in state mark; do
  fresh; flip "log/$file" 100; flip "log/$file" $((4096 + 100))
  refused "$file" "both slots of $file damaged"
  found "$file" "both slots of $file damaged"
  for slot in 0 4096; do
    fresh; flip "log/$file" $((slot + 9))
    knows "one slot of $file damaged"
    cmp -s <(head -c 4096 "$data/log/$file") <(tail -c 4096 "$data/log/$file") || fail "$file is not repaired"
  done
  fresh; truncate -s 4096 "$data/log/$file"
  : >"$work/log"
  launch_node
  until_true "the node starts or refuses with half a $file" serves
  if kill -0 "$node" 2>/dev/null; then stop_node; else ended 1 "half a $file"; fi
done
done_with "state and mark: one slot is repaired, two are refused"

# --- what can be made again ------------------------------------------------------------------------

mapfile -t derived < <(grep -E '^(dedupe|checkpoint)/|^ledger$' "$work/files")
[ ${#derived[@]} -ge 3 ] || fail "what is derived from the log: ${derived[*]}"
for file in "${derived[@]}"; do
  size=$(stat -c %s "$work/good/$file")
  for at in 0 $((size / 2)) $((size - 1)); do
    fresh; flip "$file" $at
    knows "$file with a flipped bit at $at"
  done
  fresh; truncate -s $((size / 2)) "$data/$file"
  knows "$file cut in half"
  fresh; : >"$data/$file"
  knows "$file empty"
  fresh; rm "$data/$file"
  knows "$file removed"
done
for dir in dedupe checkpoint; do
  fresh; rm -rf "${data:?}/$dir"
  knows "$dir removed"
done
fresh; rm -rf "$data/dedupe" "$data/checkpoint" "$data/ledger"
knows "all but the log removed"
done_with "dedupe, checkpoint and ledger, however damaged, are made again: every event is still known"

# A new log beside the old indexes must not be mistaken for the old one.
fresh; rm -rf "$data/log"
launch_node
until_true "the node starts or refuses without log" serves
if kill -0 "$node" 2>/dev/null; then
  sluice send --address "$to" --generate $n --run 1 --time-from "$now" --source s --quiet --json-summary >"$work/out" ||
    fail "send to a new log"
  expect "$(json "$work/out" accepted)" $n "accepted by a new log beside old indexes"
  exits 0 sluice ledger
  stop_node
  exits 0 sluice log verify "$data"
  done_with "a new log beside old indexes: nothing of the old one is believed"
else
  ended 1 "log removed"
  done_with "indexes without their log: refused"
fi
