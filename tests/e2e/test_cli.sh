#!/usr/bin/env bash
# test_cli.sh - what the two programs say and how they end, whatever they are given: exit codes, JSON that is
# JSON, configuration errors with a place and the nearest key, help for everything, and who may use them.
. "$(dirname "$0")/lib.sh"

# One document, or one a line.
is_json() {
  "$python" -c 'import json, sys
text = open(sys.argv[1]).read()
try:
    json.loads(text)
except ValueError:
    sys.exit(not [json.loads(line) for line in text.splitlines()])' "$work/out" 2>/dev/null ||
    not_so 1 "not JSON: $(head -c 300 "$work/out")"
}
sluiced() { timeout 20 "$bin/sluiced" "$@"; }

# --- without a daemon ------------------------------------------------------------------------------

exits 0 sluice --help
mapfile -t commands < <(awk '/^Commands:/ { on = 1; next } on && NF == 0 { exit } on { print $1 }' "$work/out" | grep -v '^help$')
for must in status ledger tail get config log send bench xdp tap cert; do
  [[ " ${commands[*]} " == *" $must "* ]] || not_so 0 "--help does not list $must: ${commands[*]}"
done
for c in "${commands[@]}"; do
  exits 0 sluice "$c" --help
  says "sluice $c"
  says 'Exit codes'
  says 'Examples:'
  [ ! -s "$work/err" ] || not_so 0 "$c --help writes to stderr"
  cp "$work/out" "$work/help"
  exits 0 sluice help "$c"
  cmp -s "$work/out" "$work/help" || not_so 0 "help $c and $c --help differ"
  exits 2 sluice "$c" --no-such-option
  says "^sluice $c: .*--no-such-option"
  says "^Try: .*--help"
  [ ! -s "$work/out" ] || not_so 0 "$c with a wrong option writes to stdout"
done
exits 0 sluice --version
exits 0 sluiced --help
exits 0 sluiced --version
exits 2 sluice
exits 2 sluice stauts
says "did you mean 'status'"
exits 2 sluice nonsense-command
exits 2 sluice help nonsense
exits 2 sluice get
exits 2 sluice get a b
exits 2 sluice get '' --source x
exits 2 sluice config
exits 2 sluice config frobnicate
exits 2 sluice config set one
exits 2 sluice log
exits 2 sluice log verify
exits 2 sluice tail --from 0
exits 2 sluice tail --from x
exits 2 sluice tail --count -1
exits 2 sluice status extra
exits 2 sluice send
exits 2 sluice send --generate x
exits 2 sluice send --generate 1 --batch 0
exits 2 sluice bench --rate x
exits 2 sluiced --no-such-option
exits 2 sluiced extra
done_with "help for ${#commands[@]} commands; wrong usage is told and exits with 2"

for c in status ledger 'tail --no-follow' 'get 1-4-0' 'config get' 'config history' 'config show' 'config set type.x 70' \
  'xdp status' 'xdp top' 'xdp policy get' 'xdp policy set quote drop' 'xdp policy promote' \
  'xdp policy test --hex 08 --from 127.0.0.1' 'tap --dropped all'; do
  # shellcheck disable=SC2086
  exits 3 sluice $c
  says 'no daemon'
  [ ! -s "$work/out" ] || not_so 0 "$c writes to stdout although there is no daemon"
done
exits 3 sluice send --generate 10 --address "$to" --connect-timeout 1
exits 3 sluice bench --to "$to"
"$python" -c 'import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1])' "$work/dead.sock"
exits 3 sluice status --socket "$work/dead.sock"
exits 4 sluice log verify "$work/nowhere"
mkdir "$work/empty"
exits 4 sluice log verify "$work/empty"
long=$work/$(printf 'x%.0s' {1..120})
mkdir "$long"
printf 'ingest:\n  port: %s\n' "$port" >"$work/long.yaml"
exits 1 sluiced --config "$work/long.yaml" --data "$long/d"
says 'name too long \(admin.socket names another place\)'
done_with "no daemon, no log: said, and exit 3 or 4"

# --- configuration files ---------------------------------------------------------------------------

exits 0 sluice config show --sample
cp "$work/out" "$work/sample.yaml"
cmp -s "$work/sample.yaml" "$root/deploy/config/sluiced.yaml" || not_so 0 "deploy/config/sluiced.yaml is not the sample"
exits 0 sluice config check "$work/sample.yaml"
exits 0 sluice config show --file "$work/sample.yaml" --json
is_json
exits 0 sluice config show --file "$work/sample.yaml"

