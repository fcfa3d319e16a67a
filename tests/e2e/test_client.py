#!/usr/bin/python3
"""test_client.py - a client that is not ours, well behaved and hostile, against one node.

Everything is said with protobuf's own library, or byte by byte where no library would say it. What a
receipt claims is compared with what the log then holds, byte by byte. After everything hostile the node
must still serve, and its ledger must balance and name every reason.
"""
import os
import select
import socket
import struct
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../deploy/demo"))

# pylint: disable=wrong-import-position
import hostile  # noqa: E402
from sluice_node import (FULL, WAIT_S, Failed, Node, Stream, batch_bytes, batch_frame,  # noqa: E402
                         check_receipt, client_frame, ev, expect, expect_equal, field, main,
                         number_field, only_reason, places, trade, varint, wait_until, wire)

node = Node("client", ingest__workers=2, ingest__tcp__frame_s_max=1, ingest__tcp__idle_s_max=3600,
            ingest__udp__allow="[127.0.0.1/32, ::1/128]")
serial = iter(range(10 ** 9))


def fresh(prefix="e"):
    return b"%s-%d" % (prefix.encode(), next(serial))


def stored(first=1):
    """What the log holds from an index on: {(index, slot): bytes}."""
    return {(i, s): raw for i, s, raw in node.tail(first)}


def check_stored(raw, sent):
    """The log has what was sent, then what it was given by the node."""
    expect(raw.startswith(sent), "stored bytes differ from those sent:", raw, sent)
    e = ev.Event.FromString(raw)
    expect(e.enrichment.receive_time_ns > 0 and e.enrichment.node == 1, "enrichment:", e)
    return e


def check_all_stored(r, events):
    """Every accepted or duplicate event of a receipt is where the receipt says."""
    at = places(r, len(events))
    log = stored(min(p[0] for p in at if p[0]))
    for sent, (index, slot, how) in zip(events, at):
        if how in ("new", "duplicate"):
            expect((index, slot) in log, "nothing at", index, slot)
            e = check_stored(log[index, slot], sent)
            expect_equal(e.enrichment.ingestion_id, "%d-%d-%d" % (r.epoch, index, slot)
                         if how == "new" else e.enrichment.ingestion_id, "ingestion id")
    return at


def still_serves():
    with Stream(node.port) as s:
        expect_equal(s.batch([trade("alive", fresh())]).accepted, 1, "accepted from somebody else")


def error_after(data, hello=True):
    """Sends bytes, returns the error frame that must end the connection."""
    with Stream(node.port, hello=hello) as s:
        s.send(data)
        frame = s.next()
        expect(frame is not None and frame.HasField("error"), "an error for", data[:40], "got", frame)
        expect(frame.error.closing and frame.error.message, "an error that closes and says why", frame)
        expect(s.next() is None, "the end of the connection")
        return wire.ErrorCode.Name(frame.error.code)


# --- TCP, well behaved ----------------------------------------------------------------------------


def test_receipts():
    """receipts name the place of every event; get and tail find the same bytes there"""
    with Stream(node.port) as s:
        events = [trade("shop", fresh(), i, padding=i % 300) for i in range(200)]
        r = s.batch(events)
        expect_equal(r.accepted, 200, "accepted")
        at = check_all_stored(r, events)
        for i in (0, 99, 199):
            e = ev.Event.FromString(events[i])
            by_place = node.json("get", "%d-%d-%d" % (r.epoch, at[i][0], at[i][1]))
            by_id = node.json("get", e.id.decode(), "--source", "shop")
            expect_equal(by_place, by_id, "get by place and by id")
            expect_equal(by_place["symbol"], e.symbol, "symbol")
            expect_equal(by_place["trade"]["price"], str(e.trade.price), "price")


