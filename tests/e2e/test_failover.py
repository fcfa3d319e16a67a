#!/usr/bin/python3
"""test_failover.py - three nodes in each of two regions, real daemons over mutual TLS: the active region is
lost, the other one goes on, and what was lost comes back.

What only the lost region had is made by taking events while the other one is down. (One that is only stopped has
what was sent to it in its sockets.)
"""
import json
import os
import signal
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from recorder import Recorder, all_have_receipts, check_receipts, more_receipts  # noqa: E402
from sluice_cluster import Cluster  # noqa: E402
from sluice_node import (BIN, Stream, ev, expect, expect_equal, main, only_reason, trade, wait_until,  # noqa: E402
                         wire)  # noqa: E402

seed = int(os.environ.get("SLUICE_SEED", time.time_ns() % 100000))
cluster = Cluster("failover", 6, second_region=4, ledger__save_ms=50)
LATER = {wire.NOT_LEADER, wire.OVERLOADED, wire.STOPPING, wire.REGION_UNREACHABLE}
ONE, TWO = (1, 2, 3), (4, 5, 6)
recorders = []


def said(done):
    return (done.stdout + done.stderr).decode()


def asked(node, *words, code=0):
    return said(cluster[node].cli("cluster", *words, code=code))


def as_json(node, *words, code=0):
    return json.loads(cluster[node].cli("cluster", *words, "--json", code=code).stdout)


def kill(numbers):
    for n in numbers:
        cluster[n].kill()


def start(numbers):
    for n in numbers:
        cluster[n].launch()
    for n in numbers:
        wait_until(lambda n=n: cluster[n].answers(), "node %d can be asked" % n)


def signalled(numbers, how):
    for n in numbers:
        cluster[n].process.send_signal(how)


def leader_of(region):
    wait_until(lambda: cluster.leader().number in (ONE if region == 1 else TWO), "a node of region %d leads" % region)
    return cluster.leader()


def taken_alone(source, node, events, durability=wire.QUORUM):
    """Events that the node's region takes while the other one hears nothing: orphans to be."""
    with Stream(cluster[node].port) as s:
        batch = [trade(source, b"%s-%d" % (source.encode(), i), i) for i in range(events)]
        r = s.batch(batch)
        expect_equal((r.accepted, r.durability), (events, durability), "taken by the region that is to be lost")
    return batch


def log_of(node):
    """Every event of the log, by source and id: its place and bytes. None is there twice."""
    events = {}
    for index, slot, raw in node.tail():
        e = ev.Event.FromString(raw)
        expect((e.source, e.id) not in events, "twice in the log of node", node.number, e.source, e.id)
        events[e.source, e.id] = (index, slot, raw)
    return events


def load(on):
    if not recorders:
        for n, durability in ((2, wire.REGION), (5, wire.REGION), (6, 0)):
            recorders.append(Recorder("load-%d" % n, lambda n=n: cluster[n].port, seed, LATER, durability))
            recorders[-1].start()
    for r in recorders:
        (r.go.set if on else r.go.clear)()


def all_well():
    cluster.healthy()
    cluster.together()
    for m in cluster:
        m.ledger()


def test_init():
    """a cluster of two regions, under load"""
    cluster.start()
    cluster.init(1)
    cluster.healthy()
    cluster[1].cli("config", "set", "region.wait_ms", "5000")
    cluster.together()
    load(True)
    more_receipts(recorders, 50)


def test_refusals():
    """what cannot be is refused in a sentence, and a dry run changes nothing"""
    expect("ask a node of region 2" in asked(1, "failover", "--to", "2", "--yes", code=4), "of the other region")
    expect("region 1 is the active one" in asked(1, "failover", "--to", "1", "--yes", code=4), "of the active one")
    expect("--yes says that it is meant" in asked(4, "failover", "--to", "2", code=2), "nobody can be asked")
    expect("--to takes a region" in asked(4, "failover", "--to", "3", code=2), "region 3")
    text = asked(4, "failover", "--to", "2", "--dry-run")
    expect("THE OTHER REGION STILL HAS A LEADER" in text and "3 nodes answer" in text, text)
    r = as_json(5, "failover", "--to", "2", "--dry-run")
    expect_equal((r["dryRun"], r["report"]["nodesAnswering"], r["report"]["othersAnswering"], r["report"]["epoch"]),
                 (True, 3, 3, 2), "of a dry run")
    expect(r["report"]["oldLeader"] in ONE and r["report"]["leader"] == 0, r)
    leader_of(1)
    expect_equal(asked(3, "orphans"), "none\n", "orphans")


