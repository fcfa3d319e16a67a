#!/usr/bin/python3
"""Writes the corpora of fuzz_datagram and fuzz_frame, and requests of fuzz_admin, with Google's protobuf for Python.

usage: tests/fuzz/make_corpus.py        (in the source tree's root)

The files are committed; run this again when the messages change. The same messages give the same
files.
"""
import os
import subprocess
import sys
import tempfile

CORPUS = "tests/fuzz/corpus"
TIME_NS = 1772548200000000000  # SAMPLE_TIME_NS of tests/lib/sample.h

out = tempfile.TemporaryDirectory()
# Another package may be named proto, so the generated files go without their folder.
for name in ("event", "wire", "admin"):
    with open("proto/%s.proto" % name, encoding="utf-8") as f:
        text = f.read().replace('import "proto/', 'import "')
    with open(os.path.join(out.name, name + ".proto"), "w", encoding="utf-8") as f:
        f.write(text)
subprocess.run(
    ["protoc", "-I" + out.name, "--python_out=" + out.name, "event.proto", "wire.proto",
     "admin.proto"],
    check=True, cwd=out.name,
)  # fmt: skip
sys.path.insert(0, out.name)
import admin_pb2 as admin  # noqa: E402
import event_pb2 as ev  # noqa: E402
import wire_pb2 as wire  # noqa: E402


def event(kind, n):
    e = ev.Event(type=kind, source="feed", timestamp_ns=TIME_NS + n, symbol="AAPL", id=b"id-%d" % n)
    if kind == ev.TRADE:
        e.trade.price = -3763 + n
        e.trade.price_scale = 2
        e.trade.size = 100
        e.trade.venue = "XNAS"
        e.trade.conditions = "@ FT"
        e.trade.sequence = 1 << 40
        e.trade.trade_id = "t%d" % n
        e.trade.aggressor = ev.SELL
        e.trade.currency = "USD"
        e.trade.venue_timestamp_ns = TIME_NS
    elif kind == ev.QUOTE:
        e.quote.bid_price = 100
        e.quote.bid_size = 1
        e.quote.ask_price = 101
        e.quote.ask_size = 2
        e.quote.bid_venue = "ARCX"
        e.quote.ask_venue = "BATS"
        e.quote.currency = "USD"
    elif kind == ev.ORDERBOOK:
        for i in range(n % 50 + 1):
            e.orderbook.bids.add(price=1000 - i, size=i + 1, orders=i)
            e.orderbook.asks.add(price=1001 + i, size=i + 1)
        e.orderbook.is_snapshot = True
        e.orderbook.venue = "XNYS"
    else:
        e.custom.schema = "acme.v1"
        e.custom.body = bytes(range(n % 64))
    return e


def varint(n):
    head = bytearray()
    while n >= 0x80:
        head.append(n & 0x7F | 0x80)
        n >>= 7
    head.append(n)
    return bytes(head)


def write(corpus, name, data):
    folder = os.path.join(CORPUS, corpus)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def framed(message):
    data = message.SerializeToString(deterministic=True)
    return varint(len(data)) + data


KINDS = {"trade": ev.TRADE, "quote": ev.QUOTE, "orderbook": ev.ORDERBOOK, "custom": 64}

for label, kind in KINDS.items():
    e = event(kind, 7)
    write("datagram", "event-" + label, e.SerializeToString())
    e.ClearField("id")
    e.attributes["desk"] = "zürich"
    e.attributes["feed"] = ""
    e.traceparent = bytes(25)
    write("datagram", "event-%s-attributes" % label, e.SerializeToString(deterministic=True))
    e.enrichment.ingestion_id = "2-3-4"
    write("datagram", "event-%s-enriched" % label, e.SerializeToString(deterministic=True))

batch = ev.EventBatch(producer="maker", seq=9, receipt_wanted=True)
for number, kind in enumerate(KINDS.values()):
    batch.events.append(event(kind, number))