def test_duplicates_and_exceptions():
    """duplicates and refused events are named by position, with the first place"""
    with Stream(node.port) as s:
        one, two, three = (trade("dup", fresh(), i) for i in range(3))
        first = s.batch([one, two])
        conflict = one[:-1] + bytes([one[-1] ^ 1])
        bad = hostile.event(0, when=b"")
        again = trade("dup", fresh(), 7)
        r = s.batch([one, three, bad, again, conflict, again, two])
        expect_equal((r.accepted, r.duplicates, r.refused), (2, 3, 2), "accepted, duplicates, refused")
        at = places(r, 7)
        expect_equal(at[0], (first.index, first.first_slot, "duplicate"), "first place of one")
        expect_equal(at[6], (first.index, first.first_slot + 1, "duplicate"), "first place of two")
        expect_equal(at[2][2], wire.TIMESTAMP_MISSING, "reason of the third")
        expect_equal(at[4][2], wire.ID_CONFLICT, "reason of the fifth")
        expect_equal(at[5], (at[3][0], at[3][1], "duplicate"), "first place within one batch")
        check_all_stored(r, [one, three, bad, again, conflict, again, two])


def test_duplicates_in_flight():
    """the same event from many connections at once is accepted by one of them alone"""
    for _ in range(20):
        events = [trade("race", fresh(), i) for i in range(20)]
        streams = [Stream(node.port) for _ in range(8)]
        for s in streams:
            s.send_batch(events)
        receipts = [s.receipt() for s in streams]
        for s in streams:
            s.close()
        expect_equal(sum(r.accepted for r in receipts), 20, "accepted in all")
        where = [tuple(p[:2] for p in places(r, 20)) for r in receipts]
        expect(len(set(where)) == 1, "receipts that agree on the places:", where)


def test_assigned_ids():
    """an id that was assigned is returned, is stored, and is known when it is sent again"""
    with Stream(node.port) as s:
        events = [trade("anon", b"", 1), trade("anon", fresh(), 2), trade("anon", b"", 3)]
        r = s.batch(events)
        expect_equal(r.accepted, 3, "accepted")
        expect_equal([a.position for a in r.assigned], [0, 2], "positions of assigned ids")
        ids = [a.id for a in r.assigned]
        expect(len(set(ids)) == 2 and all(len(i) == 16 for i in ids), "ids of 16 bytes, different:", ids)
        for i, ident in ((0, ids[0]), (2, ids[1])):
            got = node.json("get", "hex:" + ident.hex(), "--source", "anon")
            expect_equal(got["enrichment"]["ingestionId"],
                         "%d-%d-%d" % (r.epoch, r.index, r.first_slot + i), "place")
            expect(got["enrichment"]["idAssigned"], "idAssigned")
        # What is stored may be sent again as it is.
        log = stored(r.index)
        raw = ev.Event.FromString(log[r.index, r.first_slot])
        expect_equal(raw.id, ids[0], "the stored id")
        again = s.batch([events[0] + field(3, ids[0])])
        expect_equal(places(again, 1), [(r.index, r.first_slot, "duplicate")], "sent again with its id")