def test_lost_by_kill():
    """the active region is killed, with entries that the other one does not have"""
    load(False)
    all_have_receipts(recorders)
    cluster.together()
    kill(TWO)
    alone = taken_alone("alone", 1, 30)
    cluster[1].cli("config", "set", "skew.past_ms", "86400000")
    kill(ONE)
    start(TWO)
    text = asked(4, "failover", "--to", "2", "--dry-run")
    expect("No node of the other region answers" in text, text)
    begun = time.monotonic()
    r = as_json(4, "failover", "--to", "2", "--yes")
    expect_equal((r["report"]["epoch"], r["dryRun"]), (2, False), "epoch")
    expect(r["report"]["leader"] in TWO, r)
    with Stream(cluster[6].port) as s:
        expect_equal(s.batch([trade("after", b"1", 1)]).epoch, 2, "the receipt's epoch")
    print("     writing again %.2f s after the command" % (time.monotonic() - begun))
    expect("region 2 is the active one" in asked(5, "failover", "--to", "2", "--yes", code=4), "once more")
    start(ONE)
    text = asked(6, "rejoin")
    expect("all 6 members are of epoch 2" in text, text)
    all_well()
    log = log_of(cluster[1])
    expect(not any(source == "alone" for source, _ in log), "what region 1 had alone is in the log")
    files = as_json(2, "orphans")["orphans"]
    expect_equal(sorted(f["node"] for f in files), [1, 2, 3], "who has set something aside")
    expect_equal({(f["events"], f["epoch"], f["into"], f["reconciled"]) for f in files}, {(30, 1, 2, False)}, "what")
    text = asked(4, "orphans")
    expect("30 events" in text and "of epoch 1" in text, text)
    # One of them is sent again by its producer, before the operator has it done.
    with Stream(cluster[2].port) as s:
        expect_equal(s.batch(alone[:1]).accepted, 1, "sent again")
    r = as_json(4, "reconcile")
    expect_equal((r["files"], r["accepted"], r["duplicates"], r["conflicts"], r["others"]),
                 (3, 29, 61, 0, 3), "reconciled")
    expect_equal(as_json(4, "reconcile")["files"], 0, "a second time")
    expect_equal({f["reconciled"] for f in as_json(2, "orphans")["orphans"]}, {True}, "reconciled")
    all_well()
    log = log_of(cluster[3])
    expect_equal(sorted(ident for source, ident in log if source == "alone"),
                 sorted(b"alone-%d" % i for i in range(30)), "nothing is missing, nothing twice")
    check_receipts(cluster[1], recorders, moved=True)


def test_a_conflict_is_told():
    """an id that has another event by now: the old one stays in its file"""
    cluster.together()
    kill(ONE)
    taken_alone("conflict", 4, 3)
    kill(TWO)
    start(ONE)
    asked(1, "failover", "--to", "1", "--yes")
    with Stream(cluster[1].port) as s:
        expect_equal(s.batch([trade("conflict", b"conflict-0", 77)]).accepted, 1, "another event of that id")
    start(TWO)
    asked(1, "rejoin")
    r = as_json(1, "reconcile")
    expect_equal((r["files"], r["accepted"], r["duplicates"], r["conflicts"]), (3, 2, 4, 3), "reconciled")
    open_files = [f for f in as_json(1, "orphans")["orphans"] if not f["reconciled"]]
    expect_equal(sorted(f["node"] for f in open_files), [4, 5, 6], "they are kept as they were")
    all_well()


