#!/usr/bin/python3
"""test_failover.py - six daemons in two regions with 60 ms between them, over mutual TLS, under load: the active
region is lost behind a partition, by kill and by stop, the other one goes on by one command, and what was lost
comes back and gives what it had.

Producers in both regions send all the time and record every receipt. A receipt for both regions holds at its place
whatever happens; one of a quorum holds once the lost region is back and has offered what it had again.
"""
import json
import os
import pathlib
import random
import ssl
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from lab import BIN, FULL, WORK, expect, expect_equal, main, need, wait_until, wire  # noqa: E402
from region_lab import RegionCluster, RegionProducer  # noqa: E402
from recorder import all_have_receipts, check_receipts, more_receipts, receipts  # noqa: E402

PACE_S = 0.05
LATER = {wire.NOT_LEADER, wire.OVERLOADED, wire.STOPPING, wire.REGION_UNREACHABLE}

need()
seed = int(os.environ.get("SLUICE_SEED", time.time_ns() % 100000))
chance = random.Random(seed)
print("seed %d (SLUICE_SEED repeats the choices, not the timing)" % seed)
cluster = RegionCluster("failover", ledger__save_ms=50, log__segment_bytes="4MiB", dedupe__memory_bytes_max="32MiB")
cluster.pki.client("producer", "feed")
files = cluster.pki.files("producer-feed")
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
tls.load_verify_locations(files["ca"])
tls.load_cert_chain(files["cert"], files["key"])


class Paced(RegionProducer):
    """What comes must be read again by Python. It stays at its node."""

    def wanted(self):
        return bool(self.go.is_set() or self.pending)

    def new_batch(self):
        time.sleep(PACE_S)  # a pace, not a wait for anything
        return super().new_batch()


producers = [Paced(cluster, cluster[n], "at-%d-%d" % (n, d), seed, LATER, d, tls)
             for n, d in ((1, 0), (2, wire.REGION), (4, 0), (5, wire.REGION))]


def of_quorum(region):
    return [p for p in producers if not p.durability and p.node in cluster.region(region)]


def go(on=True):
    for p in producers:
        (p.go.set if on else p.go.clear)()


def asked(node, *words):
    return json.loads(node.cli("cluster", *words, "--json").stdout)


def manifest(path):
    """Of what was signed: by us, by others, and not once it was changed."""
    pem = pathlib.Path(path).read_text(encoding="ascii")
    shown = json.loads(cluster[1].cli("cluster", "manifest", path, "--ca", files["ca"], "--json").stdout)
    theirs = subprocess.run(["openssl", "cms", "-verify", "-binary", "-inform", "PEM", "-in", path, "-purpose", "any",
                             "-CAfile", files["ca"]], capture_output=True, check=True)
    expect_equal(json.loads(theirs.stdout), shown["manifest"], "what OpenSSL's command shows")
    at = pem.index("\n", 200) + 8
    pathlib.Path(path).write_text(pem[:at] + ("B" if pem[at] == "A" else "A") + pem[at + 1:], encoding="ascii")
    done = cluster[1].cli("cluster", "manifest", path, "--ca", files["ca"], code=1)
    expect(b" is refused: " in done.stderr, "a changed manifest:", done.stderr)
    os.unlink(path)
    return shown["manifest"]


def fail_over(to):
    """Asked of a node of that region that is there. Until one of its nodes gives receipts again."""
    nodes = [m for m in cluster.region(to) if m.runs()]
    begun = time.monotonic()
    path = os.path.join(WORK, "estimate.pem")
    report = asked(chance.choice(nodes), "failover", "--to", str(to), "--yes", "--manifest", path)["report"]
    more_receipts(of_quorum(to), 1)
    took = time.monotonic() - begun
    expect_equal((report["epoch"] % 2, report["leader"] in [m.number for m in cluster.region(to)]), (to % 2, True),
                 "epoch, leader")
    told = manifest(path)
    expect_equal([told[k] for k in ("kind", "epoch", "index", "region")],
                 ["estimate", report["epoch"], report["index"], to], "the manifest")
    return took, report


