#!/usr/bin/python3
"""test_flood.py - more than there is room for: what one class loses another does not, and every loss is counted.

A veth pair may itself lose frames when its queue is full, before any program sees them; the pair counts
them, and they are taken off what was sent.
"""
import contextlib
import os
import signal
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from lab import (  # noqa: E402
    FULL, PORT, SOL_UDP, UDP_SEGMENT, Background, Ids, XdpNode, batch_bytes, batch_frame, book, client_frame, committed,
    custom, drops, expect, expect_equal, idle, lab, run, quote, thread_halted, trade, wait_until, wire)

ids = Ids()
TRAIN = 50  # datagrams of one system call


def flood_of(p, make):
    """A step that sends TRAIN equally long datagrams at once."""
    s = p.udp()

    def step(i):
        train = [make(b"%012d" % (i * TRAIN + k)) for k in range(TRAIN)]
        s.sendmsg([b"".join(train)], [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(train[0])))])
    return step


def by_class(x, key):
    return [c[key] for c in x["classes"]]


def other_class():
    """a flood of the lowest class fills its own ring: a paced stream of the highest loses none, and the account is
    exact"""
    ring = 512
    with lab() as (p,), XdpNode(p.server, [p], "native", ingest__xdp__ring=ring) as node:
        node.set("type.news", "64")
        template, mark = custom("flood", b"%012d" % 0), b"%012d" % 0
        s = p.udp()
        # The flood gives way to the others, as it would if it came over a wire.
        flood = Background(flood_of(p, lambda ident: template.replace(mark, ident)), nice=10)
        junk = Background(flood_of(p, lambda ident: b"\xff" + ident), pause=0.001, nice=10)
        stream = Background(lambda i: s.send(trade("paced", b"%d" % i)), pause=0.001)
        wait_until(lambda: stream.count() > (5000 if FULL else 1000) and
                   node.xdp()["classes"][3]["ringFull"] > 20 * ring and stream.count() > 1000,
                   "the flood fills its ring many times while the stream goes on")
        flood, trash, sent = flood.end() * TRAIN, junk.end() * TRAIN, stream.end()
        at_rest(node)
        lost = p.lost()
        a = node.seen(sent + flood + trash - lost)
        x = node.xdp()
        arrived = {t["type"]: t["arrived"] for t in x["types"]}
        gone = drops(a)
        print("  sent %d of class 0, %d of class 3, %d of junk; the pair lost %d; dropped: %s" % (
            sent, flood, trash, lost, gone))
        if lost == 0:
            expect_equal(arrived, {1: sent, 64: flood, 0: trash}, "arrived, by type")
        expect_equal(committed(a, 1), arrived[1], "of class 0, committed")
        expect_equal(set(gone), {"ring_full_3", "not_protobuf"}, "what was dropped, and why")
        expect_equal(by_class(x, "ringFull")[:3], [0, 0, 0], "full rings of other classes")
        expect_equal(committed(a, 64) + gone["ring_full_3"], arrived[64], "of class 3")
        expect_equal(gone["not_protobuf"], arrived[0], "junk")
        expect_equal(x["fillEmpty"], 0, "fill_empty")


def at_rest(node):
    """All that comes is decided."""
    last = [None]

    def rest():
        now = node.look()
        same, last[0] = now is not None and now == last[0], now
        return same
    wait_until(rest, "all is decided")


def halt(node):
    """Stops every thread of the node."""
    pid = node.process.pid
    node.process.send_signal(signal.SIGSTOP)

    def halted():
        for tid in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/stat" % (pid, tid), encoding="ascii") as f:
                if f.read().rsplit(")", 1)[1].split()[0] != "T":
                    return False
        return True
    wait_until(halted, "it is stopped", 20)


MAKE = ((1, trade), (2, quote), (3, book), (64, custom))


def stopped():
    """while the node is stopped every class fills its own ring, to the datagram; the rest is counted, and when it
    goes on all that was in the rings is committed"""
    cases = ((512, "native", 2), (64, "generic", 1), (64, "native", 1))
    for ring, mode, queues in cases if FULL else cases[:2]:
        with lab(queues=queues) as (p,), XdpNode(p.server, [p], mode, ingest__xdp__ring=ring) as node:
            node.set("type.news", "64")
            sent, rounds = 0, 3 if FULL else 2
            s = p.udp()
            for k in range(rounds):
                n = ring + 100 + 100 * k
                halt(node)
                for _ in range(n):
                    for _, make in MAKE:
                        s.send(make("stopped", ids()))
                node.process.send_signal(signal.SIGCONT)
                sent += 4 * n
                a = node.seen(sent)
                # One flow, and so one queue.
                full = sum(100 + 100 * j for j in range(k + 1))
                expect_equal(p.lost(), 0, "lost by the pair")
                expect_equal(drops(a), {"ring_full_%d" % c: full for c in range(4)}, "drops")
                expect_equal([committed(a, t) for t, _ in MAKE], [ring * (k + 1)] * 4, "committed")
                expect_equal(node.xdp()["fillEmpty"], 0, "fill_empty")


