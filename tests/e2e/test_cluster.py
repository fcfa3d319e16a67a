#!/usr/bin/python3
"""test_cluster.py - a cluster of real daemons, over mutual TLS, by what an operator has: `sluice cluster`.

It is made in spite of a kill in the middle, loses its leader under load, grows, shrinks, hands the lead over,
and refuses what does not belong to it: strangers, copies, certificates of others, garbage.
"""
import os
import random
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from recorder import Recorder, all_have_receipts, check_receipts, more_receipts, receipts  # noqa: E402
from sluice_cluster import Cluster, Member, Pki  # noqa: E402
from sluice_node import (BIN, Stream, expect, expect_equal, main, trade, wait_until,  # noqa: E402
                         wire)

seed = int(os.environ.get("SLUICE_SEED", time.time_ns() % 100000))
chance = random.Random(seed)
print("seed %d (SLUICE_SEED repeats the choices, not the timing)" % seed)

cluster = Cluster("cluster", ledger__save_ms=50)
recorders = []
LATER = {wire.NOT_LEADER, wire.OVERLOADED, wire.STOPPING}


def said(done):
    return (done.stdout + done.stderr).decode()


def refused(done, *words):
    """One sentence on stderr, with these words."""
    text = done.stderr.decode()
    expect(text.startswith("sluice: ") and text.count("\n") == 1, "one sentence, not:", text)
    for word in words:
        expect(word in text, "%r in:" % word, text)


def logged(node, word, count=1):
    def there():
        with open(node.log, encoding="utf-8", errors="replace") as f:
            return f.read().count(word) >= count
    wait_until(there, "node %d says %r" % (node.number, word), 20)


def ids_of_clusters():
    return {m.status().cluster_id for m in cluster.running()}


# --- making one -----------------------------------------------------------------------------------


def test_waiting():
    """nodes of no cluster wait, say what for, and answer every question"""
    cluster.start()
    for m in cluster:
        expect_equal(m.status().role, "waiting", "role")
        done = m.cli("cluster", "status", code=1)
        expect("sluice cluster init %s" % m.place in said(done), "what to do:", said(done))
        expect_equal(m.cluster_status()["healthy"], False, "health of a node that waits")
    for args, code in ((("status",), 0), (("ledger",), 0), (("config", "get"), 0), (("cluster", "members"), 1),
                       (("tail", "--no-follow"), 0), (("get", "1-2-3"), 4), (("get", "x", "--source", "s"), 4)):
        cluster[1].cli(*args, code=code)
    refused(cluster[1].cli("get", "1-2-3", "--max-lag-s", "5", code=4), "has not heard from a leader")


def test_no_cluster_of_wrong_nodes():
    """what cannot become a cluster is refused in a sentence, and all still wait"""
    one, two, three = (cluster[n].place for n in (1, 2, 3))
    at_three = cluster[3].peer
    refused(cluster[1].cli("cluster", "init", two, three, "4=" + cluster[1].peer, code=4),
            "node 1, is not among them")
    refused(cluster[1].cli("cluster", "init", one, "2=" + at_three, "3=" + cluster[2].peer, code=4), "node")
    with socket.socket() as s: # somebody listens there, who is no node
        s.bind(("127.0.0.1", 0))
        s.listen()
        refused(cluster[1].cli("cluster", "init", one, two, "3=127.0.0.1:%d" % s.getsockname()[1], code=4),
                "node 3 at 127.0.0.1")
    expect_equal([m.status().role for m in cluster], ["waiting"] * 3, "roles")


