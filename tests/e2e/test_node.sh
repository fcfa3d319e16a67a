#!/usr/bin/env bash
# test_node.sh - one node from end to end: what is sent is there, once; what is sent again is known; what is
# set is kept; what is stopped goes on; and every account of it balances.
#
# With LEDGER_MISCOUNT or DEDUPE_OFF planted, this must fail.
. "$(dirname "$0")/lib.sh"

n_tcp=20000 n_udp=20000
[ "$mode" = quick ] || n_tcp=400000 n_udp=200000
ingest_more='  workers: 2'
configure 'log:
  segment_bytes: 4MiB'
start_node

# send RUN COUNT SEED [OPTION...]: always the same events for the same run, count and seed. On stdout the
# summary; receipts in $work/receipts.RUN.
now=$("$python" -c 'import time; print(time.time_ns() - 3600 * 10**9)')
send() {
  local run=$1 count=$2 seed=$3
  shift 3
  sluice send --address "$to" --generate "$count" --run "$run" --seed "$seed" --time-from "$now" \
    --source "run$run" --json-summary --quiet "$@"
}

# check.py holds the log against what was sent: every event once, each where its receipt says.
check_log() { # check_log [--receipts FILE] RUN:SOURCE:COUNT...
  sluice tail --from 1 --no-follow --json >"$work/events.jsonl" || fail "tail fails"
  "$python" -B "$root/deploy/demo/check.py" events "$@" <"$work/events.jsonl" >"$work/check" || {
    cat "$work/check"
    fail "the log is not what was sent"
  }
}

# --- sending, reading ------------------------------------------------------------------------------

send 1 $n_tcp 1 --receipts-file "$work/receipts.1" >"$work/tcp.json" || fail "send over TCP"
expect "$(json "$work/tcp.json" accepted)" $n_tcp "accepted over TCP"
expect "$(wc -l <"$work/receipts.1")" $n_tcp "lines of receipts"
expect "$(cut -d' ' -f4 "$work/receipts.1" | sort -u)" ACCEPTED "what became of them"
send 2 $n_udp 1 --udp --rate 50000 --batch 5 >"$work/udp.json" || fail "send over UDP"
all_there() { sluice ledger --json >"$work/ledger.json" || return 1
  [ "$(json "$work/ledger.json" events total committed)" = $((n_tcp + n_udp)) ]; }
until_true "all that was sent over UDP is committed" all_there
ledger
expect "$(json "$work/ledger.json" datagrams delivered)" "$(json "$work/udp.json" batches)" "datagrams delivered"
expect "$(json "$work/ledger.json" datagrams seen)" "$(json "$work/udp.json" batches)" "datagrams seen"
done_with "$n_tcp events over TCP with receipts, $n_udp over UDP; the ledgers balance"