def test_odd_but_good():
    """what is odd but good protobuf is taken, and can be read back by everyone"""
    odd = [
        ("a non-minimal varint", lambda i: b"\x08\x81\x80\x00" + trade("odd", i)[2:]),
        ("unknown fields", lambda i: trade("odd", i) + number_field(100, 5) + field(536870911, b"x")
         + varint(200 << 3 | 5) + b"abcd" + varint(201 << 3 | 1) + b"abcdefgh"),
        ("fields in another order", lambda i: b"\x08\x01" + hostile.text(6, hostile.TRADE)
         + hostile.fixed64(4, time.time_ns()) + field(3, i) + field(2, b"odd")),
        ("an empty id, then one", lambda i: trade("odd", b"") + field(3, b"") + field(3, i)),
        ("64 bytes of source", lambda i: trade("s" * 64, i)),
        ("an id of 64 odd bytes", lambda i: trade("odd", (i + b"\0\xff\n\"" * 20)[:64])),
        ("umlauts and emoji", lambda i: trade("Zürich \U0001F600", i)),
        ("a symbol with control characters", lambda i: hostile.event(0, ident=field(3, i),
                                                                      symbol=field(5, b"\"\\\n\x1b[31m"))),
        ("a negative price and a zero size", lambda i: hostile.event(
            0, ident=field(3, i), detail=hostile.trade(price=hostile.num(1, 9), size=b""))),
        ("an empty detail", lambda i: hostile.event(0, ident=field(3, i), detail=field(6, b""))),
        ("an attribute without a key", lambda i: trade("odd", i) + field(10, field(2, b"v"))),
        ("a bool of 2", lambda i: hostile.event(0, type_=hostile.num(1, 3), ident=field(3, i), detail=field(
            8, hostile.num(7, 2)))),
        ("16 attributes", lambda i: trade("odd", i) + b"".join(
            hostile.pair("k%d" % k, "v" * 128) for k in range(16))),
        ("50 levels a side", lambda i: hostile.event(0, type_=hostile.num(1, 3), ident=field(3, i), detail=field(
            8, b"".join(field(side, hostile.num(1, k * 2 + 2) + hostile.num(2, (1 << 63) - 1))
                        for side in (1, 2) for k in range(50))))),
    ]
    raws = []
    with Stream(node.port) as s:
        for what, make in odd:
            ident = fresh("odd")
            raw = make(ident)
            r = s.batch([raw])
            expect_equal(r.accepted, 1, "accepted: %s (%s)" % (what, r))
            check_all_stored(r, [raw])
            place = "%d-%d-%d" % (r.epoch, r.index, r.first_slot)
            got, text = node.json("get", place), node.cli("get", place).stdout
            sent = ev.Event.FromString(raw)
            expect_equal(got.get("source"), sent.source, "source as printed: " + what)
            expect_equal(got.get("symbol", ""), sent.symbol, "symbol as printed: " + what)
            expect(b"\x1b" not in text and text.count(b"\n") == 1, "one harmless line:", text)
            raws.append(raw)
        lines = node.cli("tail", "--from", "first", "--no-follow", "--json").stdout
        expect(lines.count(b"\n") >= len(odd), "tail shows them all")
    # Alone in a datagram they are known: no walk over their fields has found fault with them.
    before = node.ledger()
    with udp_socket("127.0.0.1") as s:
        for raw in raws:
            s.send(raw)
    wait_until(lambda: node.json("ledger", code=None)["datagrams"]["seen"]
               >= before["datagrams"]["seen"] + len(raws), "all datagrams are seen")
    after = node.ledger()
    expect_equal(after["datagrams"]["drops"], before["datagrams"]["drops"], "datagrams dropped")
    expect_equal(after["events"]["total"]["duplicate"] - before["events"]["total"]["duplicate"], len(odd),
                 "known, of the same events alone in datagrams")


def test_custom_types():
    """a type of one's own is refused until the settings name it, and while they do not admit it"""
    e = ev.Event(type=70, source="custom", id=fresh(), timestamp_ns=time.time_ns())
    e.custom.schema, e.custom.body = "json", b"{}" * 4000
    raw = e.SerializeToString()
    with Stream(node.port) as s:
        expect_equal(only_reason(s.batch([raw])), {"TYPE_UNKNOWN"}, "before it has a name")
        node.cli("config", "set", "type.imbalance", "70")
        wait_until(lambda: s.batch([raw]).refused == 0, "the type is known")
        expect_equal(s.batch([raw]).duplicates, 1, "duplicates")
        node.cli("config", "set", "admit.imbalance", "drop")
        other = ev.Event.FromString(raw)

        def refused():
            other.id = fresh()
            r = s.batch([other.SerializeToString()])
            return r.refused == 1 and only_reason(r) == {"TYPE_NOT_ADMITTED"}
        wait_until(refused, "the type is not admitted")
        node.cli("config", "set", "admit.imbalance", "")
        wait_until(lambda: not refused(), "the type is admitted again")


