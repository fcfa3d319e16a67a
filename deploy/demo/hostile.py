#!/usr/bin/env python3
"""hostile.py - sends datagrams that a node must drop, and events that it must refuse: a known number of
each kind. Prints one line of JSON: what was sent, and under which reasons the node must have counted it.

  hostile.py [--to HOST:PORT] [--each N] [--rate N] [--denied-from ADDRESS] [--dropped-type N]

  --to            where the node listens (default 127.0.0.1:7400)
  --each          datagrams of each kind (default 100)
  --rate          datagrams per second, so that none is lost on the way (default 10000; 0: at once)
  --denied-from   send some from this local address too, which ingest.udp.allow does not list
  --dropped-type  send some of this type too, 64..127, which the settings name and drop

A datagram is dropped whole for what shows in a walk over its fields; the rest is refused event by event,
and so is all that comes in a batch with something else or wants a receipt. Hence each hostile event is sent
twice: alone, and in a batch on both sides of another. Receipts that are due are waited for and counted.

The bytes are written by hand: no library would. Needs Python's standard library alone. The tests use
the tables too.
"""
import argparse
import collections
import json
import select
import socket
import struct
import sys
import time

# --- protobuf's wire format ----------------------------------------------------------------------


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def num(field, value):
    return varint(field << 3) + varint(value % (1 << 64))