write("datagram", "batch-all", batch.SerializeToString())
write("datagram", "batch-empty", ev.EventBatch(events=[ev.Event()]).SerializeToString())
many = ev.EventBatch(events=[event(ev.TRADE, n) for n in range(40)])
write("datagram", "batch-many", many.SerializeToString())

# The first byte picks the reader in fuzz_frame: 0 client, 1 server, 2 a bare receipt.
hello = wire.ClientFrame(hello=wire.Hello(protocol=1, producer="maker", token=b"secret"))
ping = wire.ClientFrame(ping=wire.Ping(nonce=1 << 63))
body = wire.ClientFrame(batch=wire.Batch(request=5, batch=batch, durability=wire.QUORUM))
write("frame", "client-hello", b"\0" + framed(hello))
write("frame", "client-batch", b"\0" + framed(body))
write("frame", "client-stream", b"\0" + framed(hello) + framed(body) + framed(ping))

receipt = wire.Receipt(
    request=5, epoch=2, term=2 << 20 | 1, index=77, first_slot=3, durability=wire.QUORUM,
    accepted=2, duplicates=1, refused=1, truncated=True,
)  # fmt: skip
receipt.exceptions.add(position=1, reason=wire.DUPLICATE).first.index = 70
receipt.exceptions.add(position=2, reason=wire.UTF8_INVALID)
receipt.assigned.add(position=3, id=bytes(range(16)))
welcome = wire.Welcome(
    protocol=1, node=1, region=1, frame_bytes_max=65536, batch_events_max=2048,
    cluster_id=bytes(16),
)  # fmt: skip
error = wire.Error(code=wire.ERROR_STOPPING, message="stopping", closing=True)
stream = [
    wire.ServerFrame(welcome=welcome),
    wire.ServerFrame(receipt=receipt),
    wire.ServerFrame(pong=wire.Pong(nonce=3)),
    wire.ServerFrame(error=error),
]
for message in stream:
    write("frame", "server-" + message.WhichOneof("body"), b"\1" + framed(message))
write("frame", "server-stream", b"\1" + b"".join(framed(m) for m in stream))
write("frame", "receipt", b"\2" + receipt.SerializeToString())

# The first byte of fuzz_admin says in which pieces the rest arrives; 0: in one.
state = admin.AdminRequest(xdp_status=admin.XdpStatusRequest(sources=True))
test = admin.AdminRequest(
    policy_test=admin.PolicyTestRequest(datagram=many.SerializeToString(), **{"from": "192.0.2.9"})
)
denied = admin.AdminRequest(
    policy_test=admin.PolicyTestRequest(shadow=True, **{"from": "2001:db8::1"})
)
nowhere = admin.AdminRequest(policy_test=admin.PolicyTestRequest(datagram=b"x"))
tap = admin.AdminRequest(tap=admin.TapRequest(reasons=["type_rate", "empty"], count_max=2))
endless = admin.AdminRequest(tap=admin.TapRequest(follow=True, count_max=1))
unknown = admin.AdminRequest(tap=admin.TapRequest(reasons=["nonsense"]))
crowded = admin.AdminRequest(tap=admin.TapRequest(reasons=["empty"] * 17))
write("admin", "xdp_status", b"\0" + framed(admin.AdminRequest(xdp_status={})))
write("admin", "xdp_sources", b"\0" + framed(state))
write("admin", "policy_test", b"\0" + framed(test))
write("admin", "policy_test_denied", b"\0" + framed(denied))
write("admin", "policy_test_nowhere", b"\0" + framed(nowhere))
write("admin", "tap", b"\0" + framed(tap))
write("admin", "tap_follow", b"\0" + framed(endless))
write("admin", "tap_unknown", b"\0" + framed(unknown))
write("admin", "tap_crowded", b"\0" + framed(crowded))
write("admin", "xdp_pieces", b"\5" + b"".join(framed(m) for m in (state, denied, unknown, test, tap, state)))