check_log 1:run1:$n_tcp 2:run2:$n_udp --receipts "$work/receipts.1"
# The ledger by type against the log by type: counted by others than those who counted the events.
for type in TRADE QUOTE ORDERBOOK; do
  in_log=$(grep -c "\"type\":\"$type\"" "$work/events.jsonl")
  in_ledger=$("$python" -c 'import json, sys
print(sum(t["committed"] for t in json.load(open(sys.argv[1]))["events"]["types"] if t["name"] == sys.argv[2].lower()))' \
    "$work/ledger.json" $type)
  expect "$in_ledger" "$in_log" "$type in the ledger and in the log"
done
done_with "tail gives every event exactly once, where its receipt says; by type as the ledger says"

read -r id index slot _ < <(sed -n 777p "$work/receipts.1")
exits 0 sluice get "1-$index-$slot" --json
cp "$work/out" "$work/by_place"
exits 0 sluice get "$id" --source run1 --json
cmp -s "$work/out" "$work/by_place" || fail "get by place and by id differ"
grep -qF "$(cat "$work/by_place")" "$work/events.jsonl" || fail "get and tail differ"
exits 1 sluice get "1-$index-2047"
exits 1 sluice get "3-$index-$slot"
exits 1 sluice get nobody --source run1
done_with "get finds an event by its place and by its id, and nothing else"

# --- again, and otherwise --------------------------------------------------------------------------

events_before=$(wc -l <"$work/events.jsonl")
exits 0 sluice tail --from 1 --no-follow --count 10 --type quote --symbol "$(json "$work/by_place" symbol)"
send 1 $n_tcp 1 --receipts-file "$work/again.1" >"$work/again.json" || fail "send again"
expect "$(json "$work/again.json" duplicates)" $n_tcp "duplicates when sent again"
expect "$(json "$work/again.json" accepted)" 0 "accepted when sent again"
cmp -s <(cut -d' ' -f1-3 "$work/receipts.1" | sort) <(cut -d' ' -f1-3 "$work/again.1" | sort) ||
  fail "duplicates are not told the first place"
send 2 $n_udp 1 >"$work/again.json" || fail "send over TCP what came over UDP"
expect "$(json "$work/again.json" duplicates)" $n_udp "duplicates of what came over UDP"
check_log 1:run1:$n_tcp 2:run2:$n_udp
expect "$(wc -l <"$work/events.jsonl")" "$events_before" "events in the log"
done_with "sent again: all duplicates, with their first places; nothing new in the log"

exits 1 send 1 100 2
expect "$(json "$work/out" refused_by_reason ID_CONFLICT)" 100 "conflicts"
ledger
expect "$(json "$work/ledger.json" events total conflict)" 100 "conflicts in the ledger"
expect "$(json "$work/ledger.json" events total duplicate)" $((n_tcp + n_udp)) "duplicates in the ledger"
# Of hostile events the ledger must know every one, and under its reason. What it knows already: the
# conflicts above.
exits 0 sluice config set type.unwanted 100
exits 0 sluice config set admit.unwanted drop
"$python" -B "$root/deploy/demo/hostile.py" --to "$to" --each 5 --rate 5000 --dropped-type 100 >"$work/hostile.json"
expect "$(json "$work/hostile.json" answers)" "$(json "$work/hostile.json" receipts)" "answers to those who asked"
sent=$(json "$work/hostile.json" sent)
seen_all() { ledger_quiet && [ "$(json "$work/ledger.json" datagrams seen)" = $((sent + $(json "$work/udp.json" batches))) ]; }
until_true "all datagrams are seen" seen_all
"$python" - "$work/ledger.json" "$work/hostile.json" <<'PY' || fail "hostile events are not accounted for"
import json, sys
ledger, hostile = (json.load(open(f)) for f in sys.argv[1:])
some = lambda counts: {k: v for k, v in counts.items() if v}
by_type = lambda what: some({str(t["type"]): t[what] for t in ledger["events"]["types"]})
for got, wanted in ((some(ledger["events"]["reasons"]), hostile["reasons"]),
                    (some(ledger["datagrams"]["drops"]), hostile["drops"]),
                    (by_type("invalid"), hostile["invalidByType"]),
                    (by_type("refused"), hostile["refusedByType"]),
                    (ledger["streams"]["udp_receipts"], hostile["receipts"])):
    if got != wanted:
        print("got", got, "wanted", wanted)
        sys.exit(1)
PY
ledger
done_with "other bytes under a known id are a conflict; hostile events are counted under their reasons"

# --- settings --------------------------------------------------------------------------------------

exits 1 send 3 100 1 --types custom:1 --custom-type 77
expect "$(json "$work/out" refused_by_reason TYPE_UNKNOWN)" 100 "refused while the type has no name"
# Over UDP it is the datagram that is dropped, unless it wants a receipt.
exits 0 send 3 100 1 --types custom:1 --custom-type 77 --udp --rate 5000 --batch 5
exits 0 sluice config set type.news 77
exits 0 sluice config set class.news 2
news() { send 3 100 1 --types custom:1 --custom-type 77 >/dev/null; }
until_true "the type is taken" news
for bad in 'type.news 63' 'type.news 128' 'type.news x' 'class.trade 4' 'admit.trade maybe' 'skew.past_ms 1.5' 'skew.past_ms 99999999999999999999' \
  'event.bytes_max 1' 'no.such.key 1' 'type.Bad-Name! 64' 'admit.nosuch drop' 'source.10.0.0.1/8 deny' 'source.10.0.0.0/8 drop' \
  'limit.syn_burst 0' 'shadow.class.trade 4' 'shadow promote'; do
  # shellcheck disable=SC2086
  exits 4 sluice config set $bad
  [ -s "$work/err" ] || fail "config set $bad is refused without a word"
done
exits 0 sluice config set skew.past_ms 1000
exits 1 send 4 10 1
says TIMESTAMP_PAST
exits 0 sluice config set skew.past_ms ''
exits 0 sluice config history --json
expect "$("$python" -c 'import json, sys
print(" ".join("%s=%s" % (h["key"], h["value"]) for h in json.load(open(sys.argv[1]))))' "$work/out")" \
  'type.unwanted=100 admit.unwanted=drop type.news=77 class.news=2 skew.past_ms=1000 skew.past_ms=' "history of the settings"
# More than a checkpoint keeps: the log has the rest.
for i in {1..50}; do exits 0 sluice config set skew.future_ms $((5000 + i)); done
exits 0 sluice config history --json
expect "$("$python" -c 'import json, sys
h = json.load(open(sys.argv[1]))
print(len(h), h[2]["key"], h[6]["value"], h[-1]["value"], all(a["index"] < b["index"] for a, b in zip(h, h[1:])))' "$work/out")" \
  '56 type.news 5001 5050 True' "all of a long history"
exits 0 sluice config set admit.70 'rate 500'
exits 0 sluice config set source.2001:DB8:0::/32 deny
exits 0 sluice config set shadow.class.news 3
exits 0 sluice config set shadow promote
exits 0 sluice config set shadow.source.2001:db8::/32 none
exits 0 sluice config history --json
cp "$work/out" "$work/history"
while read -r key value; do
  exits 0 sluice config get "$key" --json
  expect "$(json "$work/out" 0 value)" "$value" "$key"
done <<'EOF'
admit.70 rate 500 burst 50
source.2001:db8::/32 deny
class.news 3
shadow.source.2001:db8::/32 none
limit.syn_burst 100
EOF
exits 1 sluice config get shadow.class.news
exits 0 sluice config get type.news --json
expect "$(json "$work/out" 0 value)" 77 "type.news"
exits 0 sluice config get --json
cp "$work/out" "$work/settings"
done_with "settings: set, refused with a reason, kept in order; a type of one's own is taken"

# --- stop under load, start again ------------------------------------------------------------------

n_load=2000000 # more than can be sent before the stop
sluice send --address "$to" --generate $n_load --run 5 --source run5 --receipts-file "$work/receipts.5" --quiet \
  --give-up 1 >/dev/null 2>&1 &
load=$!
background=("$load")
under_load() { [ -e "$work/receipts.5" ] && [ "$(wc -l <"$work/receipts.5")" -ge 20000 ]; }
until_true "load has receipts" under_load
stop_node
wait "$load" && fail "the load was over before the stop"
background=()
exits 0 sluice log verify "$data" --json
expect "$(json "$work/out" problems)" '[]' "problems of the log"
verified=$(json "$work/out" events)
digest=$(json "$work/out" digest)
start_node
exits 0 sluice status --json
expect "$(json "$work/out" events)" "$verified" "events after the restart, and those that verify counted"
[ "$(json "$work/out" lastIndex)" -gt 3 ] || fail "status has no log"
ledger
expect "$(json "$work/ledger.json" events unaccounted)" 0 \
  "unaccounted after a stop by SIGTERM"
sluice tail --from 1 --no-follow --source run5 --json >"$work/events.jsonl"
"$python" - "$work/receipts.5" "$work/events.jsonl" <<'PY' || fail "what has a receipt is not there"
import base64, json, sys
log = {}
for line in open(sys.argv[2]):
    e = json.loads(line)
    ident = base64.b64decode(e["id"]).decode()
    if ident in log:
        sys.exit("twice: " + ident)
    log[ident] = e["enrichment"]["ingestionId"].split("-")[1:]
n = 0
for line in open(sys.argv[1]):
    ident, index, slot, reason = line.split()
    if reason in ("ACCEPTED", "DUPLICATE"):
        n += 1
        if log.get(ident) != [index, slot]:
            sys.exit("%s: receipt for %s-%s, log says %s" % (ident, index, slot, log.get(ident)))
if n < 20000:
    sys.exit("only %d receipts" % n)
PY
done_with "SIGTERM under load: exit 0, the log verifies, what has a receipt is there once, no event unaccounted for"

send 1 $n_tcp 1 --receipts-file "$work/again.2" >"$work/again.json" || fail "send again after the restart"
expect "$(json "$work/again.json" duplicates)" $n_tcp "duplicates after the restart"
cmp -s <(cut -d' ' -f1-3 "$work/receipts.1" | sort) <(cut -d' ' -f1-3 "$work/again.2" | sort) ||
  fail "after the restart duplicates are not told the first place"
exits 1 send 2 100 2
expect "$(json "$work/out" refused_by_reason ID_CONFLICT)" 100 "conflicts after the restart"
exits 0 sluice config get --json
cmp -s "$work/out" "$work/settings" || fail "settings after the restart differ"
exits 0 sluice config history --json
cmp -s "$work/out" "$work/history" || fail "history after the restart differs"
ledger
stop_node
exits 0 sluice log verify "$data" --json
expect "$(json "$work/out" events)" "$verified" "events, after nothing new was sent"
[ "$(json "$work/out" digest)" != "$digest" ] || done_with "nothing was written by duplicates alone"
rm -rf "$data/dedupe" "$data/checkpoint"
start_node
send 2 $n_udp 1 >"$work/again.json" || fail "send again after a rebuild"
expect "$(json "$work/again.json" duplicates)" $n_udp "duplicates after dedupe was rebuilt from the log"
ledger
stop_node
done_with "restarts: duplicates, conflicts and settings are known as before; so they are when all indexes are gone"
