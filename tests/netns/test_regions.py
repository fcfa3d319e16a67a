#!/usr/bin/python3
"""test_regions.py - six daemons in two regions with 60 ms between them, over mutual TLS, under load, while the line
loses packets, is cut, one way or both, and regions stop, die and change places.

Producers in both regions send all the time, some for receipts of both regions, and record every receipt with its
place. When a round is over, every receipt ever given is checked on a node of each region, and all six have the
same chain.
"""
import os
import random
import ssl
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from lab import BIN, FULL, Stream, expect, expect_equal, main, need, trade, wait_until, wire  # noqa: E402
from region_lab import RegionCluster, RegionProducer  # noqa: E402
from cluster_lab import INGEST  # noqa: E402
from recorder import all_have_receipts, check_receipts, more_receipts, receipts  # noqa: E402

PACE_S = 0.05
LATER = {wire.NOT_LEADER, wire.OVERLOADED, wire.STOPPING, wire.REGION_UNREACHABLE}

need()
seed = int(os.environ.get("SLUICE_SEED", time.time_ns() % 100000))
chance = random.Random(seed)
print("seed %d (SLUICE_SEED repeats the choices, not the timing)" % seed)
cluster = RegionCluster("regions", ledger__save_ms=50, log__segment_bytes="4MiB", dedupe__memory_bytes_max="32MiB")
cluster.pki.client("producer", "feed")
files = cluster.pki.files("producer-feed")
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
tls.load_verify_locations(files["ca"])
tls.load_cert_chain(files["cert"], files["key"])


class Paced(RegionProducer):
    """What comes must be read again by Python."""

    def wanted(self):
        return bool(self.go.is_set() or self.pending)

    def new_batch(self):
        time.sleep(PACE_S)  # a pace, not a wait for anything
        return super().new_batch()


producers = [Paced(cluster, cluster[n], "at-%d-%d" % (n, d), seed, LATER, d, tls)
             for n, d in ((1, 0), (2, wire.REGION), (4, 0), (5, wire.REGION))]
one = [p for p in producers if not p.durability]   # whose receipts are for the active region
both = [p for p in producers if p.durability]


def go(on=True):
    for p in producers:
        (p.go.set if on else p.go.clear)()


def check(what):
    """The end of a round: everything has a receipt, and every receipt is true in both regions."""
    go(False)
    all_have_receipts(producers)
    cluster.healthy()
    cluster.together()
    for node in (chance.choice(cluster.region(1)), chance.choice(cluster.region(2))):
        check_receipts(node, producers)
    print("     %s; %d receipts hold" % (what, sum(receipts(producers))), flush=True)
    go()


def latency(node, durability):
    """Of one event, in the node's region, in seconds; the least of ten."""
    def ten():
        with Stream(INGEST, host=node.host, tls=tls, durability=durability) as s:
            for n in range(10):
                begun = time.monotonic()
                r = s.batch([trade("latency", b"%d-%d-%d" % (node.number, durability, n), n)])
                expect_equal(r.accepted, 1, "accepted")
                took.append(time.monotonic() - begun)
    took = []
    with node.net.inside():
        ten()
    return min(took)


def test_init():
    """a cluster of two regions is made over the line, and a receipt for both takes its way there and back"""
    cluster.start()
    cluster.init()
    cluster.healthy()
    leader = cluster.leader()
    quorum, region, there = latency(leader, 0), latency(leader, wire.REGION), latency(cluster[4], 0)
    expect(region >= 0.06, "there and back is 60 ms, a receipt for both took", region)
    expect(quorum < region, "a receipt for the active region took", quorum, "one for both", region)
    print("     quorum %.1f ms, both %.1f ms, quorum from the other region %.1f ms" %
          (quorum * 1000, region * 1000, there * 1000))
    for p in producers:
        p.start()
    go()
    more_receipts(producers, 40)
    check("made")


