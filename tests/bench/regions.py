#!/usr/bin/python3
"""regions.py - six nodes in two regions with 60 ms between them, and three of them beside it: how many events,
how late a receipt for both regions is, what goes over the line, and how long a switchover lasts. As root.

    bench replicated_events_per_s_6 N events/s       128 bytes an event, batches of 200, receipts for quorum
    ratio six_nodes_to_three N                       the same load, in the same run, in pairs
    bench region_latency_us_p50 N us                 at 20,000 events/s, receipts for both regions; p99, p99.9
    bench region_end_to_end_ms_p99.9 N ms            the same, from when a batch was due
    bench wan_bytes_per_payload_byte N ratio         for one standby: what crosses the line, of market data
    bench switchover_pause_ms N ms                   median of the longest waits for a receipt
    bench failover_ms N ms                           the active region is killed: from the command to a receipt
    bench rejoin_mb_per_s N MB/s                     what the three nodes of the lost region had missed, each
    bench rejoin_wan_bytes_per_payload_byte N ratio  what crosses the line for that, for one of them
"""
import json
import os
import statistics
import sys
import time

sys.dont_write_bytecode = True
here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(here, "..", "netns"), os.path.join(here, "..", "e2e")]

# pylint: disable=wrong-import-position
from lab import clean_up, need, wait_until  # noqa: E402
from region_lab import RegionCluster, RegionProducer  # noqa: E402
from sluice_node import wire  # noqa: E402

PAIRS, SWITCHOVERS, FAILOVERS = 3, 5, 3
LOAD = ("--types", "trade:1", "--size", "128", "--batch", "200")
SETTINGS = {"log__segment_bytes": "64MiB", "dedupe__memory_bytes_max": "256MiB"}


def done(process):
    out, err = process.communicate()
    if process.returncode != 0:
        sys.exit("bench_regions: sluice send: " + out + err)
    return json.loads(out)


def rate(cluster):
    leader = cluster.leader()
    r = done(cluster.send(leader, "--generate", "2000000", "--in-flight", "256", *LOAD))
    if r["accepted"] != r["sent"]:
        sys.exit("bench_regions: not all were accepted: %s" % r)
    cluster.together()
    return r["events_per_s"]


def put(name, value, unit):
    print("bench %s %.3f %s" % (name, value, unit), flush=True)


def latency(cluster):
    r = done(cluster.send(cluster.leader(), "--generate", "200000", "--rate", "20000", "--in-flight", "4096", *LOAD,
                          durability="region"))
    us = r["receipt_latency_us"]
    for p in ("p50", "p99", "p99.9"):
        put("region_latency_us_" + p, us[p], "us")
    put("region_end_to_end_ms_p99.9", us["p99.9"] / 1000, "ms")


def line(cluster):
    """Market data: trades, quotes and books, as they come."""
    before = cluster.wan.stats()
    r = done(cluster.send(cluster.leader(), "--generate", "300000", "--batch", "200", "--in-flight", "256",
                          "--types", "trade:30,quote:60,book:10"))
    cluster.together()
    after = cluster.wan.stats()
    put("wan_bytes_per_payload_byte", (after[0][0] - before[0][0]) / 3 / r["bytes"], "ratio")


def pauses(cluster):
    producers = [RegionProducer(cluster, cluster[n], "bench-%d" % n, 1,
                                {wire.NOT_LEADER, wire.OVERLOADED, wire.STOPPING}, 0) for n in (1, 4)]
    for p in producers:
        p.start()
        p.go.set()
    longest = []
    for i in range(SWITCHOVERS):
        before = [len(p.receipts) for p in producers]
        wait_until(lambda b=before: all(len(p.receipts) > n + 100 for p, n in zip(producers, b)), "receipts")
        for p in producers:
            p.longest = 0
        cluster[1].cli("cluster", "switchover", "--to", str(2 - i % 2))
        time.sleep(0.5) # what came late is seen then
        longest.append(max(p.longest for p in producers) * 1000)
        for p in producers:
            if p.error:
                raise p.error
    for p in producers:
        p.end = True
        p.go.set()
    put("switchover_pause_ms", statistics.median(longest), "ms")
    print("# the longest wait for a receipt in each switchover: " + ", ".join("%.0f ms" % x for x in longest),
          flush=True)


def kill(nodes):
    for m in nodes:
        m.process.kill()
    for m in nodes:
        m.kill()


def launch(nodes):
    for m in nodes:
        m.launch()
    for m in nodes:
        wait_until(m.answers, "node %d can be asked" % m.number)


def failovers(cluster):
    took, rates, line = [], [], []
    for i in range(FAILOVERS):
        active = cluster.cluster_active()
        lost, left = cluster.region(active), cluster.region(3 - active)
        cluster.together()
        kill(lost)
        begun = time.monotonic()
        left[0].cli("cluster", "failover", "--to", str(3 - active), "--yes")
        done(cluster.send(left[i], "--generate", "1", "--source", "failover-%d" % i))
        took.append((time.monotonic() - begun) * 1000)
        r = done(cluster.send(cluster.leader(), "--generate", "1000000", "--in-flight", "256",
                              "--source", "missed-%d" % i, *LOAD))
        begun, before = time.monotonic(), cluster.wan.stats()[2 - active][0]
        launch(lost)
        left[0].cli("cluster", "rejoin")
        rates.append(r["bytes"] / 1e6 / (time.monotonic() - begun))
        line.append((cluster.wan.stats()[2 - active][0] - before) / 3 / r["bytes"])
    put("failover_ms", statistics.median(took), "ms")
    put("rejoin_mb_per_s", statistics.median(rates), "MB/s")
    put("rejoin_wan_bytes_per_payload_byte", statistics.median(line), "ratio")
    print("# failovers: %s; the starts of the lost nodes are in the rate" % ", ".join("%.0f ms" % x for x in took),
          flush=True)


def main():
    need()
    six = RegionCluster("six", tls=False, **SETTINGS)
    three = RegionCluster("three", 3, tls=False, **SETTINGS)
    for c in (six, three):
        for m in c:
            m.configure(dict(m.keys, **{"peer.insecure": "true", "ingest.insecure": "true"}))
        c.start()
        c.init()
        c.healthy()
    found = []
    for _ in range(PAIRS):
        found.append((rate(six), rate(three)))
    put("replicated_events_per_s_6", statistics.median(a for a, _ in found), "events/s")
    print("ratio six_nodes_to_three %.3f" % statistics.median(a / b for a, b in found), flush=True)
    three.stop()
    latency(six)
    line(six)
    pauses(six)
    failovers(six)
    six.stop()


if __name__ == "__main__":
    try:
        main()
    finally:
        clean_up()
