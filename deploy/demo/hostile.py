#!/usr/bin/env python3
"""hostile.py - sends datagrams that a node must drop, and events that it must refuse: a known number of
each kind. Prints one line of JSON: what was sent, and under which reasons the node must have counted it.

  hostile.py [--to HOST:PORT] [--each N] [--rate N] [--denied-from ADDRESS]

  --to           where the node listens (default 127.0.0.1:7400)
  --each         datagrams of each kind (default 100)
  --rate         datagrams per second, so that none is lost on the way (default 10000; 0: at once)
  --denied-from  send some from this local address too, which ingest.udp.allow does not list

The bytes are written by hand: no library would. Needs Python's standard library alone. The tests use
the tables too.
"""
import argparse
import json
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


def event(n, type_=num(1, 1), source=text(2, "hostile"), ident=None, when=None, symbol=text(5, "AAPL"),
          detail=text(6, TRADE), more=b"", now=None):
    now = time.time_ns() if now is None else now
    ident = text(3, b"h%d" % n) if ident is None else ident
    when = fixed64(4, now) if when is None else when
    return type_ + source + ident + when + symbol + detail + more


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


# Events: what makes them wrong, the reason (proto/wire.proto, lower case), the type they count under
# (0: not known), and how event n is made. All begin with 0x08, so that each may be a datagram.
EVENTS = [
    ("cut inside a field", "decode_malformed", 1, lambda n: event(n)[:-3]),
    ("only a tag", "decode_malformed", 0, lambda n: b"\x08"),
    ("cut inside a time", "decode_malformed", 1, lambda n: event(n, when=b"", symbol=b"", detail=b"")
     + b"\x21\x01\x02\x03"),
    ("a group", "decode_malformed", 1, lambda n: event(n, more=varint(100 << 3 | 3) + varint(100 << 3 | 4))),
    ("wire type 6", "decode_malformed", 1, lambda n: event(n, more=varint(100 << 3 | 6) + b"\x00")),
    ("wire type 7", "decode_malformed", 1, lambda n: event(n, more=varint(100 << 3 | 7) + b"\x00")),
    ("field number 0", "decode_malformed", 1, lambda n: event(n, more=b"\x00\x00")),
    ("field number above 2^29-1", "decode_malformed", 1, lambda n: event(n, more=varint(1 << 32) + b"\x00")),
    ("a varint of 11 bytes", "decode_malformed", 1,
     lambda n: event(n, more=varint(100 << 3) + b"\x80" * 10 + b"\x01")),
    ("a varint above 64 bits", "decode_malformed", 1,
     lambda n: event(n, more=varint(100 << 3) + b"\xff" * 9 + b"\x02")),
    ("a length of 2^31", "decode_malformed", 1, lambda n: event(n, more=varint(100 << 3 | 2) + varint(1 << 31))),
    ("a length of 2^63", "decode_malformed", 1, lambda n: event(n, more=varint(100 << 3 | 2) + varint(1 << 63))),
    ("a length of 2^64-1", "decode_malformed", 1,
     lambda n: event(n, more=varint(100 << 3 | 2) + varint((1 << 64) - 1))),
    ("a length past the parent's end", "decode_malformed", 1,
     lambda n: event(n, detail=text(6, TRADE[:-4] + b"\x7f") + b"A" * 200)),
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
    ("type 0", "type_unknown", 0, lambda n: event(n, type_=b"\x08\x00")),
    ("type 4", "type_unknown", 0, lambda n: event(n, type_=num(1, 4))),
    ("type 127, which has no name", "type_unknown", 0, lambda n: event(n, type_=num(1, 127), detail=b"")),
    ("type 128", "type_unknown", 0, lambda n: event(n, type_=num(1, 128))),
    ("type -1", "type_unknown", 0, lambda n: event(n, type_=num(1, -1))),
    ("type 2^32+1", "type_unknown", 0, lambda n: event(n, type_=num(1, (1 << 32) + 1))),
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
]

BATCH_EVENTS_MAX = 1024

# Datagrams that never become events: what makes them wrong, the reason (base/ledger.h), the bytes.
DATAGRAMS = [
    ("nothing at all", "empty", b""),
    ("text", "not_protobuf", b"GET / HTTP/1.1\r\n\r\n"),
    ("zeros", "not_protobuf", b"\0" * 64),
    ("a source before the type", "not_protobuf", text(2, "hostile") + num(1, 1)),
    ("a batch that is cut", "batch_malformed", b"\x0a\x7f\x08\x01"),
    ("a batch's first byte alone", "batch_malformed", b"\x0a"),
    ("a length of 2^63 in a batch", "batch_malformed", b"\x0a" + varint(1 << 63)),
    ("a group in a batch", "batch_malformed", b"\x0a\x00" + varint(9 << 3 | 3)),
    ("a producer of 65 bytes", "batch_malformed", b"\x0a\x00" + text(2, "p" * 65)),
    ("a producer that is no UTF-8", "batch_malformed", b"\x0a\x00" + text(2, b"\xff")),
    ("two sequence numbers", "batch_malformed", b"\x0a\x00" + num(3, 1) + num(3, 2)),
    ("more events than a batch may have", "batch_too_large", b"\x0a\x00" * (BATCH_EVENTS_MAX + 1)),
    ("a datagram longer than a buffer", "no_buffer", b"\x08\x01" + b"\x00" * 40000),
]


class Sender:
    """Sends at a steady rate and counts."""

    def __init__(self, host, port, rate):
        self.to = (host, port)
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(self.family, socket.SOCK_DGRAM)
        self.rate = rate
        self.sent = 0
        self.begun = time.monotonic()

    def send(self, data, sock=None):
        (sock or self.socket).sendto(data, self.to)
        self.sent += 1
        if self.rate:
            ahead = self.sent / self.rate - (time.monotonic() - self.begun)
            if ahead > 0.001:
                time.sleep(ahead)


def send_all(sender, each, denied_from):
    drops, reasons, types = {}, {}, {}
    for _, reason, data in DATAGRAMS:
        for _ in range(each):
            sender.send(data)
        drops[reason] = drops.get(reason, 0) + each
    number = 0
    for _, reason, kind, make in EVENTS:
        for _ in range(each):
            sender.send(make(number))
            number += 1
        reasons[reason] = reasons.get(reason, 0) + each
        types[kind] = types.get(kind, 0) + each
    delivered = number
    if denied_from:
        denied = socket.socket(sender.family, socket.SOCK_DGRAM)
        denied.bind((denied_from, 0))
        for i in range(each):
            sender.send(event(i), denied)
        drops["source_denied"] = each
    return {"sent": sender.sent, "delivered": delivered, "drops": drops, "reasons": reasons,
            "invalidByType": {str(k): v for k, v in sorted(types.items())}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--to", default="127.0.0.1:7400")
    parser.add_argument("--each", type=int, default=100)
    parser.add_argument("--rate", type=int, default=10000)
    parser.add_argument("--denied-from")
    args = parser.parse_args()
    host, _, port = args.to.rpartition(":")
    sender = Sender(host.strip("[]"), int(port), args.rate)
    json.dump(send_all(sender, args.each, args.denied_from), sys.stdout)
    print()


if __name__ == "__main__":
    main()
