#!/usr/bin/python3
"""Writes the corpora of fuzz_datagram, fuzz_packet and fuzz_frame, and requests of fuzz_admin, with Google's
protobuf for Python.

usage: tests/fuzz/make_corpus.py        (in the source tree's root)

The files are committed; run this again when the messages change. The same messages give the same
files.
"""
import os
import struct
import subprocess
import sys
import tempfile

CORPUS = "tests/fuzz/corpus"
TIME_NS = 1772548200000000000  # SAMPLE_TIME_NS of tests/lib/sample.h

out = tempfile.TemporaryDirectory()
# Another package may be named proto, so the generated files go without their folder.
for name in ("event", "wire", "entry", "node", "admin"):
    with open("proto/%s.proto" % name, encoding="utf-8") as f:
        text = f.read().replace('import "proto/', 'import "')
    with open(os.path.join(out.name, name + ".proto"), "w", encoding="utf-8") as f:
        f.write(text)
subprocess.run(
    ["protoc", "-I" + out.name, "--python_out=" + out.name, "event.proto", "wire.proto",
     "entry.proto", "node.proto", "admin.proto"],
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


# Frames for fuzz_packet: headers of every kind, without checksums, which are not looked at.
def udp(payload, length=None):
    return struct.pack(">HHHH", 5000, 7400, length or 8 + len(payload), 0) + payload


def ipv4(inner, protocol=17, options=b"", fragment=0):
    words = 5 + len(options) // 4
    return (
        struct.pack(">BBHHHBBH", 0x40 | words, 0, words * 4 + len(inner), 1, fragment, 64, protocol, 0)
        + bytes([192, 0, 2, 1, 198, 51, 100, 1]) + options + inner
    )  # fmt: skip


def ipv6(inner, first=17):
    addresses = bytes.fromhex("20010db8" + "0" * 23 + "1" + "20010db80001" + "0" * 19 + "1")
    return struct.pack(">IHBB", 6 << 28, len(inner), first, 64) + addresses + inner


def ethernet(inner, kind=0x0800, tags=()):
    return bytes(12) + b"".join(struct.pack(">HH", t, 5) for t in tags) + struct.pack(">H", kind) + inner


trade = event(ev.TRADE, 7).SerializeToString()
few = ev.EventBatch(events=[event(k, 3) for k in KINDS.values()], producer="maker", seq=1)
few = few.SerializeToString()
chain = b"\x3c\0\1\4\0\0\0\0" + b"\x2b\0\1\4\0\0\0\0" + b"\x2c\0\0\0\0\0\0\0"
chain += b"\x33\0\0\0\0\0\0\1" + b"\x11\2" + bytes(14)
packets = {
    "v4-event": ethernet(ipv4(udp(trade))),
    "v4-batch": ethernet(ipv4(udp(few))),
    "v4-options": ethernet(ipv4(udp(trade), options=b"\1" * 40)),
    "v4-fragment": ethernet(ipv4(udp(trade), fragment=0x2000)),
    "v4-length": ethernet(ipv4(udp(trade, length=4))),
    "v4-tcp": ethernet(ipv4(struct.pack(">HHIIBBHI", 5000, 7400, 1, 0, 0x50, 2, 0, 0), protocol=6)),
    "v4-two-vlans": ethernet(ipv4(udp(few)), tags=(0x88A8, 0x8100)),
    "v6-event": ethernet(ipv6(udp(trade)), kind=0x86DD),
    "v6-batch": ethernet(ipv6(udp(few)), kind=0x86DD, tags=(0x8100,)),
    "v6-chain": ethernet(ipv6(chain + udp(trade), first=0), kind=0x86DD),
    "bare-event": trade,
    "bare-batch": few,
    "bare-odd-batch": bytes.fromhex("0a0512017808020a000a0109120361626360010a03088001"),
}
for name, data in packets.items():
    write("packet", name, data)

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
point = admin.AdminRequest(read_point=admin.ReadPointRequest(barrier=True, lag_ms_max=5))
write("admin", "cluster_status", b"\0" + framed(admin.AdminRequest(cluster_status={})))
write("admin", "cluster_twice", b"\5" + framed(point) + framed(point))
found = admin.AdminRequest()
for number in range(1, 4):
    found.cluster_init.members.add(node=number, voter=True, address="host%d:7401" % number)
write("admin", "cluster_init", b"\0" + framed(found))
for number in range(4, 8):
    found.cluster_init.members.add(node=number)
write("admin", "cluster_crowded", b"\0" + framed(found))
change = admin.AdminRequest()
change.cluster_change.kind, change.cluster_change.node, change.cluster_change.old = 3, 4, 1
write("admin", "cluster_change", b"\0" + framed(change))
write("admin", "policy_test", b"\0" + framed(test))
write("admin", "policy_test_denied", b"\0" + framed(denied))
write("admin", "policy_test_nowhere", b"\0" + framed(nowhere))
write("admin", "tap", b"\0" + framed(tap))
write("admin", "tap_follow", b"\0" + framed(endless))
write("admin", "tap_unknown", b"\0" + framed(unknown))
write("admin", "tap_crowded", b"\0" + framed(crowded))
write("admin", "xdp_pieces", b"\5" + b"".join(framed(m) for m in (state, denied, unknown, test, tap, state)))
