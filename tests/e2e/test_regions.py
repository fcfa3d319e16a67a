#!/usr/bin/python3
"""test_regions.py - three nodes in each of two regions, real daemons over mutual TLS: what a receipt for both
regions waits for, what becomes of it when the other region is out of reach, and a planned switchover.
"""
import json
import os
import signal
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from recorder import Recorder, all_have_receipts, check_receipts, more_receipts  # noqa: E402
from sluice_cluster import Cluster  # noqa: E402
from sluice_node import (Stream, expect, expect_equal, main, only_reason, trade, wait_until,  # noqa: E402
                         wire)

seed = int(os.environ.get("SLUICE_SEED", time.time_ns() % 100000))
cluster = Cluster("regions", 6, second_region=4, ledger__save_ms=50)
LATER = {wire.NOT_LEADER, wire.OVERLOADED, wire.STOPPING, wire.REGION_UNREACHABLE}
recorders = []


def said(done):
    return (done.stdout + done.stderr).decode()


def region(number):
    """What the status says of it."""
    return cluster.running()[0].cluster_status()["regions"][number - 1]


def stop(numbers, how):
    for n in numbers:
        cluster[n].process.send_signal(how)


def setting(key, value):
    cluster[1].cli("config", "set", key, value)
    cluster.together()


def events_of(r, n=1):
    return [trade("regions", b"%s-%d" % (r, i), i) for i in range(n)]


def test_init():
    """the nodes in the region of the one that is asked vote, the others are standbys"""
    cluster.start()
    few = cluster[4].cli("cluster", "init", *[cluster[n].place for n in (1, 2, 3, 4)], code=4)
    expect("in region 2, which is the active one since this node is in it, there are 1" in said(few), said(few))
    cluster.init(2)
    cluster.healthy()
    cluster.together()
    s = cluster[5].cluster_status()
    expect_equal([x["voter"] for x in s["members"]], [True] * 3 + [False] * 3, "votes")
    expect(cluster.leader().number <= 3, "a node of region 1 leads")
    expect_equal([(r["active"], r["members"], r["answer"]) for r in s["regions"]], [(True, 3, 3), (False, 3, 3)],
                 "regions")
    wait_until(lambda: region(2).get("lossEntries") == 0, "region 2 has everything")
    text = said(cluster[6].cli("cluster", "status"))
    setting("region.wait_ms", "30000")
    expect("region 1: active, 3 of 3 nodes answer\n" in text and "would lose nothing\n" in text, text)


def test_both_regions():
    """a receipt for both regions, from a node of each"""
    for n in (cluster.leader().number, cluster.leader().number % 3 + 1, 4):
        with Stream(cluster[n].port, durability=wire.REGION) as s:
            events = events_of(b"both-%d" % n, 20)
            r = s.batch(events)
            expect_equal((r.accepted, r.durability), (20, wire.REGION), "accepted, durability")
            again = s.batch(events)
            expect_equal((again.duplicates, again.durability), (20, wire.REGION), "duplicates, durability")
        with Stream(cluster[n].port) as s:
            expect_equal(s.batch(events_of(b"one-%d" % n)).durability, wire.QUORUM, "durability")
    done = json.loads(cluster[1].cli("send", "--generate", "500", "--durability", "region", "--json-summary",
                                     "--address", "127.0.0.1:%d" % cluster[1].port).stdout)
    expect_equal((done["accepted"], done["degraded"]), (500, 0), "of sluice send")


def test_one_standby_is_enough_to_lose():
    """with one of the three standbys gone there still are receipts for both; with two there are none"""
    setting("region.wait_ms", "30000")
    cluster[6].kill()
    with Stream(cluster[1].port, durability=wire.REGION) as s:
        expect_equal(s.batch(events_of(b"two")).durability, wire.REGION, "durability")
        cluster[5].kill()
        cluster[1].cli("config", "set", "region.wait_ms", "300")
        events = events_of(b"alone", 3)
        r = s.batch(events)
        expect_equal(only_reason(r), {"REGION_UNREACHABLE"}, "refused for")
        with Stream(cluster[1].port) as other:
            expect_equal(other.batch(events_of(b"quorum")).durability, wire.QUORUM, "durability")
        cluster[5].start()
        def durable():
            r = s.batch(events)
            return r if r.durability == wire.REGION else None
        r = wait_until(durable, "it is durable in both regions")
        expect_equal(r.duplicates, 3, "it was committed the first time")
    cluster[6].start()
    cluster.healthy()
    cluster.together()