def test_init_is_killed():
    """the node that makes the cluster is killed in the middle; init at another makes the same one"""
    places = [m.place for m in cluster]
    with open(os.devnull, "wb") as null:
        init = subprocess.Popen([os.path.join(BIN, "sluice"), "cluster", "init", *places], stdout=null, stderr=null,
                                env=dict(os.environ, SLUICE_SOCKET=cluster[1].socket))
    time.sleep(chance.random() * 0.05) # any moment
    cluster[1].kill()
    init.wait()
    cluster[1].start()
    cluster.init(3)
    first = ids_of_clusters()
    expect_equal(len(first), 1, "clusters")
    cluster.init(2)
    cluster.init(1)
    expect_equal(ids_of_clusters(), first, "the cluster, after init again")
    leader = cluster.leader()
    refused(leader.cli("cluster", "init", *places[:2], "4=127.0.0.1:1", code=4), "")
    expect_equal(ids_of_clusters(), first, "the cluster, after another init")


def test_status():
    """each node shows all of them, and who leads"""
    cluster.healthy()
    leader = cluster.leader()
    for m in cluster:
        wait_until(lambda m=m: m.cluster_status()["healthy"], "healthy")
        s = m.cluster_status()
        expect_equal(s["node"], m.number, "the node that answers")
        expect_equal(s["leader"], leader.number, "who leads")
        expect_equal([x["node"] for x in s["members"]], [1, 2, 3], "members")
        expect_equal([x["zone"] for x in s["members"]], ["rack1", "rack2", "rack3"], "zones")
        expect(all(x["certificateUntil"] > time.time() + 300 * 86400 for x in s["members"]), "certificates", s)
        expect_equal(s["problems"], [], "problems")
        own = m.status()
        expect_equal(own.leader, leader.number, "who leads, by sluice status")
        expect_equal(sorted(p.node for p in own.peers), sorted({1, 2, 3} - {m.number}), "peers")
        expect(all(p.connected_ns > 0 for p in own.peers), "connections", own.peers)
        expect_equal(m.cli("cluster", "members").stdout.count(b"voter"), 3, "voters")


# --- at work --------------------------------------------------------------------------------------


def place_of(receipt, slot=0):
    return "%d-%d-%d" % (receipt.epoch, receipt.index, receipt.first_slot + slot)


def test_reads():
    """with a barrier every node reads what has a receipt; without one it says how old that may be"""
    leader = cluster.leader()
    with Stream(leader.port) as s:
        for n in range(3):
            r = s.batch([trade("reads", b"%d" % n, n)])
            for m in cluster:
                m.json("get", place_of(r), "--barrier")
                m.json("get", "%d" % n, "--source", "reads", "--barrier")
    cluster.together()
    for m in cluster:
        done = m.cli("get", place_of(r), "--max-lag-s", "10")
        expect_equal(b"behind" in done.stderr, m is not leader, "a bound is told: " + done.stderr.decode())
        done = m.cli("tail", "--no-follow", "--barrier", "--source", "reads")
        expect_equal(done.stdout.count(b"\n"), 3, "events at node %d" % m.number)
    m = next(m for m in cluster if m is not leader)
    m.cli("config", "set", "skew.past_ms", "600000001") # passed on to the leader
    expect(all(x.json("config", "history") for x in cluster) and m.json("config", "history"), "history")
    cluster.together()
    for m in cluster:
        m.ledger()


def port():
    """Of any node that runs: those that do not lead pass on what they get."""
    return chance.choice(cluster.running() or [cluster[1]]).port


def load(on):
    if not recorders:
        recorders.extend(Recorder("load-%d" % n, port, seed, LATER) for n in range(2))
        for r in recorders:
            r.start()
    for r in recorders:
        (r.go.set if on else r.go.clear)()


def test_leader_is_killed():
    """the leader is killed under load, twice: another leads, and no receipt was for nothing"""
    load(True)
    for _ in range(2):
        more_receipts(recorders, 150)
        old = cluster.leader()
        old.kill()
        more_receipts(recorders, 150)
        s = next(m for m in cluster.running()).cluster_status()
        expect(not s["healthy"] and any("node %d is silent" % old.number in p for p in s["problems"]), s)
        old.start()
    more_receipts(recorders, 50)
    load(False)
    all_have_receipts(recorders)
    cluster.healthy()
    cluster.together()
    for m in cluster:
        check_receipts(m, recorders)
        m.ledger()
    print("     %d receipts, %d known again after a resend" %
          (sum(receipts(recorders)), sum(r.duplicates for r in recorders)))


