#!/usr/bin/python3
"""test_paths.py - every way that a datagram can take into the node, counted to the datagram.

What a sender sent is compared with the ledger and with what the program in the driver says, and the
same traffic has to come to the same in native, generic and socket mode.
"""
import itertools
import os
import socket
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from lab import (  # noqa: E402
    FULL, PORT, SOL_UDP, Stream, UDP_SEGMENT, Ids, XdpNode, batch_bytes, book, check_receipt, committed, custom, drops,
    expect, expect_equal, field, frame, lab, run, number_field, quote, trade, wait_until, wire)

ids = Ids()


def trades(n, padding=0):
    return [trade("paths", ids(), i, padding) for i in range(n)]


def receipt(s, events, seq):
    """Sends a batch that wants a receipt; a connected socket hears only the address and port that it
    sent to."""
    s.send(batch_bytes(events, seq, True))
    r = wire.Receipt.FromString(s.recv(65536))
    expect_equal(r.request, seq, "the receipt's request")
    if not r.truncated:
        check_receipt(r, len(events))
    expect_equal(r.accepted, len(events), "accepted")


# --- the same in all modes ------------------------------------------------------------------------


def traffic(p, node):
    """Of everything that a socket can get. Returns how many datagrams that were, and what must be said
    of them: drops by reason, committed by type, datagrams with fragments."""
    want = {"empty": 0, "not_protobuf": 0, "event_malformed": 0, "batch_malformed": 0, "type_unknown": 0,
            "type_dropped": 0, "sampled_out": 0, "source_denied": 0}
    events, sent, large = {1: 0, 2: 0, 3: 0, 64: 0}, 0, 0
    node.set("type.news", "64")
    node.set("admit.orderbook", "drop")
    node.set("admit.quote", "sample 4")
    node.set("source.10.77.0.3/32", "deny")
    node.set("source.fd77::3/128", "deny")

    def many(s, n, make, reason=None):
        nonlocal sent
        for i in range(n):
            s.send(make(i))
        sent += n
        if reason:
            want[reason] += n

    for to, denied in ((p.s4, "10.77.0.3"), (p.s6, "fd77:0::3")):
        with p.udp(to) as s:
            many(s, 40, lambda i: trade("paths", ids(), i))
            events[1] += 40
            many(s, 30, lambda i: batch_bytes(trades(1 + i % 7)))
            events[1] += sum(1 + i % 7 for i in range(30))
            for i in range(10):
                receipt(s, trades(3), 100 + i)
            sent += 10
            events[1] += 30
            many(s, 5, lambda i: custom("paths", ids()))
            events[64] += 5
            many(s, 7, lambda i: b"", "empty")
            many(s, 6, lambda i: b"\xff" * (i + 1), "not_protobuf")
            many(s, 5, lambda i: b"\x08\x01\x12\x7fxx", "event_malformed")
            many(s, 4, lambda i: b"\x0a\x7fxx", "batch_malformed")
            many(s, 3, lambda i: custom("paths", ids(), 99), "type_unknown")
            many(s, 3, lambda i: batch_bytes([custom("paths", ids(), 100)] * 2), "type_unknown")
            many(s, 8, lambda i: book("paths", ids(), i), "type_dropped")
            many(s, 4, lambda i: batch_bytes([book("paths", ids(), i)] * 3), "type_dropped")
            # Two datagrams in three parts: fragments, and so by the kernel's way.
            many(s, 6, lambda i: batch_bytes(trades(8, padding=400)))
            events[1] += 48
            large += 6
            # One that is dropped there.
            many(s, 2, lambda i: b"\xff" * 4000, "not_protobuf")
            large += 2
            receipt(s, trades(8, padding=400), 7)
            events[1] += 8
            sent, large = sent + 1, large + 1
        with p.udp(to, source=denied) as s:
            many(s, 9, lambda i: trade("paths", ids(), i), "source_denied")
            many(s, 2, lambda i: b"\x08\x01" + field(2, b"x" * 3000), "source_denied")
            large += 2
    with p.udp() as s:
        many(s, 40, lambda i: quote("paths", ids(), i))
        want["sampled_out"] += 30
        events[2] += 10
    return sent, want, events, large