def test_line_loses():
    """the line loses one packet in twenty: receipts go on"""
    cluster.wan.lose(50)
    more_receipts(producers, 40)
    lost = sum(s[2] for s in cluster.wan.stats())
    cluster.wan.lose(0)
    expect(lost > 10, "packets were lost:", lost)
    check("%d packets lost" % lost)


def test_line_is_cut():
    """the line is cut, both ways and one way: the active region goes on, what wants both waits, and nothing is lost"""
    for first, second in ((True, True), (True, False), (False, True)):
        more_receipts(producers, 5)
        cluster.wan.cut(first, second)
        more_receipts(one[:1], 40)
        s = wait_until(lambda: (lambda s: s if s["regions"][1]["answer"] == 0 else None)(cluster[1].cluster_status()),
                       "region 2 is silent")
        expect(not s["healthy"] and any("0 of 3 nodes of region 2 answer" in p for p in s["problems"]), s["problems"])
        before = receipts(both)
        more_receipts(one[:1], 40)
        expect(all(b - a <= 16 * 40 for a, b in zip(before, receipts(both))), "what wants both waits")
        cluster.wan.cut()
        more_receipts(producers, 10)
    check("cut three ways")


def test_region_dies():
    """the standby region is killed, node by node and at once: the active one goes on, and it comes back"""
    for m in cluster.region(2):
        m.process.kill()
    for m in cluster.region(2):
        m.kill()
    more_receipts(one[:1], 40)
    for m in cluster.region(2):
        m.start()
    more_receipts(producers, 10)
    leader = cluster.leader()
    leader.kill()
    more_receipts([p for p in producers if p.node is not leader], 20)
    leader.start()
    check("killed")


def test_switchover():
    """the regions change places under load, there and back"""
    for to in (2, 1):
        more_receipts(producers, 10)
        done = cluster[chance.randint(1, 6)].cli("cluster", "switchover", "--to", str(to))
        expect(b"region %d is the active one" % to in done.stdout, done.stdout)
        more_receipts(producers, 10)
        expect_equal([r["active"] for r in cluster[3].cluster_status()["regions"]], [to == 1, to == 2], "active")
        check("to region %d" % to)


def test_switchover_is_cut_off():
    """the line is cut in the middle of a switchover: one region leads, and what was begun goes on when it is whole"""
    for moment in (0.02, 0.15, 0.4):
        more_receipts(producers, 5)
        to = 2 if cluster.cluster_active() == 1 else 1
        with open(os.devnull, "wb") as null:
            asked = subprocess.Popen([os.path.join(BIN, "sluice"), "cluster", "switchover", "--to", str(to)], stdout=null,
                                     stderr=null, env=dict(os.environ, SLUICE_SOCKET=cluster[1].socket))
        time.sleep(moment * chance.uniform(0.5, 1.5))  # any moment
        cluster.wan.cut(True, True)
        time.sleep(chance.uniform(0.1, 1.5))  # for some time
        cluster.wan.cut()
        asked.wait()
        cluster[1].cli("cluster", "switchover", "--to", str(to))
        more_receipts(producers, 5)
        expect_equal(cluster.cluster_active(), to, "the active region")
    check("cut in the middle, three times")


def test_rolling_restart():
    """each node is stopped and started again, the leader last"""
    more_receipts(producers, 5)
    leader = cluster.leader()
    for m in [m for m in cluster if m is not leader] + [leader]:
        m.stop()
        more_receipts([p for p in producers if p.node is not m], 5)
        m.start()
        cluster.healthy()
    check("restarted")


def test_end():
    """all logs verify"""
    go(False)
    for p in producers:
        p.end = True
        p.go.set()
        p.join()
    cluster.together()
    for m in cluster:
        m.ledger()
    cluster.stop()
    expect_equal(len({m.verify()["events"] for m in cluster}), 1, "numbers of events")


main([test_init, test_line_loses, test_line_is_cut, test_region_dies, test_switchover, test_switchover_is_cut_off,
      test_rolling_restart, test_end] if FULL else [test_init, test_line_loses, test_switchover, test_end])