def test_alive_behind_a_partition():
    """the old region was only stopped: it hears of the new epoch, and gives way by itself"""
    cluster.together()
    load(True)
    more_receipts(recorders, 20)
    load(False)
    all_have_receipts(recorders)
    signalled(ONE, signal.SIGSTOP)
    r = as_json(6, "failover", "--to", "2", "--yes")
    expect_equal((r["report"]["epoch"], r["report"]["leader"] in TWO), (4, True), "epoch, leader")
    load(True)
    more_receipts([r for r in recorders if r.durability == 0], 20)
    signalled(ONE, signal.SIGCONT)
    asked(5, "rejoin")
    more_receipts(recorders, 20)
    load(False)
    all_have_receipts(recorders)
    all_well()
    check_receipts(cluster[1], recorders, moved=True)


def test_pause():
    """nothing is taken while an operator says so, at any node; who sends again has it when that ends"""
    expect("no node takes events" in asked(2, "pause"), "pause")
    cluster.together()
    for n in (1, 5):
        with Stream(cluster[n].port) as s:
            expect_equal(only_reason(s.batch([trade("pause", b"%d" % n, n)])), {"PAUSED"}, "refused for")
    send = subprocess.Popen([os.path.join(BIN, "sluice"), "send", "--generate", "100", "--source", "paused",
                             "--address", "127.0.0.1:%d" % cluster[3].port, "--json-summary", "--quiet"],
                            stdout=subprocess.PIPE, text=True)
    wait_until(lambda: cluster[3].ledger()["events"]["total"]["refused"] > 0, "sluice send is refused")
    asked(4, "pause")  # again: it is done
    expect("taken again" in asked(6, "resume"), "resume")
    out, _ = send.communicate(timeout=60)
    expect_equal(json.loads(out)["accepted"], 100, "of sluice send")
    with Stream(cluster[5].port) as s:
        expect_equal(s.batch([trade("pause", b"5", 5)]).accepted, 1, "accepted")


def test_with_a_survivor_missing():
    """two of three are enough; the third comes back as the old region does"""
    kill((3,))
    kill(TWO)
    r = as_json(1, "failover", "--to", "1", "--yes")
    expect_equal((r["report"]["epoch"], r["report"]["nodesAnswering"]), (5, 2), "epoch, nodes")
    kill((2,))
    text = asked(1, "failover", "--to", "1", "--yes", code=4)
    expect("of the 3 nodes of region 1 only 1 can be asked; it takes 2 of them" in text, text)
    start((2, 3) + TWO)
    asked(2, "rejoin")
    all_well()
    check_receipts(cluster[3], recorders, moved=True)


def test_two_at_once():
    """of two that are started at once one wins, or both are told to ask again"""
    kill(ONE)
    results = {}

    def ask(node):
        done = cluster[node].cli("cluster", "failover", "--to", "2", "--yes", code=None)
        results[node] = (done.returncode, said(done))

    both = [threading.Thread(target=ask, args=(n,)) for n in (4, 5)]
    for t in both:
        t.start()
    for t in both:
        t.join()
    print("     " + "; ".join("%d: %s" % (n, results[n][1].strip()[:90]) for n in (4, 5)))
    expect(not all(code == 0 for code, _ in results.values()) or results[4][1] == results[5][1], results)
    if all(code != 0 for code, _ in results.values()):
        asked(6, "failover", "--to", "2", "--yes")
    leader_of(2)
    start(ONE)
    asked(4, "rejoin")
    all_well()
    check_receipts(cluster[1], recorders, moved=True)