def test_pipelining():
    """a thousand batches without waiting: one receipt each, in their order"""
    with Stream(node.port) as s:
        batches = [[trade("pipe", fresh(), i) for i in range(7)] for _ in range(1000)]
        sender = threading.Thread(target=lambda: [s.send_batch(b) for b in batches])
        sender.start()
        last = (0, 0)
        for n, events in enumerate(batches, 1):
            r = s.receipt()
            expect_equal((r.request, r.accepted), (n, len(events)), "request, accepted")
            expect((r.index, r.first_slot) > last, "places in the order of sending")
            last = (r.index, r.first_slot + len(events) - 1)
        sender.join()


def test_ping_and_empty():
    """pings are answered; a batch without events gets a receipt that counts nothing"""
    with Stream(node.port) as s:
        s.send(client_frame(3, wire.Ping(nonce=(1 << 64) - 1).SerializeToString()))
        expect_equal(s.next().pong.nonce, (1 << 64) - 1, "nonce")
        r = s.batch([])
        expect_equal((r.accepted, r.index), (0, 0), "accepted, index")


def test_byte_by_byte():
    """frames that arrive byte by byte, and many in one segment"""
    with Stream(node.port) as s:
        data = batch_frame([trade("slow", fresh())], 1)
        for i in range(len(data)):
            s.send(data[i:i + 1])
        expect_equal(s.receipt().accepted, 1, "accepted")
        s.send(b"".join(batch_frame([trade("slow", fresh())], n) for n in range(2, 102)))
        expect_equal([s.receipt().request for _ in range(100)], list(range(2, 102)), "requests")


def test_half_close():
    """who closes its sending side still gets the receipts that are due, then the end"""
    for _ in range(20):
        with Stream(node.port) as s:
            for _ in range(50):
                s.send_batch([trade("half", fresh()) for _ in range(20)])
            s.s.shutdown(socket.SHUT_WR)
            for n in range(1, 51):
                r = s.receipt()
                expect_equal((r.request, r.accepted), (n, 20), "request, accepted")
            expect(s.next() is None, "the end")


def test_ipv6():
    """IPv6, TCP and UDP"""
    with Stream(node.port, host="::1") as s:
        expect_equal(s.batch([trade("v6", fresh())]).accepted, 1, "accepted")
    r = udp_receipt([trade("v6", fresh())], host="::1")
    expect_equal(r.accepted, 1, "accepted over UDP")


# --- TCP, hostile ---------------------------------------------------------------------------------