# --- members change -------------------------------------------------------------------------------


def test_add():
    """a fourth node gets the log and a vote, though the operator leaves in the middle"""
    asked = next(m for m in cluster if m is not cluster.leader())
    refused(asked.cli("cluster", "add", "4=127.0.0.1:1", code=4), "node 4 at 127.0.0.1:1 does not answer")
    four = cluster.member(4)
    four.start()
    load(True)
    with open(os.devnull, "wb") as null:
        add = subprocess.Popen([os.path.join(BIN, "sluice"), "cluster", "add", four.place], stdout=null, stderr=null,
                               env=dict(os.environ, SLUICE_SOCKET=asked.socket))
    wait_until(lambda: len(asked.cluster_status()["members"]) == 4, "node 4 is a member")
    add.send_signal(signal.SIGINT)
    add.wait()
    wait_until(lambda: [x["voter"] for x in asked.cluster_status()["members"]] == [True] * 4, "four voters")
    expect("node 4 is a voter" in said(asked.cli("cluster", "add", four.place)), "add again is done already")
    load(False)
    s = cluster.healthy()
    expect(any("4 voters" in n for n in s["notes"]), "a note about four voters:", s["notes"])
    cluster.together()
    check_receipts(four, recorders)


def test_transfer():
    """the lead goes to whom it is given, asked at any node"""
    for number in (4, 2):
        before = cluster.leader().number
        done = cluster[1].cli("cluster", "transfer", str(number))
        expect("node %d leads" % number in said(done), said(done))
        wait_until(lambda n=number: cluster.leader().number == n, "node %d leads" % number)
        cluster[3].cli("cluster", "transfer", str(number)) # again
        expect_equal(cluster.leader().number, number, "who leads; before: %d" % before)
    refused(cluster[1].cli("cluster", "transfer", "9", code=1), "node 9 is not another voter")


def test_replace():
    """a dead node is replaced by a new one, and a member removed; again, it is done already"""
    three, five = cluster[3], cluster.member(5)
    five.start()
    three.kill()
    refused_unasked = cluster[1].cli("cluster", "replace", "3", five.place, code=2)
    expect("--yes" in said(refused_unasked), said(refused_unasked))
    for _ in range(2):
        cluster[1].cli("cluster", "replace", "3", five.place, "--yes")
        expect_equal([x["node"] for x in cluster[1].cluster_status()["members"]], [1, 2, 4, 5], "members")
    cluster[4].cli("cluster", "remove", "4", "--yes")
    cluster[1].cli("cluster", "remove", "4", "--yes") # again
    refused(cluster[4].cli("cluster", "remove", "4", "--yes", code=4), "node 4 is not a member of this cluster")
    expect_equal([x["node"] for x in cluster[1].cluster_status()["members"]], [1, 2, 5], "members")
    refused(cluster[1].cli("cluster", "remove", "5", "--yes", code=4), "fewer than 3 voters")
    cluster[4].stop()
    s = cluster.healthy()
    expect_equal([x["node"] for x in s["members"]], [1, 2, 5], "members")
    del cluster.members[3], cluster.members[4]
    cluster.together()
    check_receipts(five, recorders)


# --- what does not belong to it -------------------------------------------------------------------


