#!/usr/bin/python3
"""The reference reader of test_differential: Google's protobuf for Python.

usage: differential.py <directory for generated code> <protoc include root>

Reads varint-delimited messages from stdin until it ends. For each one writes a line, `-` when
Event.ParseFromString() refuses it, else its fields as the C side prints them: type, timestamp, then
source, id and symbol in hex, the detail's name, one number of each field of it, attributes.
"""
import os
import subprocess
import sys

out, root = sys.argv[1], sys.argv[2]
subprocess.run(
    ["protoc", "-I" + root, "--python_out=" + out, os.path.join(root, "proto/event.proto")], check=True
)
sys.path.insert(0, os.path.join(out, "proto"))  # another package may be named proto
from google.protobuf.message import DecodeError  # noqa: E402
import event_pb2  # noqa: E402


def messages(data):
    at = 0
    while at < len(data):
        size = shift = 0
        while True:
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield data[at : at + size]
        at += size


def text(s):
    return s.encode().hex()


def levels(side):
    return " ".join("%d:%d:%d" % (v.price, v.size, v.orders) for v in side)


def trade(t):
    return "%d %d %d %d %s %s %d %s %d %s %d" % (
        t.price, t.price_scale, t.size, t.size_scale, text(t.venue), text(t.conditions),
        t.sequence, text(t.trade_id), t.aggressor, text(t.currency), t.venue_timestamp_ns,
    )  # fmt: skip


def quote(q):
    return "%d %d %d %d %d %d %s %s %s %d %s %d" % (
        q.bid_price, q.bid_size, q.ask_price, q.ask_size, q.price_scale, q.size_scale,
        text(q.bid_venue), text(q.ask_venue), text(q.conditions), q.sequence, text(q.currency),
        q.venue_timestamp_ns,
    )  # fmt: skip


def orderbook(b):
    return "[%s] [%s] %d %d %s %d %d %s %d" % (
        levels(b.bids), levels(b.asks), b.price_scale, b.size_scale, text(b.venue), b.sequence,
        b.is_snapshot, text(b.currency), b.venue_timestamp_ns,
    )  # fmt: skip


DETAIL = {
    None: lambda e: "none",
    "trade": lambda e: "trade " + trade(e.trade),
    "quote": lambda e: "quote " + quote(e.quote),
    "orderbook": lambda e: "orderbook " + orderbook(e.orderbook),
    "custom": lambda e: "custom " + text(e.custom.schema),
}


def line(data):
    event = event_pb2.Event()
    try:
        event.ParseFromString(data)
    except DecodeError:
        return "-"
    attributes = sorted("%s=%s" % (text(k), text(v)) for k, v in event.attributes.items())
    return "|".join(
        [
            str(event.type),
            str(event.timestamp_ns),
            text(event.source),
            event.id.hex(),
            text(event.symbol),
            DETAIL[event.WhichOneof("detail")](event),
            " ".join(attributes),
            event.traceparent.hex(),
        ]
    )


# The library writes a line to stderr for every string that is not UTF-8.
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
try:
    sys.stdout.write("".join(line(m) + "\n" for m in messages(sys.stdin.buffer.read())))
finally:
    os.dup2(stderr, 2)
