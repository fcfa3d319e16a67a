#!/usr/bin/env python3
"""check_xdp.py - holds the ledgers of xdp.sh's node against what was sent to it, exactly and by kind; exit 1
when anything differs.

  check_xdp.py --work DIR --datagrams N --events N

  --work       has ledger.json (sluice ledger --json), xdp.json (sluice xdp status --json), there.json
               (check.py events --there), hostile.json, and flood1.json and flood2.json
  --datagrams  that carried the wanted events that came over UDP
  --events     that were wanted

Of the flood, each kind is dropped for one reason. Three kinds are let in in part: then what was dropped and
what is in the log must come to what was sent.
"""
import argparse
import collections
import json
import os
import sys

from check import expect_equal, problems, without_zeros

SAMPLED = 1000  # of debug, one in so many

# What is the matter with each kind, and the reason that it is dropped for.
KINDS = {
    "news": ("a type that the policy drops", "type_dropped"),
    "spoofed": ("from any address but the network's", "source_denied"),
    "telemetry": ("one address, over its rate", "source_rate"),
    "junk": ("no protobuf", "not_protobuf"),
    "malformed": ("cut in its last field", "event_malformed"),
    "debug": ("a type that is sampled, one in 1,000", "sampled_out"),
    "unnamed": ("a type that nobody has named", "type_unknown"),
    "depth": ("a type that is dropped from a moment on", "type_dropped"),
}


def load(work, name):
    with open(os.path.join(work, name), encoding="utf-8") as f:
        return json.load(f)


def dropped_of_flood(sent, xdp, drops, hostile):
    """What must have been dropped of each kind: all, or what the node says of it where that depends on time."""
    dropped = dict(sent)
    dropped["debug"] = sent["debug"] - (sent["debug"] + SAMPLED - 1) // SAMPLED
    dropped["telemetry"] = drops["source_rate"] - hostile.get("source_rate", 0)
    dropped["depth"] = sum(t["dropped"] for t in xdp["types"] if t["name"] == "depth")
    return dropped


def check_flood(sent, dropped, there, ring_full):
    """Returns how many datagrams were let in and came out of the rings."""
    print("  %-10s %-41s %9s %9s %8s  %s" % ("kind", "", "sent", "dropped", "let in", "reason"))
    taken = 0
    for kind, (what, reason) in KINDS.items():
        let_in = there.get(kind, 0)
        taken += let_in
        print("  %-10s %-41s %9d %9d %8d  %s" % (kind, what, sent[kind], dropped[kind], let_in, reason))
        if ring_full == 0:
            expect_equal(let_in, sent[kind] - dropped[kind], "events of %s in the log" % kind)
        expect_equal(dropped[kind] > 0, True, "some of %s are dropped" % kind)
    expect_equal(taken + ring_full, sum(sent.values()) - sum(dropped.values()), "datagrams of the flood let in")
    if ring_full:
        print("  %d that were let in found the ring of the lowest class full" % ring_full)
    return taken


def check_datagrams(account, xdp, wanted, flood, hostile):
    """The datagrams' account and the driver's; what does not fit a frame comes in fragments, which are the
    kernel's business."""
    datagrams, driver = account["datagrams"], account["xdp"]
    in_fragments = hostile["drops"]["batch_too_large"] + hostile["drops"]["no_buffer"]
    sent = wanted + flood + hostile["sent"]
    expect_equal(driver["arrived"], sent - in_fragments, "datagrams that arrived at the driver")
    expect_equal(xdp["interfaces"][0]["arrived"], driver["arrived"], "datagrams of the interface")
    expect_equal(driver["passed"], 0, "datagrams that the driver left to the kernel")
    expect_equal(datagrams["seen"], sent, "datagrams seen")
    print("  %d datagrams were sent, %d of them too long for a frame; %d arrived at the driver"
          % (sent, in_fragments, driver["arrived"]))
    for what in ("balance", "rings"):
        value = driver[what]["agree"] if what == "rings" else driver[what]
        expect_equal(value, True, "the driver's ledger: " + what)
    expect_equal(account["balances"], True, "the ledgers balance")


def check_events(account, wanted, taken, hostile):
    events = account["events"]
    invalid, refused = (sum(hostile.get(k, {}).values()) for k in ("invalidByType", "refusedByType"))
    expected = {"decoded": wanted + taken + invalid + refused, "invalid": invalid, "refused": refused,
                "committed": wanted + taken, "duplicate": 0, "conflict": 0, "inFlight": 0}
    for what, n in expected.items():
        expect_equal(events["total"][what], n, "events: " + what)
    expect_equal(without_zeros(events["reasons"]), hostile["reasons"], "events refused, by reason")
    expect_equal(account["log"]["events"], wanted + taken, "events in the log")
    print("  %d events: %d wanted, %d of the flood that were let in, %d refused"
          % (events["total"]["decoded"], wanted, taken, invalid + refused))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", required=True)
    parser.add_argument("--datagrams", type=int, required=True)
    parser.add_argument("--events", type=int, required=True)
    args = parser.parse_args()
    account, xdp, hostile = (load(args.work, name + ".json") for name in ("ledger", "xdp", "hostile"))
    sent, there = collections.Counter(), collections.Counter()
    for name in ("flood1.json", "flood2.json"):
        sent.update(load(args.work, name)["kinds"])
    for run, n in load(args.work, "there.json").items():
        there[run.rstrip("0123456789")] += n
    drops = without_zeros(account["datagrams"]["drops"])
    dropped = dropped_of_flood(sent, xdp, collections.Counter(drops), hostile["drops"])
    ring_full = drops.pop("ring_full_3", 0)
    taken = check_flood(sent, dropped, there, ring_full)

    expected = collections.Counter(hostile["drops"])
    for kind, (_, reason) in KINDS.items():
        expected[reason] += dropped[kind]
    for reason in sorted(set(drops) | set(expected)):
        expect_equal(drops.get(reason, 0), expected[reason], "datagrams dropped for %s" % reason)
    expect_equal(xdp["shadow"]["drops"].get("type_dropped"), sent["depth"] - dropped["depth"],
                 "depth that the shadow counted before it was in force")
    check_datagrams(account, xdp, args.datagrams, sum(sent.values()), hostile)
    check_events(account, args.events, taken, hostile)
    expect_equal(account["datagrams"]["delivered"], args.datagrams + taken + hostile["delivered"],
                 "datagrams delivered")
    for problem in problems:
        print("  WRONG: " + problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