def one_by_one():
    """a full ring of one class, while others have room, costs the others nothing: each class in turn"""
    with lab() as (p,), XdpNode(p.server, [p], "native", ingest__xdp__ring=64) as node:
        node.set("type.news", "64")
        sent, full = 0, [0] * 4
        s = p.udp()
        for c, (_, flood) in enumerate(MAKE):
            halt(node)
            for _ in range(1000):
                s.send(flood("one", ids()))
            for _, make in MAKE:
                for _ in range(60 if make is not flood else 0):
                    s.send(make("one", ids()))
            node.process.send_signal(signal.SIGCONT)
            sent += 1000 + 3 * 60
            full[c] = 1000 - 64
            a = node.seen(sent)
            expect_equal([a["datagrams"]["drops"]["ring_full_%d" % k] for k in range(4)], full, "full rings")
            expect_equal(sum(drops(a).values()), sum(full), "drops")
            expect_equal(node.xdp()["fillEmpty"], 0, "fill_empty")


def no_block():
    """while the log takes nothing and every block is with it, what waits in the rings costs no time; then it is
    committed"""
    with lab() as (p,), XdpNode(p.server, [p], "native", ingest__workers=1, pipeline__blocks=2) as node, p.udp() as s:
        sent = 0

        def waits():
            nonlocal sent
            s.send(trade("block", ids()))
            sent += 1
            return by_class(node.xdp(), "waiting")[0] > 0
        with thread_halted(node, "sluice-cluster"):
            wait_until(waits, "there is no block")
            idle(node, "it waits for a block,")
        a = node.seen(sent)
        expect_equal((committed(a), drops(a)), (sent, {}), "committed and drops")


def tcp_flood_of(p):
    """A step that sends a batch over a connection; its receipts are thrown away."""
    s = p.client.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.connect((p.s4, PORT))
    s.sendall(client_frame(1, wire.Hello(protocol=1).SerializeToString()))
    batch = batch_frame([trade("tcp", b"") for _ in range(500)], 1)

    def step(_):
        s.sendall(batch)
        with contextlib.suppress(BlockingIOError):
            while s.recv(1 << 20, socket.MSG_DONTWAIT):
                pass
    return step


def share():
    """a flood by TCP, for which there are not blocks enough, leaves datagrams their share of them"""
    with lab() as (p,), XdpNode(p.server, [p], "native", ingest__workers=1, pipeline__blocks=2) as node, p.udp() as s:
        floods = [Background(tcp_flood_of(p), nice=10) for _ in range(4)]
        stream = Background(lambda i: s.send(trade("share", b"%d" % i)), pause=0.001)
        wait_until(lambda: by_class(node.xdp(), "taken")[0] > 2000, "datagrams are taken", 60)
        for b in floods + [stream]:
            b.end()
        expect(all(b.count() > 100 for b in floods), "batches by TCP", [b.count() for b in floods])


def ended():
    """told to end while its rings are full, it commits what is in them or counts it"""
    ring = 256
    with lab() as (p,), XdpNode(p.server, [p], "native", ingest__xdp__ring=ring) as node:
        node.set("type.news", "64")
        with p.udp() as s:
            halt(node)
            for _ in range(ring + 50):
                for _, make in MAKE:
                    s.send(make("ended", ids()))
            node.process.send_signal(signal.SIGTERM)
            node.process.send_signal(signal.SIGCONT)
        expect_equal(node.ended(), 0, "exit code")
        events = node.verify()["events"]
        node.start()
        a = node.seen(4 * (ring + 50))
        gone = drops(a)
        stopping = gone.pop("stopping", 0)
        expect_equal(gone, {"ring_full_%d" % c: 50 for c in range(4)}, "drops")
        expect_equal(events + stopping, 4 * ring, "committed, or counted")
        expect_equal((committed(a), a["log"]["events"]), (events, events), "events in ledger and log")


def load():
    """stopped for two seconds under the load of all classes from several senders, in whatever state it is: what was
    sent is committed or counted"""
    with lab(queues=2) as (p,), XdpNode(p.server, [p], "native", ingest__xdp__ring=256, ingest__workers=2) as node:
        node.set("type.news", "64")

        def sender(k):
            s = p.udp(p.s6 if k % 2 else p.s4)

            def step(i):
                for number, make in MAKE:
                    s.send(make("load%d-%d" % (number, k), b"%d" % i))
                s.send(batch_bytes([trade("batch1-%d" % k, b"%d" % i), quote("batch2-%d" % k, b"%d" % i)]))
            return step

        senders = [Background(sender(k)) for k in range(3)]
        for _ in range(3 if FULL else 1):
            at = [b.count() + 100 for b in senders]
            wait_until(lambda a=at: all(b.count() > n for b, n in zip(senders, a)), "the senders are under way", 60)
            halt(node)
            begun = time.monotonic()
            wait_until(lambda b=begun: time.monotonic() - b > 2, "two seconds", 10)
            node.process.send_signal(signal.SIGCONT)
            at = [b.count() + 50 for b in senders]
            wait_until(lambda a=at: all(b.count() > n for b, n in zip(senders, a)), "the senders go on", 60)
        n = sum(b.end() for b in senders)
        at_rest(node)
        lost = p.lost()
        a = node.seen(5 * n - lost)
        gone = drops(a)
        print("  sent %d; the pair lost %d; dropped: %s" % (5 * n, lost, gone))
        expect(set(gone) <= {"ring_full_%d" % c for c in range(4)} and gone, "drops", gone)
        expect_equal(node.xdp()["fillEmpty"], 0, "fill_empty")
        if lost == 0:
            for (number, _), c in zip(MAKE[2:], (2, 3)):
                expect_equal(committed(a, number) + gone.get("ring_full_%d" % c, 0), n, "of class %d" % c)


if __name__ == "__main__":
    run([stopped, one_by_one, other_class, no_block, share, ended, load], together=1)
