#!/usr/bin/env python3
"""check.py - holds what a node says against what was sent to it, exactly; exit 1 when anything differs.

  sluice tail --from first --no-follow --json | check.py events RUN:SOURCE:COUNT[:some]... [--receipts FILE]
  sluice ledger --json | check.py ledger --datagrams N --events N --hostile FILE

events  Event n of a generated run has the id "<run>-<n>", so that a bitmap a run says of every single
        event whether it is there, and whether it is there twice. RUN:SOURCE:COUNT:some need not be
        complete; --there FILE gets how many there are of each run, for the ledgers. With --receipts,
        every line of `sluice send --receipts-file` must name the place where that event is.
ledger  Every count must be what was sent: valid events committed, datagrams and events of hostile.py
        under their reasons, nothing else anywhere.
"""
import argparse
import base64
import json
import sys

problems = []


def expect_equal(got, wanted, what):
    if got != wanted:
        problems.append("%s: %s instead of %s" % (what, got, wanted))


def member(line, name):
    """The value of a string member of a JSON line of `sluice tail`; ids and places have no escapes."""
    at = line.find(b'"%s":"' % name)
    if at < 0:
        return b""
    at += len(name) + 4
    return line[at:line.index(b'"', at)]


def read_receipts(name):
    """{id: place} of a receipts file; what is neither accepted nor known is a problem."""
    wanted, bad = {}, 0
    with open(name, "rb") as f:
        for line in f:
            ident, index, slot, reason = line.split()
            bad += reason not in (b"ACCEPTED", b"DUPLICATE")
            wanted[ident] = b"%s-%s" % (index, slot)
    expect_equal(bad, 0, "events that were refused or have no receipt")
    return wanted


def check_events(args):
    runs = {}
    for run in args.runs:
        name, source, count, *some = run.split(":")
        runs[name.encode()] = (source.encode(), bytearray(int(count)), bool(some))
    receipts = read_receipts(args.receipts) if args.receipts else {}
    twice = strange = elsewhere = total = 0
    receipted = len(receipts)
    for line in sys.stdin.buffer:
        total += 1
        ident = base64.b64decode(member(line, b"id"))
        run, _, number = ident.partition(b"-")
        source, seen, _ = runs.get(run, (None, b"", False))
        n = int(number) if number.isdigit() else -1
        if member(line, b"source") != source or not 0 <= n < len(seen):
            strange += 1
            continue
        twice += seen[n]
        seen[n] = 1
        if receipts:
            place = receipts.pop(ident, None)
            if place is not None:
                elsewhere += member(line, b"ingestionId").partition(b"-")[2] != place
    for source, seen, some in runs.values():
        if not some:
            expect_equal(seen.count(1), len(seen), "events of %s in the log" % source.decode())
        print("  %9d of %d events of %s%s" % (seen.count(1), len(seen), source.decode(),
                                              ", as many as were let in" if some else ""))
    if args.there:
        with open(args.there, "w", encoding="utf-8") as f:
            json.dump({name.decode(): seen.count(1) for name, (_, seen, _) in runs.items()}, f)
    if args.receipts:
        print("  %9d receipts, each for the right place" % receipted)
    expect_equal(twice, 0, "events that are there twice")
    expect_equal(strange, 0, "events that nobody sent")
    expect_equal(len(receipts), 0, "events with a receipt that are missing")
    expect_equal(elsewhere, 0, "events that are not where their receipt says")
    print("  %9d events in the log: no other, and none twice" % total)
    if args.receipted is not None:
        expect_equal(receipted, args.receipted, "events with a receipt")


def without_zeros(counts):
    return {k: v for k, v in counts.items() if v}


def check_ledger(args):
    account = json.load(sys.stdin)
    with open(args.hostile, encoding="utf-8") as f:
        hostile = json.load(f)
    datagrams, events = account["datagrams"], account["events"]
    invalid, refused = (sum(hostile[k].values()) for k in ("invalidByType", "refusedByType"))
    expect_equal(datagrams["seen"], args.datagrams + hostile["sent"], "datagrams seen")
    expect_equal(datagrams["delivered"], args.datagrams + hostile["delivered"], "datagrams delivered")
    expect_equal(without_zeros(datagrams["drops"]), hostile["drops"], "datagrams dropped, by reason")
    expect_equal(without_zeros(events["reasons"]), hostile["reasons"], "events refused, by reason")
    for what in ("invalid", "refused"):
        by_type = {str(t["type"]): t[what] for t in events["types"]}
        expect_equal(without_zeros(by_type), hostile[what + "ByType"], what + " events, by type")
    wanted = {"decoded": args.events + invalid + refused, "invalid": invalid, "refused": refused,
              "committed": args.events, "duplicate": 0, "conflict": 0, "inFlight": 0}
    expect_equal({k: events["total"][k] for k in wanted}, wanted, "events")
    expect_equal(account["log"]["events"], args.events, "events in the log")
    expect_equal(hostile["answers"], hostile["receipts"], "receipts for hostile datagrams")
    expect_equal(account["streams"]["udp_receipts"], hostile["receipts"], "receipts sent over UDP")
    expect_equal(account["balances"], True, "the ledgers balance")
    print("  %9d hostile datagrams and %d hostile events, every one under its reason"
          % (hostile["sent"] - hostile["delivered"], invalid + refused))
    print("  %9d datagrams lost" % datagrams["drops"]["kernel"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    events = commands.add_parser("events")
    events.add_argument("runs", nargs="+")
    events.add_argument("--there")
    events.add_argument("--receipts")
    events.add_argument("--receipted", type=int)
    ledger = commands.add_parser("ledger")
    ledger.add_argument("--datagrams", type=int, required=True)
    ledger.add_argument("--events", type=int, required=True)
    ledger.add_argument("--hostile", required=True)
    args = parser.parse_args()
    (check_events if args.command == "events" else check_ledger)(args)
    for problem in problems:
        print("  WRONG: " + problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