# bad YAML PATTERN: refused by `config check` (1) and by sluiced (2), in the same words.
bad() {
  printf '%b' "$1" >"$work/bad.yaml"
  exits 1 sluice config check "$work/bad.yaml"
  says "bad.yaml:[0-9]+:[0-9]+: "
  says "$2"
  exits 1 sluice config check "$work/bad.yaml" --json
  is_json
  exits 2 sluiced --config "$work/bad.yaml" --data "$work/never"
  says "bad.yaml:[0-9]+:[0-9]+: "
  says "$2"
  [ ! -e "$work/never" ] || not_so 0 "sluiced made a data directory in spite of: $1"
}
bad 'ingest:\n  prot: 7400\n' 'bad.yaml:2:3: .*ingest\.port'
bad 'ingets:\n  port: 7400\n' 'bad.yaml:1:1: .*ingest'
bad 'log:\n  segment_byte: 1MiB\n' 'bad.yaml:2:3: .*log\.segment_bytes'
bad 'segment_bytes: 1MiB\n' 'log\.segment_bytes'
bad 'ingest:\n  port: 70000\n' 'bad.yaml:2:9: .*65535'
bad 'ingest:\n  port: 0\n' '1'
bad 'ingest:\n  port: 7400\n  port: 7401\n' 'bad.yaml:3:'
bad 'ingest:\n  port: many\n' 'bad.yaml:2:9'
bad 'ingest:\n\tport: 1\n' '.'
bad 'ingest: [\n' '.'
bad 'ingest:\n  address: [0.0.0.0]\n' 'insecure'
bad 'ingest:\n  address: [0.0.0.0]\n  insecure: true\n' 'allow'
bad 'ingest:\n  udp:\n    allow: [300.0.0.0/8]\n' '300'
bad 'ingest:\n  udp:\n    buffers: 1000\n' 'power of two'
bad 'log:\n  segment_bytes: 1048577\n' '4 ?KiB|multiple'
bad 'log_level: loud\n' 'debug'
bad 'ingest:\n  xdp:\n    mode: fast\n' 'auto, native, generic or socket'
bad 'ingest:\n  xdp:\n    interfaces: [eth/0]\n' 'bad.yaml:3:18: .*interface'
bad 'ingest:\n  udp:\n    enabled: false\n  xdp:\n    interfaces: [eth0]\n' 'bad.yaml:5:17: .*ingest\.udp\.enabled'
bad 'admin:\n  uids: [root]\n' '.'
exits 1 sluice config check "$work/nowhere.yaml"
exits 2 sluiced --config "$work/nowhere.yaml"
# What check calls good must also start.
for good in 'dedupe:\n  memory_bytes_max: 1MiB' 'dedupe:\n  memory_bytes_max: 16MiB' 'pipeline:\n  blocks: 2\n  block_bytes_max: 16KiB' \
  'log:\n  segment_bytes: 1MiB\n  writes_max: 1\n  disk_free_bytes_min: 0'; do
  printf 'data:\n  dir: %s\nadmin:\n  socket: %s\ningest:\n  port: %s\n%b\n' "$work/tiny" "$SLUICE_SOCKET" "$port" "$good" >"$work/sluiced.yaml"
  sluice config check "$work/sluiced.yaml" >/dev/null 2>&1 || continue
  start_node
  exits 0 sluice send --generate 2000 --address "$to" --quiet
  stop_node
  rm -rf "$work/tiny"
done
done_with "configuration: errors have a place and the nearest key, and what is called good starts"

# --- with a daemon ---------------------------------------------------------------------------------

configure ''
start_node
exits 0 sluice send --generate 500 --address "$to" --json-summary --quiet --receipts-file "$work/receipts"
is_json
exits 0 sluice bench --to "$to" --seconds 1 --rate 1000 --json
is_json
read -r id index slot _ <"$work/receipts"
exits 0 sluice config set type.news 70 --json
is_json
for c in status ledger 'tail --no-follow --from first' 'tail --no-follow --count 2 --type trade' "get 1-$index-$slot" \
  "get $id --source generate" 'config get' 'config get type.news' 'config history' 'config show'; do
  # shellcheck disable=SC2086
  exits 0 sluice $c --json
  is_json
  [ ! -s "$work/err" ] || not_so 0 "$c --json writes to stderr"
  # shellcheck disable=SC2086
  exits 0 sluice $c
  [ -s "$work/out" ] || not_so 0 "$c prints nothing"