def test_killed_in_the_middle():
    """the node that leads the failover is killed at once: what has promised stands still until it is asked again"""
    kill(TWO)
    for n in ONE:
        wait_until(lambda n=n: cluster[n].status().role == "follower", "node %d stands by" % n)
    ended = threading.Event()

    def ask():
        cluster[1].cli("cluster", "failover", "--to", "1", "--yes", code=None)
        ended.set()

    threading.Thread(target=ask, daemon=True).start()
    wait_until(lambda: ended.is_set() or b"promised" in open(cluster[2].log, "rb").read().split(b"ledger")[-1] or
               cluster[2].status().role == "fenced", "node 2 has promised")
    cluster[1].kill()
    wait_until(ended.is_set, "the command ends")
    done = cluster[2].cli("cluster", "failover", "--to", "1", "--yes", code=None)
    if "is the active one" not in said(done):
        asked(2, "failover", "--to", "1", "--yes")
    leader_of(1)
    start((1,) + TWO)
    asked(3, "rejoin")
    all_well()
    check_receipts(cluster[5], recorders, moved=True)


def test_most_of_a_region_is_lost_for_good():
    """one is left of both: it goes on with new nodes in the place of those that are declared dead, and with nobody
    else; the other region comes back to it"""
    load(False)
    all_have_receipts(recorders)
    cluster.together()
    kept = len(log_of(cluster[6]))
    kill(ONE + (4, 5))
    text = asked(6, "failover", "--to", "2", "--yes", code=4)
    expect("only 1 can be asked; it takes 2 of them" in text and "--dead" in text, text)
    seven, eight = cluster.member(7), cluster.member(8)
    text = asked(6, "failover", "--to", "2", "--yes", "--dead", "4", "5", seven.place, eight.place, code=4)
    expect("node 7 at 127.0.0.1" in text and "does not answer" in text, text)
    for m in (seven, eight):
        m.start()
    for words, why in ((("4", "5"), "fewer than three nodes"), (("4", "5", seven.place), "fewer than three nodes"),
                       (("4", "6", seven.place, eight.place), "the node that is asked is not dead"),
                       (("1", "5", seven.place, eight.place), "of the region that is to go on"),
                       (("4", "5", "9=" + seven.place.split("=")[1], eight.place), "its certificate is that of another node")):
        text = asked(6, "failover", "--to", "2", "--yes", "--dead", *words, code=4)
        expect(why in text, words, text)
    start((4,))
    text = asked(6, "failover", "--to", "2", "--yes", "--dead", "4", "5", seven.place, eight.place, code=4)
    expect("node 4 answers, so it is not dead" in text, text)
    kill((4,))
    text = asked(6, "failover", "--to", "2", "--dry-run", "--dead", "4", "5", seven.place, eight.place)
    expect("1 nodes answer" in text and "ONLY THE NODES DECLARED DEAD HAD IS LOST" in text, text)
    r = as_json(6, "failover", "--to", "2", "--yes", "--dead", "4", "5", seven.place, eight.place)
    expect_equal(r["report"]["leader"], 6, "who leads: the only one with a log")
    with Stream(seven.port) as s:
        wait_until(lambda: s.batch([trade("dead", b"1", 1)]).accepted == 1, "an event is taken")
    again = as_json(6, "failover", "--to", "2", "--yes", "--dead", "4", "5", seven.place, eight.place)
    expect("goes on with the new nodes already" in again["result"], again)
    for n in (4, 5):
        del cluster.members[n]
    start(ONE)
    asked(7, "rejoin")
    expect_equal(sorted((m["node"], m["voter"]) for m in seven.cluster_status()["members"]),
                 [(1, False), (2, False), (3, False), (6, True), (7, True), (8, True)], "members")
    all_well()
    expect(len(log_of(eight)) > kept, "a new node has the whole log")
    here = [r for r in recorders if not r.source.endswith("-5")]
    for r in here:
        r.go.set()
    more_receipts(here, 20)  # for both regions, too
    load(False)
    all_have_receipts(here)
    all_well()
    check_receipts(eight, recorders, moved=True)


if __name__ == "__main__":
    print("seed %d" % seed)
    main([test_init, test_refusals, test_lost_by_kill, test_a_conflict_is_told, test_alive_behind_a_partition, test_pause,
          test_with_a_survivor_missing, test_two_at_once, test_killed_in_the_middle,
          test_most_of_a_region_is_lost_for_good])