def test_strangers():
    """garbage, frames that are too long, and certificates of others at the port for nodes change nothing"""
    node = cluster[1]
    host, number = node.peer.split(":")
    address = (host, int(number))
    other = Pki("another")
    producer, node9 = cluster.pki.client("producer", "feed"), cluster.pki.node(9)
    for data in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(1000), os.urandom(4096)):
        with socket.create_connection(address, 10) as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            try:
                while s.recv(4096):
                    pass
            except ConnectionResetError:
                pass
    frame = struct.pack("<IHHQII8x", 0x52454550, 1, 99, 1, 0xffffffff, 0)
    for files, data in ((other.client("producer", "feed"), b""), (other.node(2), b""), (producer, frame),
                        (node9, frame), (node9, os.urandom(65536))):
        tls = ssl.create_default_context(cafile=files["ca"])
        tls.load_cert_chain(files["cert"], files["key"])
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(address, 10) as s:
            try:
                with tls.wrap_socket(s) as t:
                    t.sendall(data)
                    while t.recv(4096):
                        pass
            except OSError:
                pass # an alert, or a reset
    cluster.healthy()
    leader = cluster.leader()
    with Stream(leader.port) as s:
        s.batch([trade("strangers", b"1")])


def copy_of(node, number=None, pki=None, name="copy"):
    """Another node with this one's data, number and configuration, or others."""
    files = (pki or cluster.pki).files("node-%d" % (number or node.number))
    copy = Member(number or node.number, name, files)
    if node is not None:
        shutil.copytree(node.data, copy.data)
    return copy


def test_wrong_directories():
    """a copied directory, a wiped one, and one under another number are refused, with a sentence"""
    leader = cluster.leader()
    node = next(m for m in cluster if m is not leader)
    node.stop()
    # The directory under another number: the daemon itself does not start.
    other = copy_of(node, 9, name="renumbered")
    other.launch()
    expect(other.ended(20) != 0, "a directory of node %d, as node 9" % node.number)
    expect("node" in other.stderr(), other.stderr())
    # Wiped: it would vote again in terms in which it has voted.
    kept = node.data + ".kept"
    os.rename(node.data, kept)
    node.start()
    logged(leader, "a new directory needs a new node id")
    wait_until(lambda: not cluster.leader().cluster_status()["healthy"], "it is missed")
    expect_equal(node.status().last_index, 0, "what the wiped node was sent")
    node.stop()
    shutil.rmtree(node.data)
    os.rename(kept, node.data)
    # Copied, and run beside the original: it is told, and harms nobody.
    copy = copy_of(node)
    node.start()
    cluster.healthy()
    copy.start()
    logged(leader, "node %d runs twice" % node.number)
    with Stream(cluster.leader().port) as s:
        s.batch([trade("copies", b"1")])
    copy.kill()
    cluster.healthy()
    cluster.together()


def test_wrong_certificate():
    """a node does not start with the certificate of another, or of another CA"""
    node = next(m for m in cluster if m is not cluster.leader())
    another = Pki("foreign")
    keys = dict(node.keys)
    node.stop()
    files = cluster.pki.node(8)
    node.configure(dict(keys, **{"tls." + k: v for k, v in files.items()}))
    node.launch()
    expect(node.ended(20) != 0, "node %d with the certificate of node 8" % node.number)
    expect("is not the certificate of node %d" % node.number in node.stderr(), node.stderr())
    files = another.node(node.number)
    node.configure(dict(keys, **{"tls." + k: v for k, v in files.items()}))
    node.start()
    wait_until(lambda: any("node %d is silent" % node.number in p for p in
                           cluster.leader().cluster_status()["problems"]), "it is silent")
    node.stop()
    node.configure(keys)
    node.start()
    cluster.healthy()


def test_end():
    """all nodes stop, and each log verifies and has the same events"""
    load(True)
    more_receipts(recorders, 50)
    load(False)
    all_have_receipts(recorders)
    for r in recorders:
        r.end = True
        r.go.set()
        r.join()
    cluster.together()
    for m in cluster:
        check_receipts(m, recorders)
        m.ledger()
    cluster.stop()
    found = {m.verify()["events"] for m in cluster}
    expect_equal(len(found), 1, "numbers of events: %s" % found)


main([test_waiting, test_no_cluster_of_wrong_nodes, test_init_is_killed, test_status, test_reads,
      test_leader_is_killed, test_add, test_transfer, test_replace, test_strangers, test_wrong_directories,
      test_wrong_certificate, test_end])