done
exits 1 sluice get 1-999999-0
exits 1 sluice get nobody --source nobody
exits 1 sluice config get no.such.setting
exits 4 sluice config set type.news 9
exits 4 sluice get not-an-ingestion-id
exits 2 sluice tail --no-follow --type nonsense
exits 4 sluice log verify "$data"
says 'running'
# A second daemon on the same port and directory, on the same port, on the same directory, on the same
# admin socket: each says what is taken, and the first goes on.
taken="cannot bind UDP port $port on 127.0.0.1: Address already in use"
exits 1 sluiced --config "$work/sluiced.yaml"
says "start_failed.*$taken"
sed "s|dir: .*|dir: $work/second|; s|socket: .*|socket: $work/second.sock|" "$work/sluiced.yaml" >"$work/second.yaml"
exits 1 sluiced --config "$work/second.yaml"
says "start_failed.*$taken"
expect "$(ls -A "$work/second")" '' "what a daemon without a port leaves in its data directory"
sed "s|port: .*|port: $(free_port)|; s|socket: .*|socket: $work/second.sock|" "$work/sluiced.yaml" >"$work/second.yaml"
exits 1 sluiced --config "$work/second.yaml"
says "start_failed.*$data/log is in use by another process"
sed "s|port: .*|port: $(free_port)|; s|dir: .*|dir: $work/second|" "$work/sluiced.yaml" >"$work/second.yaml"
exits 1 sluiced --config "$work/second.yaml"
says "start_failed.*a daemon answers on $SLUICE_SOCKET already"
exits 0 sluice status
# Into a pipe that nobody reads, and into a full device.
sluice tail --no-follow --json | head -n 1 >/dev/null || true
rc=0
sluice tail --no-follow >/dev/full 2>"$work/err" || rc=$?
expect $rc 4 "exit code when the output cannot be written"
done_with "every command, as text and as JSON; refusals, second daemons, full outputs"

# JSON that tail prints can be sent again, and is then the same event.
exits 0 sluice tail --no-follow --from first --source generate --json
"$python" -c 'import json, sys
for line in open(sys.argv[1]):
    e = json.loads(line)
    del e["enrichment"]
    print(json.dumps(e))' "$work/out" >"$work/again.jsonl"
exits 0 sluice send --json "$work/again.jsonl" --address "$to" --json-summary --quiet
expect "$(json "$work/out" duplicates)" 500 "duplicates when tail's output is sent again"
printf 'type,source,id,timestamp,symbol,price,size,venue\nTRADE,csv,c1,%s,AAPL,187.50,100,XNAS\n' "$("$python" -c 'import time; print(time.time_ns())')" >"$work/one.csv"
exits 0 sluice send --csv "$work/one.csv" --address "$to" --quiet
exits 0 sluice get c1 --source csv --json
expect "$(json "$work/out" trade price)/$(json "$work/out" trade priceScale)" '18750/2' 'a price of 187.50'
printf '{"type":"TRADE"\n' >"$work/bad.jsonl"
exits 4 sluice send --json "$work/bad.jsonl" --address "$to" --quiet
says '^bad lines +1 \(nothing behind it was sent'
cat "$work/bad.jsonl" "$work/again.jsonl" >"$work/mixed.jsonl"
exits 4 sluice send --json "$work/mixed.jsonl" --address "$to" --quiet --skip-bad
says '^bad lines +1$'
says '^duplicates +500$'
done_with "what tail prints can be sent again; CSV; lines that are no events"

# --- who may ---------------------------------------------------------------------------------------

if [ "$(id -u)" = 0 ] && setpriv --reuid 65534 --regid 65534 --clear-groups true 2>/dev/null; then
  cp "$bin/sluice" "$work/sluice"
  chmod 755 "$work" "$work/sluice"
  as_nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups env SLUICE_SOCKET="$SLUICE_SOCKET" "$work/sluice" "$@"; }
  exits 4 as_nobody status
  [ -s "$work/err" ] || not_so 0 "nobody is refused without a word"
  stop_node
  # A user who is listed may; one who is not may not, although the socket is open to all.
  sed -i "s|^admin:|admin:\n  uids: [65534]|" "$work/sluiced.yaml"
  start_node() { launch_node; until_true "the node answers nobody" as_nobody status; }
  start_node
  exits 0 as_nobody ledger
  exits 0 as_nobody config set type.mine 71
  exits 0 as_nobody config history --json
  expect "$(json "$work/out" -1 uid)" 65534 "uid in the history"
  kill -TERM "$node"
  ended 0 "SIGTERM"
  sed -i "s|uids: .65534.|uids: [12345]|" "$work/sluiced.yaml"
  launch_node
  listens() { [ -S "$SLUICE_SOCKET" ] && grep -q started <(tail -n 1 "$work/log"); }
  until_true "the node listens" listens
  exits 4 as_nobody status
  says 'not|uid|may'
  stop_node
  done_with "another user is refused, unless listed; the history says who"
else
  stop_node
  done_with "(other users cannot be tried without root)"
fi