def text(field, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def fixed64(field, value):
    return varint(field << 3 | 1) + struct.pack("<Q", value)


def zigzag(n):
    return (n << 1) ^ (n >> 63)


def pair(key, value):
    return text(10, text(1, key) + text(2, value))


# --- one wrong thing at a time -------------------------------------------------------------------

TRADE = num(1, zigzag(18750)) + num(2, 2) + num(3, 100) + text(5, "XNAS")
SECOND = 1000000000


def fields(n, type_=num(1, 1), source=text(2, "hostile"), ident=None, when=None, symbol=text(5, "AAPL"),
           detail=text(6, TRADE), now=None):
    now = time.time_ns() if now is None else now
    ident = text(3, b"h%d" % n) if ident is None else ident
    when = fixed64(4, now) if when is None else when
    return [type_, source, ident, when, symbol, detail]


def event(n, more=b"", **change):
    return b"".join(fields(n, **change)) + more


def trade(**change):
    """A trade's detail with one member replaced or added."""
    parts = {"price": num(1, zigzag(18750)), "price_scale": num(2, 2), "size": num(3, 100),
             "venue": text(5, "XNAS")}
    parts.update(change)
    return text(6, b"".join(parts.values()))


def book(*bids, snapshot=True):
    levels = b"".join(text(1, num(1, zigzag(price)) + num(2, size)) for price, size in bids)
    return text(8, levels + num(3, 2) + (num(7, 1) if snapshot else b""))


def snapshot(n, *bids):
    return event(n, type_=num(1, 3), detail=book(*bids))


# How many fields of a single event are walked over, behind its type, and how many events of a batch
# (bpf/protobuf.h): what is behind them shows only when the events are decoded.
WALK_STEPS, WALK_EVENTS = 32, 16
FIELDS = ("type", "source", "id", "time", "symbol", "detail")


def more_fields(n, walked):
    """An event with `walked` fields behind its type."""
    return event(n, more=num(100, 0) * (walked - len(FIELDS) + 1))


# Single events whose fields do not add up: what makes them wrong, the type that they count under in a
# batch (0: not known), and how event n is made. All events here begin with 0x08, so that each may be a
# datagram.
MALFORMED = [
    ("cut inside a field", 1, lambda n: event(n)[:-3]),
    ("only a tag", 0, lambda n: b"\x08"),
    ("cut inside a time", 1, lambda n: event(n, when=b"", symbol=b"", detail=b"") + b"\x21\x01\x02\x03"),
    ("a group", 1, lambda n: event(n, more=varint(100 << 3 | 3) + varint(100 << 3 | 4))),
    ("wire type 6", 1, lambda n: event(n, more=varint(100 << 3 | 6) + b"\x00")),
    ("wire type 7", 1, lambda n: event(n, more=varint(100 << 3 | 7) + b"\x00")),
    ("field number 0", 1, lambda n: event(n, more=b"\x00\x00")),
    ("field number above 2^29-1", 1, lambda n: event(n, more=varint(1 << 32) + b"\x00")),
    ("a varint of 11 bytes", 1, lambda n: event(n, more=varint(100 << 3) + b"\x80" * 10 + b"\x01")),
    ("a varint above 64 bits", 1, lambda n: event(n, more=varint(100 << 3) + b"\xff" * 9 + b"\x02")),
    ("a length of 2^31", 1, lambda n: event(n, more=varint(100 << 3 | 2) + varint(1 << 31))),
    ("a length of 2^63", 1, lambda n: event(n, more=varint(100 << 3 | 2) + varint(1 << 63))),
    ("a length of 2^64-1", 1, lambda n: event(n, more=varint(100 << 3 | 2) + varint((1 << 64) - 1))),
    ("a length past the parent's end", 1,
     lambda n: event(n, detail=text(6, TRADE[:-4] + b"\x7f") + b"A" * 200)),
    ("cut in the last field that is walked over", 1, lambda n: more_fields(n, WALK_STEPS - 1) + b"\x62"),
]
MALFORMED += [("cut behind the tag of its " + name, 1, lambda n, i=i: b"".join(fields(n)[:i]) + fields(n)[i][:1])
              for i, name in enumerate(FIELDS) if i > 0]
MALFORMED += [("cut in the last byte of its " + name, 1, lambda n, i=i: b"".join(fields(n)[:i + 1])[:-1])
              for i, name in enumerate(FIELDS) if i > 0]

# Events of types that nobody has named.
UNKNOWN = [
    ("type 0", lambda n: event(n, type_=b"\x08\x00")),
    ("type 4", lambda n: event(n, type_=num(1, 4))),
    ("type 127, which has no name", lambda n: event(n, type_=num(1, 127), detail=b"")),
    ("type 128", lambda n: event(n, type_=num(1, 128))),
    ("type -1", lambda n: event(n, type_=num(1, -1))),
    ("type 2^32+1", lambda n: event(n, type_=num(1, (1 << 32) + 1))),
]

# Events that only decode and validate find wrong: the reason (proto/wire.proto, lower case) comes second.
REFUSED = [
    ("a source that is a number", "decode_malformed", 1, lambda n: event(n, source=num(2, 7))),
    ("a price that is a double", "decode_malformed", 1, lambda n: event(n, detail=trade(price=fixed64(1, 1)))),
    ("a source of 65 bytes", "decode_bounds", 1, lambda n: event(n, source=text(2, "s" * 65))),
    ("an id of 65 bytes", "decode_bounds", 1, lambda n: event(n, ident=text(3, b"i" * 65))),
    ("a symbol of 33 bytes", "decode_bounds", 1, lambda n: event(n, symbol=text(5, "S" * 33))),
    ("a venue of 9 bytes", "decode_bounds", 1, lambda n: event(n, detail=trade(venue=text(5, "V" * 9)))),
    ("17 attributes", "decode_bounds", 1,
     lambda n: event(n, more=b"".join(pair("k%d" % i, "v") for i in range(17)))),
    ("an attribute of 129 bytes", "decode_bounds", 1, lambda n: event(n, more=pair("k", "v" * 129))),
    ("51 levels", "decode_bounds", 3, lambda n: snapshot(n, *[(1000 - i, 1) for i in range(51)])),
    ("a traceparent of 26 bytes", "decode_bounds", 1, lambda n: event(n, more=text(11, b"t" * 26))),
    ("a trade without detail", "type_detail_mismatch", 1, lambda n: event(n, detail=b"")),
    ("a quote with a trade's detail", "type_detail_mismatch", 2, lambda n: event(n, type_=num(1, 2))),
    ("a trade with a custom detail", "type_detail_mismatch", 1, lambda n: event(n, detail=text(9, b""))),
    ("no source", "source_missing", 1, lambda n: event(n, source=b"")),
    ("an over-long UTF-8 source", "utf8_invalid", 1, lambda n: event(n, source=text(2, b"a\xc0\xaf"))),
    ("a surrogate in the symbol", "utf8_invalid", 1, lambda n: event(n, symbol=text(5, b"\xed\xa0\x80"))),
    ("bad UTF-8 in an attribute", "utf8_invalid", 1, lambda n: event(n, more=pair("k", b"\xff"))),
    ("a NUL in the venue", "utf8_invalid", 1, lambda n: event(n, detail=trade(venue=text(5, b"X\0N")))),
    ("no time", "timestamp_missing", 1, lambda n: event(n, when=b"")),
    ("a time of long ago", "timestamp_past", 1, lambda n: event(n, now=time.time_ns() - 30 * 86400 * SECOND)),
    ("a time in the future", "timestamp_future", 1, lambda n: event(n, now=time.time_ns() + 3600 * SECOND)),
    ("a time of 2^64-1", "timestamp_future", 1, lambda n: event(n, now=(1 << 64) - 1)),
    ("a price scale of 19", "value_out_of_range", 1, lambda n: event(n, detail=trade(price_scale=num(2, 19)))),
    ("a price of -2^63", "value_out_of_range", 1,
     lambda n: event(n, detail=trade(price=num(1, (1 << 64) - 1)))),
    ("a size of 2^63", "value_out_of_range", 1, lambda n: event(n, detail=trade(size=num(3, 1 << 63)))),
    ("a scale above 32 bits", "value_out_of_range", 1,
     lambda n: event(n, detail=trade(price_scale=num(2, 1 << 32)))),
    ("an aggressor that is none", "value_out_of_range", 1, lambda n: event(n, detail=trade(side=num(9, 3)))),
    ("a traceparent of 10 bytes", "value_out_of_range", 1, lambda n: event(n, more=text(11, b"t" * 10))),
    ("a book out of order", "value_out_of_range", 3, lambda n: snapshot(n, (100, 1), (101, 1))),
    ("a snapshot level without size", "value_out_of_range", 3, lambda n: snapshot(n, (100, 0))),
    ("an enrichment", "enrichment_present", 1, lambda n: event(n, more=text(15, b""))),
    ("the type twice", "field_repeated", 1, lambda n: event(n, more=num(1, 2))),
    ("the source twice", "field_repeated", 1, lambda n: event(n, more=text(2, "other"))),
    ("two details", "field_repeated", 1, lambda n: event(n, more=text(7, b""))),
    ("the price twice", "field_repeated", 1, lambda n: event(n, detail=trade(again=num(1, 4)))),
    ("an attribute twice", "field_repeated", 1, lambda n: event(n, more=pair("k", "a") + pair("k", "b"))),
    ("cut behind the fields that are walked over", "decode_malformed", 1,
     lambda n: more_fields(n, WALK_STEPS) + b"\x62"),
]
REFUSED += [("cut behind its " + name, "type_detail_mismatch", 1, lambda n, i=i: b"".join(fields(n)[:i + 1]))
            for i, name in enumerate(FIELDS[:-1])]

# What becomes of each: `drop` (base/ledger.h) of its datagram when it comes alone, or None; else its reason.
Event = collections.namedtuple("Event", "what drop reason type make")
EVENTS = [Event(what, "event_malformed", "decode_malformed", kind, make) for what, kind, make in MALFORMED]
EVENTS += [Event(what, "type_unknown", "type_unknown", 0, make) for what, make in UNKNOWN]
EVENTS += [Event(what, None, reason, kind, make) for what, reason, kind, make in REFUSED]


# --- datagrams -----------------------------------------------------------------------------------


def batch(*events, more=b""):
    return b"".join(text(1, e) for e in events) + more


# What is beside others in a batch: of a type that is known, and refused for itself.
BESIDE, BESIDE_REASON = b"\x08\x01", ("type_detail_mismatch", 1)
NO_TYPE, ANY = batch(b""), batch(BESIDE)
STRANGERS = [num(1, 4), num(1, 127) + text(2, "hostile"), text(2, "hostile"), b"\x08"]
RECEIPT_WANTED = num(4, 1)
BATCH_EVENTS_MAX = 1024

# Datagrams that never become events: what makes them wrong, the drop, the bytes.
DATAGRAMS = [
    ("nothing at all", "empty", b""),
    ("text", "not_protobuf", b"GET / HTTP/1.1\r\n\r\n"),
    ("zeros", "not_protobuf", b"\0" * 64),
    ("a source before the type", "not_protobuf", text(2, "hostile") + num(1, 1)),
    ("a batch that is cut", "batch_malformed", b"\x0a\x7f\x08\x01"),
    ("a batch's first byte alone", "batch_malformed", b"\x0a"),
    ("a length of 2^63 in a batch", "batch_malformed", b"\x0a" + varint(1 << 63)),
    ("a group in a batch", "batch_malformed", ANY + varint(9 << 3 | 3)),
    ("a producer of 65 bytes", "batch_malformed", ANY + text(2, "p" * 65)),
    ("a producer that is no UTF-8", "batch_malformed", ANY + text(2, b"\xff")),
    ("two sequence numbers", "batch_malformed", ANY + num(3, 1) + num(3, 2)),
    ("a batch of unknown types that is cut", "batch_malformed", batch(*STRANGERS) + b"\x0a\x7f"),
    ("a batch that is cut behind what is walked over", "batch_malformed", ANY * WALK_EVENTS + b"\x0a\x7f"),
    ("a cut batch that wants a receipt", "batch_malformed", ANY + RECEIPT_WANTED + b"\x0a"),
    ("a batch of one event without a type", "type_unknown", NO_TYPE),
    ("a batch of unknown types", "type_unknown", batch(*STRANGERS)),
    ("a batch of unknown types that wants no receipt", "type_unknown", batch(*STRANGERS, more=num(4, 0))),
    ("unknown types, as many as are walked over", "type_unknown", NO_TYPE * WALK_EVENTS),
    ("more events than a batch may have", "batch_too_large", NO_TYPE * (BATCH_EVENTS_MAX + 1)),
    ("a datagram longer than a buffer", "no_buffer", b"\x08\x01" + b"\x00" * 40000),
]

# Batches that are taken apart: what they are, the receipts that they must get, the events that are refused
# by (reason, type), the bytes.
BATCHES = [
    ("unknown types that want a receipt", 1,
     {("type_unknown", 0): 3, ("decode_malformed", 0): 1}, batch(*STRANGERS, more=RECEIPT_WANTED)),
    ("an event without a type that wants a receipt", 1, {("type_unknown", 0): 1}, NO_TYPE + RECEIPT_WANTED),
    ("unknown types beside another", 0,
     {("type_unknown", 0): 3, ("decode_malformed", 0): 1, BESIDE_REASON: 1}, batch(*STRANGERS, BESIDE)),
    ("unknown types, more than are walked over", 0,
     {("type_unknown", 0): WALK_EVENTS + 1}, NO_TYPE * (WALK_EVENTS + 1)),
]


def of_dropped_type(kind):
    """The same two tables, of a type that is known but dropped."""
    good = event(0, type_=num(1, kind), detail=b"")
    timeless = event(0, type_=num(1, kind), detail=b"", when=b"")
    return [
        ("a dropped type", "type_dropped", good),
        ("a dropped type that nobody has looked into", "type_dropped", num(1, kind)),
        ("a batch of a dropped type", "type_dropped", batch(good, good, timeless)),
        ("a batch of a dropped and an unknown type", "type_dropped", batch(num(1, 4), good)),
    ], [
        ("a dropped type that wants a receipt", 1, {("type_not_admitted", kind): 2},
         batch(good, good, more=RECEIPT_WANTED)),
        ("a dropped type that is wrong as well, and a receipt", 1, {("timestamp_missing", kind): 1},
         batch(timeless, more=RECEIPT_WANTED)),
        ("a dropped type beside another", 0, {("type_not_admitted", kind): 1, BESIDE_REASON: 1},
         batch(BESIDE, good)),
    ]


# Reasons of events that are good and not wanted: these count as refused, all others as invalid.
NOT_WANTED = ("type_not_admitted",)


class Sender:
    """Sends at a steady rate and counts what must become of it."""

    def __init__(self, host, port, rate):
        self.to = (host, port)
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(self.family, socket.SOCK_DGRAM)
        self.asking = socket.socket(self.family, socket.SOCK_DGRAM)  # gets receipts; the other one none
        self.asking.setblocking(False)
        self.rate = rate
        self.begun = time.monotonic()
        self.sent = self.delivered = self.receipts = self.answers = 0
        self.drops, self.reasons = collections.Counter(), collections.Counter()
        self.invalid, self.refused = collections.Counter(), collections.Counter()

    def send(self, data, sock=None):
        (sock or self.socket).sendto(data, self.to)
        self.sent += 1
        if self.rate:
            ahead = self.sent / self.rate - (time.monotonic() - self.begun)
            if ahead > 0.001:
                time.sleep(ahead)

    def send_dropped(self, drop, data, sock=None):
        self.send(data, sock)
        self.drops[drop] += 1

    def send_delivered(self, events, data, receipts=0):
        self.send(data, self.asking if receipts else None)
        self.delivered += 1
        self.receipts += receipts
        for (reason, kind), n in events.items():
            self.reasons[reason] += n
            (self.refused if reason in NOT_WANTED else self.invalid)[str(kind)] += n
        self.take_answers()

    def take_answers(self):
        try:
            while True:
                self.asking.recv(65536)
                self.answers += 1
        except BlockingIOError:
            pass

    def wait_for_answers(self, seconds=10):
        until = time.monotonic() + seconds
        while self.answers < self.receipts and time.monotonic() < until:
            select.select([self.asking], [], [], 0.1)
            self.take_answers()

    def account(self):
        return {"sent": self.sent, "delivered": self.delivered, "drops": self.drops, "reasons": self.reasons,
                "invalidByType": self.invalid, "refusedByType": self.refused,
                "receipts": self.receipts, "answers": self.answers}


def send_event(sender, hostile, n):
    if hostile.drop:
        sender.send_dropped(hostile.drop, hostile.make(n))
    else:
        sender.send_delivered({(hostile.reason, hostile.type): 1}, hostile.make(n))
    refused = collections.Counter([(hostile.reason, hostile.type)] * 2 + [BESIDE_REASON])
    sender.send_delivered(refused, batch(hostile.make(n + 1), BESIDE, hostile.make(n + 2)))


def send_all(sender, each, denied_from=None, dropped_type=None):
    datagrams, batches = of_dropped_type(dropped_type) if dropped_type else ([], [])
    for _, drop, data in DATAGRAMS + datagrams:
        for _ in range(each):
            sender.send_dropped(drop, data)
    for _, receipts, events, data in BATCHES + batches:
        for _ in range(each):
            sender.send_delivered(events, data, receipts)
    for i, hostile in enumerate(EVENTS):
        for j in range(each):
            send_event(sender, hostile, 3 * (i * each + j))
    if denied_from:
        denied = socket.socket(sender.family, socket.SOCK_DGRAM)
        denied.bind((denied_from, 0))
        for i in range(each):
            sender.send_dropped("source_denied", event(i), denied)
    sender.wait_for_answers()
    return sender.account()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--to", default="127.0.0.1:7400")
    parser.add_argument("--each", type=int, default=100)
    parser.add_argument("--rate", type=int, default=10000)
    parser.add_argument("--denied-from")
    parser.add_argument("--dropped-type", type=int)
    args = parser.parse_args()
    host, _, port = args.to.rpartition(":")
    sender = Sender(host.strip("[]"), int(port), args.rate)
    json.dump(send_all(sender, args.each, args.denied_from, args.dropped_type), sys.stdout)
    print()


if __name__ == "__main__":
    main()