def test_hostile_frames():
    """every hostile frame: the error that says why, the end of that connection, and of no other"""
    hello = wire.Hello(protocol=1).SerializeToString()
    good = batch_frame([trade("bystander", fresh())], 1)
    bystander = Stream(node.port)
    size = bystander.welcome.frame_bytes_max
    ping = client_frame(3, b"")
    cases = [
        (False, good, "ERROR_HELLO_EXPECTED"),
        (False, ping, "ERROR_HELLO_EXPECTED"),
        (False, client_frame(1, wire.Hello(protocol=2).SerializeToString()), "ERROR_PROTOCOL_VERSION"),
        (False, client_frame(1, b""), "ERROR_PROTOCOL_VERSION"),
        (False, client_frame(1, number_field(1, 1) + field(2, b"p" * 65)), "ERROR_MALFORMED_FRAME"),
        (False, client_frame(1, number_field(1, 1) + field(3, b"t" * 513)), "ERROR_MALFORMED_FRAME"),
        (False, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (False, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 507, None),
        (True, client_frame(1, hello), "ERROR_HELLO_EXPECTED"),
        (True, b"\x00", "ERROR_MALFORMED_FRAME"),
        (True, varint(size + 1), "ERROR_FRAME_TOO_LARGE"),
        (True, varint((1 << 31) - 1), "ERROR_FRAME_TOO_LARGE"),
        (True, b"\xff" * 12, "ERROR_MALFORMED_FRAME"),
        (True, b"\xff" * 9 + b"\x01", None),
        (True, b"\x80" * 11, None),
        (True, b"\x02\x12\x05", "ERROR_MALFORMED_FRAME"),
        (True, varint(len(ping) * 2 - 2) + ping[1:] * 2, "ERROR_MALFORMED_FRAME"),
        (True, client_frame(9, b""), "ERROR_MALFORMED_FRAME"),
        (True, b"\x02\x10\x01", "ERROR_MALFORMED_FRAME"),
        (True, b"\x02\x13\x14", "ERROR_MALFORMED_FRAME"),
        (True, client_frame(3, b"\x08"), "ERROR_MALFORMED_FRAME"),
        (True, client_frame(2, b"\x08\xff"), "ERROR_MALFORMED_FRAME"),
        (True, client_frame(2, number_field(1, 1) * 2), "ERROR_MALFORMED_FRAME"),
        (True, client_frame(2, number_field(3, 9)), "ERROR_MALFORMED_FRAME"),
        (True, client_frame(2, field(2, b"\x0a\x7f\x08")), "ERROR_MALFORMED_FRAME"),
        (True, client_frame(2, field(2, b"\x0a" + varint(1 << 31))), "ERROR_MALFORMED_FRAME"),
        (True, client_frame(2, field(2, b"\x0a" + varint((1 << 64) - 1))), "ERROR_MALFORMED_FRAME"),
        (True, client_frame(2, field(2, field(2, b"p" * 65))), "ERROR_MALFORMED_FRAME"),
        (True, client_frame(2, field(2, field(2, b"\xff"))), "ERROR_MALFORMED_FRAME"),
        (True, client_frame(2, field(2, number_field(3, 1) * 2)), "ERROR_MALFORMED_FRAME"),
        (True, client_frame(2, field(2, varint(9 << 3 | 3) + varint(9 << 3 | 4))), "ERROR_MALFORMED_FRAME"),
        (True, client_frame(2, field(2, b"\x00\x00")), "ERROR_MALFORMED_FRAME"),
    ]
    for with_hello, data, wanted in cases:
        got = error_after(data, with_hello)
        expect(wanted is None or got == wanted, "for", data[:30], "got", got, "wanted", wanted)
        expect_equal(bystander.batch([trade("bystander", fresh())]).accepted, 1, "accepted meanwhile")
    bystander.close()


def test_receipts_before_errors():
    """who breaks the protocol gets the receipts that are due before the error"""
    with Stream(node.port) as s:
        s.send(b"".join(batch_frame([trade("brk", fresh())], n) for n in range(1, 31)) + b"\x00")
        expect_equal([s.receipt().request for _ in range(30)], list(range(1, 31)), "requests")
        expect_equal(s.next().error.code, wire.ERROR_MALFORMED_FRAME, "error")
        expect(s.next() is None, "the end")


def test_hostile_events():
    """every hostile event: its reason, at its position, without harm to its neighbours; over UDP too, to
    those who want a receipt"""
    with Stream(node.port) as s:
        for e in hostile.EVENTS:
            r = s.batch([trade("near", fresh()), e.make(next(serial)), trade("near", fresh())])
            at = places(r, 3)
            expect_equal((at[0][2], at[2][2]), ("new", "new"), "the neighbours of " + e.what)
            expect(at[1][2] not in ("new", "duplicate"), e.what, "was taken")
            expect_equal(wire.Reason.Name(at[1][2]).lower(), e.reason, "reason of " + e.what)
            r = udp_receipt([e.make(next(serial)), trade("near", fresh(), padding=100)])
            expect_equal([(x.position, wire.Reason.Name(x.reason).lower()) for x in r.exceptions],
                         [(0, e.reason)], "exceptions over UDP: " + e.what)
            r = udp_receipt([e.make(next(serial))])
            expect_equal(r.refused, 1, "refused, alone in a batch over UDP: " + e.what)
            expect(r.truncated or only_reason(r) == {e.reason.upper()}, "reason of", e.what, "alone:", r)


def test_every_cut():
    """an event that is cut anywhere is refused or harmless, and so is a frame"""
    whole = trade("cut", b"cut-0123456789", 5, padding=40)
    with Stream(node.port) as s:
        r = s.batch([whole[:i] for i in range(len(whole))])
        for i, (_, _, how) in enumerate(places(r, len(whole))):
            cut = ev.Event()
            try:
                cut.ParseFromString(whole[:i])
                good = cut.source and cut.timestamp_ns and cut.HasField("trade")
            except Exception:  # pylint: disable=broad-except
                good = False
            expect(good or how not in ("new", "duplicate"), "cut at", i, "was taken")
    frame = batch_frame([whole], 1)
    for i in range(0, len(frame), 3):
        with Stream(node.port) as s:
            s.send(frame[:i])
            s.s.shutdown(socket.SHUT_WR)
            seen = s.next()
            expect(seen is None or seen.HasField("error"), "cut frame", i, "got", seen)
    still_serves()


def test_bit_flips():
    """any one bit flipped in a batch: an answer or an error, and what is taken is what was sent"""
    raw = batch_frame([trade("flip", fresh(), 1, padding=30), trade("flip", fresh(), 2)], 1)
    step = 1 if FULL else 5
    taken = 0
    s = None
    for bit in range(8, len(raw) * 8, step):
        data = bytearray(raw)
        data[bit // 8] ^= 1 << bit % 8
        s = s or Stream(node.port)
        s.send(bytes(data) + client_frame(3, number_field(1, bit)))
        while True:
            frame = s.next()
            if frame is None or frame.HasField("pong"):
                break
            expect(frame.HasField("receipt") or frame.HasField("error"), "an answer, got", frame)
            taken += frame.receipt.accepted
        if frame is None:
            s.close()
            s = None
    expect(taken > 0, "something was taken")
    still_serves()


def test_too_large_batch():
    """a batch of too many events is refused as a whole, with a reason, and the connection goes on"""
    with Stream(node.port) as s:
        n = s.welcome.batch_events_max
        expect_equal(s.batch([b"\x08\x01"] * n).refused, n, "refused in a batch that is just not too large")
        s.send_batch([b"\x08\x01"] * (n + 1))
        r = s.receipt()
        expect_equal((r.accepted, r.refused), (0, n + 1), "accepted, refused")
        expect_equal([wire.Reason.Name(x.reason) for x in r.exceptions], ["BATCH_TOO_LARGE"], "exceptions")
        expect_equal(s.batch([trade("after", fresh())]).accepted, 1, "accepted afterwards")


def test_largest_frame():
    """a frame of exactly the largest size is taken"""
    with Stream(node.port) as s:
        size = s.welcome.frame_bytes_max
        events = []
        while True:
            nxt = trade("large", fresh(), padding=480)
            if len(batch_frame(events + [nxt], 1)) > size - 50:
                break
            events.append(nxt)
        for extra in range(1024):
            frame = client_frame(2, number_field(1, 1) + field(2, batch_bytes(events) + field(50, b"x" * extra)))
            if len(frame) - len(varint(size)) == size:
                s.send(frame)
                expect_equal(s.receipt().accepted, len(events), "accepted")
                return
        raise Failed("the test cannot make a frame of %d bytes" % size)


def test_slowloris():
    """dribblers and sleepers are ended after frame_s_max, and nobody else waits for them"""
    dribblers = [Stream(node.port) for _ in range(100)]
    sleepers = [Stream(node.port, hello=False) for _ in range(100)]
    data = batch_frame([trade("drib", fresh())], 1)
    begun = time.monotonic()
    for i, d in enumerate(dribblers):
        d.send(data[:1 + i % 9])
    for s in sleepers:
        s.send(b"\x20")
    slowest = 0.0
    left = set(d.s for d in dribblers + sleepers)
    codes = []
    by_socket = {d.s: d for d in dribblers + sleepers}
    at = 10
    while left:
        expect(time.monotonic() - begun < WAIT_S, len(left), "dribblers are still connected")
        t = time.monotonic()
        still_serves()
        slowest = max(slowest, time.monotonic() - t)
        at += 1
        for d in dribblers:
            if d.s in left and at < len(data):
                try:
                    d.send(data[at:at + 1] if at > 9 else b"")
                except OSError:
                    pass
        ready, _, _ = select.select(list(left), [], [], 0.05)
        for s in ready:
            left.discard(s)
            try:
                frame = by_socket[s].next()
                codes.append(wire.ErrorCode.Name(frame.error.code) if frame and frame.HasField("error")
                             else "receipt" if frame else "end")
            except ConnectionError:
                codes.append("reset")
    for d in dribblers + sleepers:
        d.close()
    expect(codes.count("ERROR_FRAME_TIMEOUT") >= 100, "time-outs among", {c: codes.count(c) for c in codes})
    expect(slowest < 5, "others waited", slowest, "s")


def test_many_connections():
    """500 connections at once, each with its receipts"""
    streams = [Stream(node.port, hello=False) for _ in range(500)]
    hello = client_frame(1, wire.Hello(protocol=1).SerializeToString())
    for s in streams:
        s.send(hello + batch_frame([trade("many", fresh()) for _ in range(10)], 9))
    for s in streams:
        expect(s.next().HasField("welcome"), "a welcome")
        r = s.receipt()
        expect_equal((r.request, r.accepted), (9, 10), "request, accepted")
    expect(sum(w.connections for w in node.status().workers) >= 500, "connections in status")
    for s in streams:
        s.close()
    wait_until(lambda: sum(w.connections for w in node.status().workers) == 0, "connections are closed")


def test_resets():
    """connections that are reset in the middle of everything leave nothing behind"""
    for i in range(200):
        s = Stream(node.port)
        s.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for _ in range(i % 5):
            s.send_batch([trade("reset", fresh(), padding=500) for _ in range(30)])
        s.close()
    still_serves()
    wait_until(lambda: sum(w.connections for w in node.status().workers) == 0, "connections are closed")


def test_slow_reader():
    """who does not read its receipts is paused, then ended; others are served"""
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", node.port))
    slow.settimeout(0.5)
    slow.sendall(client_frame(1, wire.Hello(protocol=1).SerializeToString()))
    frame = batch_frame([b"\x08\x01"] * 500, 7)
    sent = 0
    try:
        while sent < 200 << 20:
            sent += slow.send(frame * 16)
            still_serves()
    except (TimeoutError, ConnectionError):
        pass
    expect(sent < 200 << 20, "the sender is held up")
    begun = time.monotonic()
    still_serves()
    expect(time.monotonic() - begun < 5, "others wait")
    slow.close()


# --- UDP ------------------------------------------------------------------------------------------


def udp_socket(host):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(WAIT_S)
    s.connect((host, node.port))
    return s


def udp_receipt(events, host="127.0.0.1", seq=77):
    request = batch_bytes(events, seq=seq, receipt=True)
    with udp_socket(host) as s:
        s.send(request)
        answer = s.recv(65536)
    expect(len(answer) <= len(request), "a receipt of", len(answer), "bytes for a request of", len(request))
    r = wire.Receipt.FromString(answer)
    expect_equal(r.request, seq, "the receipt's request")
    expect_equal(r.accepted + r.duplicates + r.refused, len(events), "events in the receipt")
    if not r.truncated:
        check_receipt(r, len(events))
    return r


def test_udp():
    """single events and batches over UDP are in the log; receipts come when they are wanted"""
    events = [trade("udp", fresh(), i, padding=i % 100) for i in range(300)]
    first = node.status().commit_index
    with udp_socket("127.0.0.1") as s:
        for e in events[:200]:
            s.send(e)
        s.send(batch_bytes(events[200:250]))
    r = udp_receipt(events[250:])
    expect_equal(r.accepted, 50, "accepted")
    check_all_stored(r, events[250:])

    def all_there():
        log = stored(first)
        return sum(ev.Event.FromString(raw).source == "udp" for raw in log.values()) == 300
    wait_until(all_there, "all 300 events are in the log")
    again = udp_receipt(events[250:])
    expect_equal(again.duplicates, 50, "duplicates")
    with Stream(node.port) as s:
        expect_equal(s.batch(events).duplicates, 300, "duplicates over TCP of what came over UDP")


def test_udp_truncated():
    """a receipt is never larger than its request: lists are left out, and it says so"""
    r = udp_receipt([b"\x08\x01"] * 100)
    expect((r.truncated, r.refused) == (True, 100) and not r.exceptions, "truncated, counts only:", r)
    r = udp_receipt([trade("trunc", b"", 1)] * 3 + [b""])
    expect_equal((r.accepted, r.refused), (3, 1), "accepted, refused")
    # The smallest request that can be answered at all.
    with udp_socket("127.0.0.1") as s:
        s.send(b"\x0a\x00\x20\x01")
        answer = s.recv(100)
    expect(len(answer) <= 4 and wire.Receipt.FromString(answer).refused == 1, "receipt:", answer)


def test_udp_hostile():
    """hostile datagrams are counted, each under its reason, and answered only where that is asked for"""
    node.cli("config", "set", "type.unwanted", "71")
    node.cli("config", "set", "admit.unwanted", "drop")
    before = node.ledger()
    with udp_socket("127.0.0.1") as s:
        sender = hostile.Sender("127.0.0.1", node.port, 3000)
        sent = hostile.send_all(sender, 3, "127.0.0.2", 71)
        # Asks for a receipt from where none may go, and in what cannot be read.
        denied = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        denied.bind(("127.0.0.3", 0))
        denied.sendto(batch_bytes([trade("x", b"1")], 1, True), ("127.0.0.1", node.port))
        s.send(b"\x0a\x7f\x20\x01")
        wait_until(lambda: node.json("ledger", code=None)["datagrams"]["seen"]
                   >= before["datagrams"]["seen"] + sent["sent"] + 2, "all datagrams are seen")
        after = node.ledger()
        for quiet in (s, denied, sender.socket):
            expect(not select.select([quiet], [], [], 0)[0], "an answer to what may not be answered")
    wanted = dict(sent["drops"])
    wanted["source_denied"] += 1
    wanted["batch_malformed"] += 1
    got = {k: v - before["datagrams"]["drops"].get(k, 0) for k, v in after["datagrams"]["drops"].items()}
    expect_equal({k: v for k, v in got.items() if v}, wanted, "dropped datagrams by reason")
    got = {k: v - before["events"]["reasons"].get(k, 0) for k, v in after["events"]["reasons"].items()}
    expect_equal({k: v for k, v in got.items() if v}, sent["reasons"], "refused events by reason")
    expect_equal(after["datagrams"]["delivered"] - before["datagrams"]["delivered"], sent["delivered"],
                 "datagrams delivered")
    expect_equal(sent["answers"], sent["receipts"], "receipts that came")
    expect_equal(after["streams"]["udp_receipts"] - before["streams"]["udp_receipts"], sent["receipts"],
                 "receipts that were sent")
    for what in ("invalid", "refused"):
        was, now = ({str(t["type"]): t[what] for t in account["events"]["types"]} for account in (before, after))
        got = {k: v - was.get(k, 0) for k, v in now.items()}
        expect_equal({k: v for k, v in got.items() if v}, sent[what + "ByType"], what + " events by type")


def test_everything_once():
    """after all that: every (source, id) is in the log once, ledgers balance, the log verifies"""
    seen = {}
    for index, slot, raw in node.tail():
        e = ev.Event.FromString(raw)
        expect((e.source, e.id) not in seen, "twice in the log:", e.source, e.id)
        seen[e.source, e.id] = (index, slot)
    account = node.ledger()
    expect_equal(account["events"]["total"]["committed"], len(seen), "events committed")
    expect_equal(node.status().events, len(seen), "events in status")
    node.stop()
    expect_equal(node.verify()["events"], len(seen), "events that verify counts")


node.start()
main([test_receipts, test_duplicates_and_exceptions, test_duplicates_in_flight, test_assigned_ids,
      test_odd_but_good, test_custom_types, test_pipelining, test_ping_and_empty, test_byte_by_byte,
      test_half_close, test_ipv6, test_hostile_frames, test_receipts_before_errors, test_hostile_events,
      test_every_cut, test_bit_flips, test_too_large_batch, test_largest_frame, test_many_connections,
      test_resets, test_slow_reader, test_slowloris, test_udp, test_udp_truncated, test_udp_hostile,
      test_everything_once])
