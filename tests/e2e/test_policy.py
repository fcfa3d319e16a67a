#!/usr/bin/python3
"""test_policy.py - the settings' policy on a whole node, in exact counts: who may send, what is sampled,
what is limited; over TCP, where every refused event is answered, and over UDP, where datagrams are dropped.

A change that has been confirmed holds for whatever is sent after it, so nothing here waits for one.
"""
import os
import socket
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from sluice_node import (Node, Stream, batch_bytes, expect, expect_equal, field, main,  # noqa: E402
                         number_field, places, trade, wait_until, wire)

node = Node("policy", ingest__workers=2, ingest__udp__allow="[127.0.0.0/8, ::1/128]")
serial = iter(range(10 ** 9))


def events(n):
    return [trade("policy", b"p-%d" % next(serial), i) for i in range(n)]


def config(*changes):
    for key, value in changes:
        node.cli("config", "set", key, value)


def connect(source, host="127.0.0.1"):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.settimeout(60)
    s.bind((source, 0))
    s.connect((host, node.port))
    return s


def is_closed(source, host="127.0.0.1"):
    """Is a connection from there closed without a word, whatever is said on it?"""
    with connect(source, host) as s:
        try:
            s.sendall(b"\x06\x0a\x04\x08\x01\x12\x00")  # hello
            return s.recv(100) == b""
        except ConnectionError:
            return True


def is_served(source, host="127.0.0.1"):
    return not is_closed(source, host)


class Sender:
    """A UDP socket bound to an address, that says how many datagrams it has sent."""
    sent = 0

    def __init__(self, source="127.0.0.1"):
        self.s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.s.bind((source, 0))

    def send(self, datagrams):
        for d in datagrams:
            self.s.sendto(d, ("127.0.0.1", node.port))
            Sender.sent += 1


class Change:
    """What the ledger has more than when this was made."""

    def __init__(self):
        self.before = node.ledger()

    def take(self):
        wait_until(lambda: node.json("ledger", code=None)["datagrams"]["seen"] >= Sender.sent,
                   "all datagrams are seen")
        before, after = self.before, node.ledger()

        def more(*path):
            was, now = before, after
            for key in path:
                was, now = was[key], now[key]
            return {k: v - was.get(k, 0) for k, v in now.items() if v != was.get(k, 0)}
        self.drops, self.reasons, self.streams = more("datagrams", "drops"), more("events", "reasons"), more("streams")
        self.total = {k: after["events"]["total"][k] - before["events"]["total"][k]
                      for k in ("decoded", "committed", "refused", "invalid")}
        return self


def test_denied_connections():
    """a source that is denied is closed at accept and counted; the longest network decides"""
    kept = connect("127.0.0.9")
    config(("source.127.0.0.0/8", "deny"), ("source.127.0.0.1/32", "allow"), ("source.127.0.0.4/30", "allow"))
    change = Change()
    for source in ("127.0.0.2", "127.0.0.3", "127.0.0.8", "127.255.255.254"):
        expect(is_closed(source), source, "is denied, and served")
    for source in ("127.0.0.1", "127.0.0.4", "127.0.0.7"):
        expect(is_served(source), source, "is allowed, and not served")
    expect(is_served("::1", "::1"), "IPv6 is denied by an IPv4 network")
    streams = change.take().streams
    expect_equal({k: streams.get(k, 0) for k in ("connections_denied", "connections_refused", "connections_accepted")},
                 {"connections_denied": 4, "connections_refused": 4, "connections_accepted": 4}, "connections")
    # IPv6 networks hold no IPv4, and the other way round. The file's ::1/128 is longer than ::/0; of two
    # alike that of the settings counts.
    config(("source.127.0.0.1/32", ""), ("source.127.0.0.0/8", ""), ("source.::/0", "deny"))
    expect(is_served("127.0.0.1"), "127.0.0.1 is denied by an IPv6 network")
    expect(is_served("::1", "::1"), "::1 is denied in spite of the file's longer network")
    config(("source.::1", "deny"))
    change = Change()
    expect(is_closed("::1", "::1"), "::1 is denied, and served")
    expect_equal(change.take().streams["connections_denied"], 1, "connections denied")
    # Only accept() looks: who is connected already stays so.
    kept.sendall(b"\x06\x0a\x04\x08\x01\x12\x00")
    expect(kept.recv(100) != b"", "a connection from before is closed")
    kept.close()
    config(*((k, "") for k in ("source.::/0", "source.::1", "source.127.0.0.4/30")))
    expect(is_served("127.0.0.2") and is_served("::1", "::1"), "denied when nothing is listed")


def test_denied_datagrams():
    """the settings' networks and the file's are one list, and the settings win"""
    # The file has 127.0.0.0/8: the same network by the settings, a part of it, and an exception of that.
    config(("source.127.0.0.0/8", "deny"), ("source.127.0.1.0/24", "allow"), ("source.127.0.1.7", "deny"))
    change = Change()
    for source, n in (("127.0.0.1", 3), ("127.0.1.1", 5), ("127.0.1.7", 7)):
        Sender(source).send(events(n))
    change.take()
    expect_equal(change.drops, {"source_denied": 10}, "datagrams dropped")
    expect_equal(change.total["committed"], 5, "events committed")
    config(*((k, "") for k in ("source.127.0.0.0/8", "source.127.0.1.0/24", "source.127.0.1.7")))
    change = Change()
    Sender().send(events(3))
    expect_equal((change.take().drops, change.total["committed"]), ({}, 3), "by the file alone")