def modes():
    """the same traffic comes to the same in native, generic and socket mode, by IPv4 and IPv6"""
    digests = {}
    for mode in ("native", "generic", "socket"):
        with lab() as (p,):
            p.more_client_addresses(1)
            with XdpNode(p.server, [p], mode) as node:
                sent, want, events, large = traffic(p, node)
                a = node.seen(sent)
                expect_equal(drops(a), want, mode + ": drops")
                for number, n in events.items():
                    expect_equal(committed(a, number), n, "%s: committed of type %d" % (mode, number))
                digests[mode] = (a["datagrams"], a["events"])
                if mode != "socket":
                    i = node.interface(p.s)
                    expect_equal(i["mode"], mode, "mode")
                    expect_equal(p.server.program(p.s), (mode, i["programId"]), "what the kernel says")
                    expect_equal(i["arrived"], sent - large, "arrived in the driver")
                    expect_equal(a["xdp"]["passed"], 0, "passed")
                    # A first fragment, and at least one behind it.
                    expect(i["fragments"] >= 2 * large, "fragments", i["fragments"])
                    expect_equal(a["xdp"]["drops"].get("empty"), want["empty"], "empty ones, in the driver")
                    expect_equal(a["xdp"]["drops"].get("not_protobuf"), want["not_protobuf"] - 4,
                                 "no protobuf, in the driver")
                node.stop()
                node.verify()
                expect_equal(p.server.program(p.s), None, "the program after the end")
    for mode in ("generic", "socket"):
        for part in (0, 1):
            for d in digests.values():
                d[part].pop("stages", None)
            expect_equal(digests[mode][part], digests["native"][part], mode + " against native")


# --- frames that no socket sends ------------------------------------------------------------------


def v6_options(n):
    return (60, bytes([n - 1]) + b"\x01" + bytes([8 * n - 4]) + b"\0" * (8 * n - 4))