def come_back(to, what, took):
    """The lost region is there again: it comes into the new epoch, offers what it had, and every receipt holds."""
    begun = time.monotonic()
    node = chance.choice(cluster.region(to))
    node.cli("cluster", "rejoin")
    back = time.monotonic() - begun
    path = os.path.join(WORK, "losses.pem")
    alone = sum(f["events"] for f in asked(node, "orphans", "--manifest", path)["orphans"] if not f["reconciled"])
    told = manifest(path)
    expect_equal((told["kind"], told["complete"]), ("losses", True), "the manifest")
    for loss in told["losses"]:
        expect(loss["eventsAtLeast"] <= loss["eventsAtMost"], "at least and at most:", loss)
    most = sum(loss["eventsAtMost"] for loss in told["losses"] if loss["reconciled"] < loss["files"])
    put = asked(node, "reconcile")
    expect(put["accepted"] <= most, "more were put in again than the manifest knows of:", put, told)
    expect_equal((put["conflicts"], put["silent"]), (0, []), "conflicts, silent nodes")
    more_receipts(producers, 5)
    go(False)
    all_have_receipts(producers)
    cluster.healthy()
    cluster.together()
    for region in (1, 2):
        check_receipts(chance.choice(cluster.region(region)), producers, moved=True)
    print("     %s: writing again %.2f s after the command, back %.1f s after the line; %d events set aside (three"
          " nodes each), %d were missing; %d receipts hold" % (what, took, back, alone, put["accepted"],
                                                               sum(receipts(producers))), flush=True)
    go()
    return alone, put, told["losses"]


def test_init():
    """a cluster of two regions, under load from both"""
    cluster.start()
    cluster.init()
    cluster.healthy()
    for p in producers:
        p.start()
    go()
    more_receipts(producers, 40)


def test_partition():
    """the active region goes on alone behind a partition, the other one fails over: two regions take events, and in
    the end there is one log with all of them"""
    cluster.wan.cut(True, True)
    with open(os.devnull, "wb") as null:
        follower = subprocess.Popen([os.path.join(BIN, "sluice"), "tail"], stdout=null,
                                    stderr=subprocess.PIPE, env=dict(os.environ, SLUICE_SOCKET=cluster[1].socket))
    more_receipts(of_quorum(1), 100)  # at a quorum, which the other region will not have
    took, report = fail_over(2)
    expect_equal((report["othersAnswering"], report["oldLeader"]), (0, 0), "what is seen of the other region")
    more_receipts(of_quorum(1) + of_quorum(2), 60)  # both take events
    sender = cluster.send(cluster[report["leader"]], "--generate", "100000", "--batch", "200", "--in-flight", "32",
                          "--types", "trade:30,quote:60,book:10")
    missed = json.loads(sender.communicate()[0])["bytes"]
    before = cluster.wan.stats()[1][0]
    cluster.wan.cut()
    alone, put, losses = come_back(2, "partition", took)
    line = (cluster.wan.stats()[1][0] - before) / 3
    print("     %.1f MB that were missed came over the line as %.2f of that to each node" % (missed / 1e6, line / missed))
    # Unpacked, with what the blocks say of their events, it is 1.55 of that; and what is sent meanwhile comes on top.
    expect(0 < line < 1.45 * missed, "what was missed comes packed:", line, missed)
    told = next(loss for loss in losses if loss["into"] == report["epoch"])
    _, said = follower.communicate(timeout=60)
    expect(follower.returncode == 4 and b"a failover has cut the log of this node" in said, "who followed the log of"
           " node 1 is told:", follower.returncode, said)
    expect(told["eventsAtLeast"] > 0, "its leader knew what was committed there:", told)
    expect(alone > 0 and put["accepted"] > 0, "what region 1 had alone was set aside, and is in the log:", put)


def test_partition_one_way():
    """the active region is not heard, but hears"""
    cluster.wan.cut(False, True)  # what region 2, the active one, says
    more_receipts(of_quorum(2), 40)
    took, _ = fail_over(1)
    cluster.wan.cut()
    come_back(1, "one way", took)


def test_killed():
    """the active region is killed, and comes back"""
    more_receipts(producers, 10)
    for m in cluster.region(1):
        m.process.kill()
    for m in cluster.region(1):
        m.kill()
    took, _ = fail_over(2)
    more_receipts(of_quorum(2), 20)
    for m in cluster.region(1):
        m.launch()
    for m in cluster.region(1):
        wait_until(m.answers, "node %d can be asked" % m.number)
    come_back(2, "killed", took)


def test_stopped():
    """the active region is stopped, and goes on where it was: it has lost its epoch meanwhile"""
    more_receipts(producers, 10)
    for m in cluster.region(2):
        m.pause()
    took, _ = fail_over(1)
    more_receipts(of_quorum(1), 20)
    for m in cluster.region(2):
        m.resume()
    come_back(1, "stopped", took)


def test_line_loses():
    """and all the while the line loses packets"""
    cluster.wan.lose(30)
    for m in cluster.region(1):
        m.kill()
    took, _ = fail_over(2)
    for m in cluster.region(1):
        m.launch()
    for m in cluster.region(1):
        wait_until(m.answers, "node %d can be asked" % m.number)
    come_back(2, "with losses", took)
    cluster.wan.lose(0)


def test_end():
    """the ledgers balance, and all logs verify"""
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


main([test_init, test_partition, test_partition_one_way, test_killed, test_stopped, test_line_loses, test_end] if FULL
     else [test_init, test_partition, test_end])