def test_region_is_stopped():
    """while the other region is stopped, what wants both fails or is degraded at once, and nothing else minds"""
    stop((4, 5, 6), signal.SIGSTOP)
    wait_until(lambda: region(2)["answer"] == 0, "region 2 is silent")
    s = cluster[1].cluster_status()
    expect(not s["healthy"] and any("0 of 3 nodes of region 2 answer" in p for p in s["problems"]), s["problems"])
    cluster[1].cli("config", "set", "region.wait_ms", "60000")
    with Stream(cluster[1].port, durability=wire.REGION) as both, Stream(cluster[2].port) as one:
        for policy in ("fail", "degrade"):
            cluster[1].cli("config", "set", "region.unreachable", policy)
            for m in (cluster[1], cluster[2], cluster[3]):
                wait_until(lambda m=m, p=policy: p in said(m.cli("config", "get", "region.unreachable")), "the policy")
            r = both.batch(events_of(b"stopped-" + policy.encode(), 5))
            if policy == "fail":
                expect_equal((r.refused, only_reason(r)), (5, {"REGION_UNREACHABLE"}), "refused")
            else:
                expect_equal((r.accepted, r.durability), (5, wire.DEGRADED), "accepted, durability")
            expect_equal(one.batch(events_of(b"meanwhile-" + policy.encode())).durability, wire.QUORUM, "durability")
    cluster[1].cli("config", "set", "region.stop_after_s", "1")
    with Stream(cluster[3].port) as one:
        def stopped():
            r = one.batch(events_of(b"alone-%d" % one.requests))
            return r.refused and only_reason(r) == {"REGION_UNREACHABLE"}
        wait_until(stopped, "the active region takes nothing more")
    stop((4, 5, 6), signal.SIGCONT)
    with Stream(cluster[3].port) as one:
        wait_until(lambda: one.batch(events_of(b"again-%d" % one.requests)).accepted, "it takes events again")
    cluster[1].cli("config", "set", "region.stop_after_s", "")
    cluster.healthy()
    cluster[1].cli("config", "set", "region.unreachable", "wait")
    cluster[1].cli("config", "set", "region.wait_ms", "30000")
    cluster.together()
    for m in cluster:
        m.ledger()


# --- a switchover ---------------------------------------------------------------------------------


def load(on):
    if not recorders:
        for n, durability in ((2, wire.REGION), (6, 0)):
            recorders.append(Recorder("load-%d" % n, lambda n=n: cluster[n].port, seed, LATER, durability))
            recorders[-1].start()
    for r in recorders:
        (r.go.set if on else r.go.clear)()


def test_switchover():
    """the other region becomes the active one under load, there and back, and no receipt was for nothing"""
    for to, asked in ((2, 1), (1, 2), (2, 6)):
        load(True)
        more_receipts(recorders, 50)
        for r in recorders:
            r.longest = 0
        done = cluster[asked].cli("cluster", "switchover", "--to", str(to))
        expect("region %d is the active one" % to in said(done), said(done))
        expect_equal([r["active"] for r in cluster[3].cluster_status()["regions"]], [to == 1, to == 2], "active")
        expect_equal(cluster.leader().number > 3, to == 2, "the leader's region")
        more_receipts(recorders, 50)
        load(False) # so that there is not too much to look through in the end
        print("     longest wait for a receipt: %s ms" %
              ", ".join("%.0f" % (r.longest * 1000) for r in recorders))
    cluster[1].cli("cluster", "switchover", "--to", "2") # again: it is done
    load(False)
    all_have_receipts(recorders)
    cluster.healthy()
    cluster.together()
    check_receipts(cluster[5], recorders) # and the others have the same chain
    for m in cluster:
        m.ledger()


def test_switchover_with_the_dead():
    """nothing is switched over to a region that is not whole; from one that has lost a node it is"""
    cluster[1].kill()
    three = cluster[2].cli("cluster", "switchover", "--to", "3", code=2)
    expect("--to takes a region" in said(three), said(three))
    cluster[4].kill() # a voter of the active region, 2: region 1 has two nodes left
    cluster.leader()
    cluster[1].start()
    done = cluster[2].cli("cluster", "switchover", "--to", "1")
    expect("region 1 is the active one" in said(done), said(done))
    cluster[4].start()
    cluster.healthy()
    cluster.together()
    expect_equal([x["voter"] for x in cluster[5].cluster_status()["members"]], [True] * 3 + [False] * 3, "votes")


def test_replace_a_standby():
    """a dead standby is replaced; what answers is not dead, and the last of a region does not just go"""
    seven = cluster.member(7)
    seven.start()
    alive = cluster[1].cli("cluster", "remove", "6", "--dead", "--yes", code=4)
    expect("node 6 answers: it is not dead" in said(alive), said(alive))
    cluster[5].kill()
    done = cluster[1].cli("cluster", "replace", "5", seven.place, "--yes")
    expect("node 7 is in the place of node 5" in said(done), said(done))
    with open(seven.log, encoding="utf-8") as log:
        expect("may not come here" not in log.read(), "what node 7 is sent before it has begun")
    del cluster.members[5]
    cluster.healthy()
    cluster.together()
    expect_equal([(x["node"], x["voter"]) for x in cluster[7].cluster_status()["members"]],
                 [(1, True), (2, True), (3, True), (4, False), (6, False), (7, False)], "members")
    with Stream(cluster[2].port, durability=wire.REGION) as s:
        expect_equal(s.batch(events_of(b"replaced")).durability, wire.REGION, "durability")
    cluster[6].kill()
    cluster[7].kill()
    done = cluster[1].cli("cluster", "remove", "6", "--dead", "--yes")
    expect("node 6 is no member" in said(done), said(done))
    del cluster.members[6]
    cluster[7].start()
    cluster.healthy()
    cluster.together()
    check_receipts(cluster[7], recorders)


if __name__ == "__main__":
    print("seed %d" % seed)
    main([test_init, test_both_regions, test_one_standby_is_enough_to_lose, test_region_is_stopped,
          test_switchover, test_switchover_with_the_dead, test_replace_a_standby])