def answered(receipts, n):
    """{reason or "new": events} over receipts of n events each."""
    out = {}
    for r in receipts:
        for _, _, how in places(r, n):
            how = how if isinstance(how, str) else wire.Reason.Name(how)
            out[how] = out.get(how, 0) + 1
    return out


def test_sampling():
    """of 1,000 events one in ten is taken, whichever way and over however many connections they come"""
    config(("admit.trade", "sample 10"))
    change = Change()
    streams = [Stream(node.port, "::1" if i % 2 else "127.0.0.1") for i in range(4)]
    for s in streams:
        for _ in range(10):
            s.send_batch(events(25))
    receipts = [s.receipt() for s in streams for _ in range(10)]
    expect_equal(answered(receipts, 25), {"new": 100, "SAMPLED_OUT": 900}, "events by their receipts")
    change.take()
    expect_equal(change.total, {"decoded": 1000, "committed": 100, "refused": 900, "invalid": 0}, "events")
    expect_equal(change.reasons, {"sampled_out": 900}, "reasons")
    # What is wrong anyway takes no turn.
    wrong = [field(2, b"x") + number_field(1, 1)] * 9
    r = streams[0].batch([e for one in events(20) for e in wrong + [one]])
    expect_equal(answered([r], 200), {"new": 2, "SAMPLED_OUT": 18, "TYPE_DETAIL_MISMATCH": 180}, "with wrong ones")
    for s in streams:
        s.close()
    # Alone in datagrams these are dropped; in batches the events are refused. One count for both.
    change = Change()
    udp = Sender()
    for _ in range(50):
        udp.send(events(10))
        udp.send([batch_bytes(events(10))])
    change.take()
    sampled_out = {"datagrams": change.drops.get("sampled_out", 0), "events": change.reasons.get("sampled_out", 0)}
    expect_equal(sum(sampled_out.values()), 900, "sampled out over UDP: %s" % sampled_out)
    expect_equal(change.total["committed"], 100, "events committed")
    expect_equal((change.drops, change.reasons), ({"sampled_out": sampled_out["datagrams"]},
                                                  {"sampled_out": sampled_out["events"]}), "drops and reasons")
    expect(sampled_out["datagrams"] >= 400 and sampled_out["events"] >= 400, "both ways:", sampled_out)
    config(("admit.trade", ""))


def test_rate():
    """a rate lets through its burst and then no more than the time allows, and says so"""
    config(("admit.trade", "rate 1 burst 50"))
    change = Change()
    begun = time.monotonic()
    with Stream(node.port) as a, Stream(node.port, "::1") as b:
        for _ in range(10):
            a.send_batch(events(50))
            b.send_batch(events(50))
        receipts = [s.receipt() for _ in range(10) for s in (a, b)]
        passed = int(time.monotonic() - begun)  # that many more, each a second after the one before
        got = answered(receipts, 50)
        expect(50 <= got["new"] <= 50 + passed, got["new"], "taken of a burst of 50 after", passed, "s")
        expect_equal(got, {"new": got["new"], "RATE_LIMITED": 1000 - got["new"]}, "events by their receipts")
        # Time makes room again, for as many as it is long.
        more = wait_until(lambda: a.batch(events(1)).accepted, "another one is taken")
        expect(got["new"] + more <= 50 + time.monotonic() - begun, "more than the time allows")
    change.take()
    expect_equal(change.reasons, {"rate_limited": change.total["refused"]}, "reasons")
    expect_equal(change.total["committed"], got["new"] + more, "events committed")
    # Alone in datagrams; the bucket is the same one, and as good as empty.
    change, begun = Change(), time.monotonic()
    Sender().send(events(200))
    change.take()
    taken = change.total["committed"]
    expect(taken <= 1 + time.monotonic() - begun, taken, "taken from an empty bucket")
    expect_equal((change.drops, change.reasons), ({"type_rate": 200 - taken}, {}), "drops and reasons")
    config(("admit.trade", ""))


def test_source_rate():
    """every source has a bucket of its own, of datagrams; a batch is one"""
    config(("limit.source_burst", "20"), ("limit.source_per_s", "1"))
    change, begun = Change(), time.monotonic()
    for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        udp = Sender(source)
        udp.send(events(50))
        udp.send([batch_bytes(events(5))] * 50)
    change.take()
    passed = int(time.monotonic() - begun)
    dropped = change.drops["source_rate"]
    expect(240 - 3 * passed <= dropped <= 240, dropped, "datagrams dropped in", passed, "s")
    expect_equal(change.drops, {"source_rate": dropped}, "drops")
    expect_equal(change.reasons, {}, "reasons")
    expect(60 <= change.total["decoded"], "events of three bursts:", change.total)
    # It does not hold over TCP, where back-pressure does that.
    with Stream(node.port) as s:
        expect_equal(s.batch(events(100)).accepted, 100, "accepted over TCP")
    config(("limit.source_per_s", ""), ("limit.source_burst", ""))


def test_account():
    """after all that the ledgers balance, over a restart too"""
    before = node.ledger()
    node.stop()
    node.verify()
    node.start()
    after = node.ledger()
    expect_equal(after["datagrams"]["drops"], before["datagrams"]["drops"], "drops after a restart")
    expect_equal(after["events"]["reasons"], before["events"]["reasons"], "reasons after a restart")
    # The policy that was set is in force before the first datagram is looked at.
    config(("admit.trade", "drop"))
    node.stop()
    node.start()
    change = Change()
    Sender().send(events(10))
    expect_equal((change.take().drops, change.total["decoded"]), ({"type_dropped": 10}, 0), "dropped after a restart")
    node.stop()


node.start()
main([test_denied_connections, test_denied_datagrams, test_sampling, test_rate, test_source_rate, test_account])