def odd_frames(p):
    """(what, frame, where it must end): a reason; "taken" by the ring or "beside" it, by the socket; or
    "kernel" for what is none of ours."""
    ok = lambda: trade("raw", ids())  # noqa: E731
    f = lambda **k: frame(p, ok(), **k)  # noqa: E731
    loose = [0x01] * 20 + [0x00] * 4
    yield "plain", f(), "taken"
    yield "plain, IPv6", f(to=p.s6), "taken"
    yield "padded", f(pad=18), "taken"
    yield "no checksum", f(checksum=0), "taken"
    yield "VLAN", f(tags=[(0x8100, 5)]), "taken"
    yield "VLAN, priority only", f(tags=[(0x8100, 0x6000)]), "taken"
    yield "QinQ", f(tags=[(0x88A8, 7), (0x8100, 5)]), "taken"
    yield "QinQ, IPv6", f(tags=[(0x88A8, 7), (0x8100, 5)], to=p.s6), "taken"
    yield "three tags", f(tags=[(0x8100, 1), (0x8100, 2), (0x8100, 3)]), "kernel"
    for n in (4, 24, 40):
        yield "IPv4 options", f(options=bytes((loose * 2)[:n])), "taken"
    for n in (1, 2, 8):
        yield "IPv6 options", f(to=p.s6, extensions=[v6_options(n)]), "taken"
    yield "three IPv6 headers", f(to=p.s6, extensions=[v6_options(1)] * 3), "taken"
    yield "hop-by-hop", f(to=p.s6, extensions=[(0, v6_options(1)[1]), v6_options(1)]), "taken"
    yield "an atomic fragment", f(to=p.s6, extensions=[(44, b"\0\0\0" + b"\0\0\0\x09")]), "taken"
    yield "seven IPv6 headers", f(to=p.s6, extensions=[v6_options(1)] * 7), "beside"
    yield "the address of another", f(mac="02:00:00:00:00:77"), "kernel"
    yield "to everybody", f(mac="ff:ff:ff:ff:ff:ff"), "beside"
    yield "another port", f(port=PORT + 1), "kernel"
    yield "another address", f(to="10.77.0.99"), "kernel"
    yield "no IP", f()[:12] + b"\x12\x34" + b"\0" * 60, "kernel"
    yield "an Ethernet header alone", f()[:14], "kernel"
    yield "cut in the UDP header", f()[:14 + 20 + 6], "kernel"
    for n in (0, 7, 1200, 65535):
        yield "UDP length %d" % n, f(udp_bytes=n), "length"
        yield "UDP length %d, IPv6" % n, f(to=p.s6, udp_bytes=n), "length"
    yield "shorter than IP says", f()[:-5], "length"
    yield "IP shorter than UDP", f(ip_bytes=20 + 12), "length"
    yield "IP shorter than UDP, IPv6", f(to=p.s6, ip_bytes=12), "length"
    for source in ("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "224.0.0.1", "239.1.1.1", "255.255.255.255"):
        yield "from " + source, f(source=source), "source_denied"
    for source in ("::", "::1", "ff02::1", "::ffff:10.77.0.2"):
        yield "from " + source, f(source=source, to=p.s6), "source_denied"
    yield "from 192.0.2.1", f(source="192.0.2.1"), "source_denied"
    yield "from 2001:db8::1", f(source="2001:db8::1", to=p.s6), "source_denied"
    yield "wrong UDP checksum", f(checksum=0x1234), "checksum"
    yield "wrong UDP checksum, IPv6", f(to=p.s6, checksum=0x1234), "checksum"
    yield "no UDP checksum, IPv6", f(to=p.s6, checksum=0), "checksum"
    yield "wrong IP checksum", f(ip_checksum=0x1234), "checksum"
    yield "empty", frame(p, b""), "empty"
    yield "empty, padded", frame(p, b"", pad=18), "empty"
    yield "junk", frame(p, b"\x07abc"), "not_protobuf"
    yield "junk, two tags", frame(p, b"\x07abc", tags=[(0x88A8, 7), (0x8100, 5)]), "not_protobuf"


COMMITTED = ("taken", "beside", "kernel")


def odd():
    """frames that no socket sends end where they must, one by one: tags, options, extension headers, wrong
    lengths, checksums, sources and addresses; native and generic alike"""
    for mode in ("native", "generic") if FULL else ("native",):
        with lab() as (p,), XdpNode(p.server, [p], mode, ingest__xdp__checksum="always") as node, p.raw() as raw:
            want, seen, taken, ring = {}, 0, 0, 0
            names = []
            for what, data, fate in odd_frames(p):
                names.append(what)
                raw.send(data)
                if fate == "kernel":
                    continue
                seen += 1
                if fate in ("taken", "beside"):
                    taken += 1
                    ring += fate == "taken"
                    continue
                want[fate] = want.get(fate, 0) + 1
            a = node.seen(seen)
            expect_equal(drops(a), want, mode + ": drops")
            expect_equal(committed(a), taken, mode + ": committed of " + ", ".join(names))
            # What has a wrong checksum comes by the ring too.
            expect_equal(a["xdp"]["redirected"], ring + want["checksum"], mode + ": redirected")
            # One by one, so that two wrongs do not make a right.
            _, drops_before, committed_before = node.settled(seen)
            for what, data, fate in odd_frames(p):
                raw.send(data)
                if fate == "kernel":
                    raw.send(frame(p, trade("raw", ids())))
                seen += 1
                _, drops_now, committed_now = node.settled(seen)
                gained = {k: v - drops_before.get(k, 0) for k, v in drops_now.items()
                          if v != drops_before.get(k, 0)}
                expect_equal(gained, {} if fate in COMMITTED else {fate: 1}, mode + ": " + what)
                expect_equal(committed_now - committed_before, int(fate in COMMITTED), mode + ": " + what)
                drops_before, committed_before = drops_now, committed_now
            node.seen(seen)


# --- checksums ------------------------------------------------------------------------------------


def checksums():
    """checksums that the sender left unfinished are taken with auto and not with always; a wrong one never,
    unless with never"""
    settings = (("auto", True, False), ("always", False, False), ("never", True, True))
    for setting, unfinished_ok, wrong_ok in settings if FULL else settings[:2]:
        with lab() as (p,), XdpNode(p.server, [p], "native", ingest__xdp__checksum=setting) as node:
            sent = good = 0
            for offload, fine in (("on", unfinished_ok), ("off", True)):
                p.client.run("ethtool -K %s tx %s" % (p.c, offload))
                for to in (p.s4, p.s6):
                    with p.udp(to) as s:
                        for _ in range(10):
                            s.send(trade("sum", ids()))
                        sent, good = sent + 10, good + (10 if fine else 0)
            with p.raw() as raw:
                for to in (p.s4, p.s6):
                    for wrong in (0x1234, 0xFFFF):
                        raw.send(frame(p, trade("sum", ids()), to=to, checksum=wrong))
                        sent, good = sent + 1, good + (1 if wrong_ok else 0)
                    raw.send(frame(p, trade("sum", ids()), to=to))
                    sent, good = sent + 1, good + 1
            a = node.seen(sent)
            expect_equal(committed(a), good, setting + ": committed")
            expect_equal(drops(a).get("checksum", 0), sent - good, setting + ": wrong checksums")


# --- lengths --------------------------------------------------------------------------------------


def padded_trade(bytes_):
    """A trade of so many bytes."""
    for padding in itertools.count(max(0, bytes_ // 2), 1):
        e = trade("length", b"0123456789", 0)
        # An attribute: tag, length, key, value.
        rest = bytes_ - len(e)
        for value in range(max(0, rest - 16), rest):
            entry = field(1, b"k") + field(2, b"x" * value)
            if len(field(10, entry)) == rest:
                return field_id(e) + field(10, entry)
        raise AssertionError(padding)
    return None


def field_id(e):
    """The event with a new id of the same length."""
    fresh = b"%010d" % int(ids())
    expect(b"0123456789" in e, "the id")
    return e.replace(b"0123456789", fresh)


def batch_of(bytes_):
    """A batch of so many bytes: a trade, and a producer's name of no use."""
    inner = trades(1)[0]
    body = field(1, inner)
    rest = bytes_ - len(body)
    for n in range(max(0, rest - 5), rest):
        extra = field(9, b"p" * n)
        if len(extra) == rest:
            return body + extra
    raise AssertionError(bytes_)


def lengths():
    """a frame goes into the ring up to the length that fits, and one byte more goes the kernel's way"""
    with lab() as (p,), XdpNode(p.server, [p], "native") as node, p.udp() as s:
        sent = 0
        for net, name in ((p.client, p.c), (p.server, p.s)):
            net.run("ip link set %s mtu 3000" % name)
        # 2,048 less 256 of headroom; Ethernet, IPv4 and UDP take 42.
        for n, fits in ((1791, True), (1792, True), (1793, False), (2048, False), (3014, False)):
            before = node.interface(p.s)
            for _ in range(20):
                s.send(batch_of(n - 42))
            sent += 20
            a = node.seen(sent)
            after = node.interface(p.s)
            expect_equal((after["redirected"] - before["redirected"], after["passed"] - before["passed"]),
                         (20, 0) if fits else (0, 20), "redirected and passed of %d bytes" % n)
        expect_equal(drops(a), {}, "drops")
        expect_equal(committed(a), sent, "committed")
        expect_equal(node.xdp()["fillEmpty"], 0, "fill_empty")


def jumbo():
    """with an MTU of 9,000 generic uses frames of 4 KiB, and longer ones go the kernel's way"""
    with lab(mtu=9000) as (p,), XdpNode(p.server, [p], "generic", ingest__udp__datagram_bytes_max="16KiB") as node, \
            p.udp() as s:
        expect_equal(node.interface(p.s)["mode"], "generic", "mode")
        sent = 0
        for n, fits in ((100, True), (3840, True), (3841, False), (9014, False)):
            before = node.interface(p.s)
            for _ in range(10):
                s.send(batch_of(n - 42))
            sent += 10
            node.seen(sent)
            after = node.interface(p.s)
            expect_equal((after["redirected"] - before["redirected"], after["passed"] - before["passed"]),
                         (10, 0) if fits else (0, 10), "redirected and passed of %d bytes" % n)
        s.send(batch_of(12000))
        a = node.seen(sent + 1)
        expect_equal((drops(a), committed(a)), ({}, sent + 1), "drops and committed")


def limit():
    """ingest.udp.datagram_bytes_max holds whichever way a datagram comes"""
    for mode in ("generic", "socket"):
        with lab(mtu=9000) as (p,), XdpNode(p.server, [p], mode, ingest__udp__datagram_bytes_max=1500) as node, \
                p.udp() as s:
            for n in (1499, 1500, 1501, 3000):
                s.send(batch_of(n))
            a = node.seen(4)
            expect_equal((drops(a), committed(a)), ({"no_buffer": 2}, 2), mode + ": drops and committed")
            if mode == "generic":
                expect_equal(node.interface(p.s)["redirected"], 4, "redirected")


def segments():
    """what a sender hands over in one piece (UDP_SEGMENT) arrives as the datagrams that it is"""
    for mode in ("native", "socket") if FULL else ("native",):
        with lab() as (p,), XdpNode(p.server, [p], mode) as node:
            sent = 0
            for to in (p.s4, p.s6):
                with p.udp(to) as s:
                    for n in (2, 5, 30):
                        events = [trade("gso", b"%010d" % int(ids())) for _ in range(n)]
                        size = max(len(e) for e in events)
                        events = [e for e in events if len(e) == size]
                        s.sendmsg([b"".join(events)], [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", size))])
                        sent += len(events)
            a = node.seen(sent)
            expect_equal((drops(a), committed(a)), ({}, sent), mode + ": drops and committed")


# --- addresses ------------------------------------------------------------------------------------


def wildcard():
    """0.0.0.0 and :: take what comes to any address, also to one that is added while it runs; receipts come
    from the address that was asked"""
    for mode in ("native", "socket"):
        with lab() as (p,), XdpNode(p.server, [p], mode, ingest__address="[0.0.0.0, '::']") as node:
            sent = 0
            late4, late6 = "10.77.0.200", "fd77:0::200"
            for to in (p.s4, p.s6):
                with p.udp(to) as s:
                    receipt(s, trades(3), 1)
                    sent += 1
            if mode == "native":
                expect_equal(node.interface(p.s)["redirected"], sent, "by the ring")
            # Between link-local addresses, too, which say nothing without their interface.
            with p.udp(p.s_local, source=p.c_local) as s:
                receipt(s, trades(3), 9)
                sent += 1
            for late, bits in ((late4, 24), (late6, 64)):
                p.server.run("ip addr add %s/%d dev %s nodad" % (late, bits, p.s))
                p.client.run("ip neigh replace %s lladdr %s dev %s nud permanent" % (late, p.smac, p.c))
            # Until it is noticed, by the kernel's way; none is lost meanwhile.
            for late in (late4, late6):
                def by_ring():
                    nonlocal sent
                    before = node.interface(p.s)["redirected"] if mode == "native" else 0
                    with p.udp(late) as s:
                        receipt(s, trades(3), 2)
                    sent += 1
                    return mode == "socket" or node.interface(p.s)["redirected"] > before
                wait_until(by_ring, "datagrams to the new address come by the ring", 20)
            node.seen(sent)
            if mode == "native":
                p.server.run("ip addr del %s/24 dev %s" % (late4, p.s))

                def by_kernel():
                    before = node.interface(p.s)["arrived"]
                    with p.udp(late4) as s:
                        s.send(batch_bytes(trades(1)))
                    if node.interface(p.s)["arrived"] == before:
                        return True
                    nonlocal sent
                    sent += 1
                    return False
                wait_until(by_kernel, "the old address is no longer ours", 20)
            a = node.seen(sent)
            expect_equal(drops(a), {}, "drops")


def many_addresses():
    """addresses beyond those that the driver has room for are taken too, by the kernel's way"""
    with lab() as (p,):
        for k in range(80):
            p.server.run("ip addr add 10.77.0.%d/24 dev %s" % (100 + k, p.s))
            p.client.run("ip neigh replace 10.77.0.%d lladdr %s dev %s nud permanent" % (100 + k, p.smac, p.c))
        with XdpNode(p.server, [p], "native", ingest__address="[0.0.0.0]") as node:
            for k in range(80):
                with p.udp("10.77.0.%d" % (100 + k)) as s:
                    receipt(s, trades(2), k + 1)
            a = node.seen(80)
            expect_equal(drops(a), {}, "drops")
            expect(0 < a["xdp"]["arrived"] < 80, "by the driver", a["xdp"]["arrived"])


def queues():
    """two interfaces with four and one queues, two workers: every queue's datagrams are taken, and a receipt
    comes back over the interface that was asked"""
    with lab(pairs=2, queues=4) as (p, q), XdpNode(p.server, [p, q], "native", ingest__workers=2) as node:
        sent = 0
        for pair in (p, q):
            i = node.interface(pair.s)
            expect_equal((i["queues"], i["mode"]), (4, "native"), "queues and mode of " + pair.s)
            # Which queue a flow takes is the sender's kernel's choice, by a hash.
            for k in range(24):
                with pair.udp(pair.s6 if k % 2 else pair.s4) as s:
                    for _ in range(10):
                        s.send(trade("queues", ids()))
                    receipt(s, trades(2), k + 1)
                    sent += 11
        a = node.seen(sent)
        expect_equal((drops(a), committed(a)), ({}, 2 * 24 * 12), "drops and committed")
        x = node.xdp()
        expect_equal([i["arrived"] for i in x["interfaces"]], [24 * 11] * 2, "arrived")
        expect_equal(sum(i["redirected"] for i in x["interfaces"]), sent, "redirected")
        out = p.server.run("ethtool -S " + p.s)
        used = [line for line in out.splitlines() if "xdp_redirect:" in line.replace("xdp_redirect_errors", "")
                and int(line.split(":")[1]) > 0]
        expect(len(used) >= 2, "more than one queue was used:", out)


def beside():
    """what is not ours passes untouched: TCP with its receipts, pings, and datagrams to other ports"""
    for mode in ("native", "generic") if FULL else ("native",):
        with lab() as (p,), XdpNode(p.server, [p], mode) as node:
            for to in (p.s4, p.s6):
                with p.client.inside():
                    with Stream(PORT, to) as stream:
                        for _ in range(5):
                            stream.batch(trades(50, padding=400))
            other = p.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
            other.bind((p.s4, PORT + 1))
            other.settimeout(20)
            with p.udp(port=PORT + 1) as s:
                s.send(b"hello")
                expect_equal(other.recv(100), b"hello", "a datagram to another port")
            other.close()
            i = node.interface(p.s)
            expect(i["tcpPassed"] > 20 and i["tcpDenied"] == 0, "TCP segments that passed", i["tcpPassed"])
            a = node.seen(0)
            expect_equal(committed(a), 500, "committed")
            with p.udp() as s:
                s.send(number_field(1, 1))
                s.send(trade("beside", ids()))
            node.seen(2)


if __name__ == "__main__":
    run([modes, odd, checksums, lengths, limit, segments, wildcard, queues, beside] + [jumbo, many_addresses] * FULL)
