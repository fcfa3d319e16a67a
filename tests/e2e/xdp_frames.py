#!/usr/bin/python3
"""Frames for test_xdp_peers: headers by scapy, payloads by Google's protobuf for Python.

usage: xdp_frames.py <file to write> <protoc include root> <how many> <seed>

Every frame is put together by scapy, cut from its bytes again by scapy, and written with what scapy
sees in it. A record, little-endian:

  u32 bytes of the frame   u8 kind   u16 destination port   u8 TCP flags
  u16 bytes of the payload   u8 message (0 neither, 1 event, 2 batch)   u8 n   n types
  payload   frame
"""
import os
import random
import struct
import subprocess
import sys
import tempfile

from scapy.all import (
    IP, TCP, UDP, Dot1AD, Dot1Q, Ether, IPOption, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, NoPayload, PadN, Padding, Raw, bind_layers,
)  # fmt: skip
from scapy.layers.ipsec import AH

NOT_OURS, FRAGMENT, TCP_SEGMENT, DATAGRAM, LENGTH = range(5)
PORT = 7400
OURS = ("198.51.100.1", "2001:db8:1::1")
TYPES = (0, 1, 2, 3, 64, 100, 127)
EXTENSIONS = {
    IPv6ExtHdrHopByHop: 0, IPv6ExtHdrRouting: 43, IPv6ExtHdrFragment: 44, AH: 51, IPv6ExtHdrDestOpt: 60,
}  # fmt: skip

# What is behind an AH header scapy does not look for in IPv6.
BEHIND = {number: header for header, number in EXTENSIONS.items()} | {6: TCP, 17: UDP}
AH.guess_payload_class = lambda self, payload: BEHIND.get(self.nh, Raw)
for _number, _header in BEHIND.items():
    bind_layers(AH, _header, nh=_number)

path, root, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
out = tempfile.TemporaryDirectory()
subprocess.run(
    ["protoc", "-I" + root, "--python_out=" + out.name, os.path.join(root, "proto/event.proto")],
    check=True,
)
sys.path.insert(0, os.path.join(out.name, "proto"))
import event_pb2 as ev  # noqa: E402

rng = random.Random(seed)


def event():
    e = ev.Event(type=rng.choice(TYPES[1:]), source="feed", timestamp_ns=rng.getrandbits(60))
    if rng.random() < 0.8:
        e.id = rng.randbytes(rng.randrange(20))
    if rng.random() < 0.5:
        e.trade.price = rng.randrange(-(1 << 40), 1 << 40)
        e.trade.venue = "XNAS"
    elif rng.random() < 0.5:
        e.custom.body = rng.randbytes(rng.choice((0, 1, 127, 128, 300)))
    if rng.random() < 0.2:
        e.attributes["feed"] = "utp-b"
    return e


def message():
    """The payload's kind, its events' types, and its bytes."""
    pick = rng.random()
    if pick < 0.5:
        e = event()
        return 1, [e.type], e.SerializeToString()
    if pick < 0.9:
        batch = ev.EventBatch(producer="maker", seq=rng.randrange(1 << 30))
        for _ in range(rng.choice((1, 2, 3, 8, 16))):
            batch.events.append(event())
        data = batch.SerializeToString()
        if len(data) < 1400:
            return 2, [e.type for e in batch.events], data
    return 0, [], b"\x07" + rng.randbytes(rng.randrange(100))


def extension():
    pick = rng.choice(list(EXTENSIONS))
    if pick in (IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt):
        return pick(options=[PadN(optdata=bytes(rng.choice((4, 12, 100))))])
    if pick is IPv6ExtHdrRouting:
        return pick(type=rng.choice((0, 2)), segleft=rng.choice((0, 0, 0, 1)), addresses=["2001:db8::9"])
    if pick is AH:
        return pick(spi=1, seq=1, icv=rng.randbytes(rng.choice((4, 12, 20))), payloadlen=0)
    if rng.random() < 0.7:
        return pick(offset=0, m=0)
    return pick(offset=rng.choice((0, 1, 185)), m=rng.choice((0, 1)), id=rng.getrandbits(32))


def network():
    if rng.random() < 0.5:
        p = IP(src="192.0.2.%d" % rng.randrange(1, 255), dst=OURS[0] if rng.random() < 0.95 else "198.51.100.2")
        if rng.random() < 0.3:
            p.options = [IPOption(b"\x01" * (4 * rng.randrange(1, 11)))]
        if rng.random() < 0.1:
            p.flags = rng.choice(("MF", "DF", "evil"))
            p.frag = rng.choice((0, 0, 1, 185))
        return p
    p = IPv6(src="2001:db8::%x" % rng.randrange(1, 65535), dst=OURS[1] if rng.random() < 0.95 else "2001:db8:1::2")
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3, 6, 7))):
        part = extension()
        if isinstance(part, AH):
            part.payloadlen = (12 + len(part.icv)) // 4 - 2
        p = p / part
    return p


def frame(payload):
    p = Ether(dst="00:00:00:00:00:00", src="02:00:00:00:00:01")
    for _ in range(rng.choice((0, 0, 0, 1, 2, 3))):
        p = p / rng.choice((Dot1Q, Dot1AD))(vlan=rng.randrange(1, 4095), prio=rng.randrange(8))
    p = p / network()
    port = PORT if rng.random() < 0.9 else rng.randrange(65536)
    if rng.random() < 0.15:
        p = p / TCP(sport=1234, dport=port, flags=rng.randrange(256)) / Raw(payload)
    else:
        p = p / UDP(sport=1234, dport=port) / Raw(payload)
        if rng.random() < 0.05:
            p[UDP].len = rng.choice((0, 7, 8 + len(payload) + rng.randrange(1, 9), 65535))
    data = bytes(p)
    return data + bytes(rng.randrange(40)) if rng.random() < 0.3 else data


def layers(p):
    while not isinstance(p, NoPayload):
        yield p
        p = p.payload


def segments_left(p):
    return isinstance(p, IPv6ExtHdrRouting) and p.segleft > 0


def seen(data):
    """What scapy reads in a frame: kind, port, TCP flags, payload."""
    nothing = NOT_OURS, 0, 0, b""
    parts = list(layers(Ether(data)))
    headers = [p for p in parts if type(p) in EXTENSIONS]
    if sum(isinstance(p, (Dot1Q, Dot1AD)) for p in parts) > 2:
        return nothing
    ip = next(p for p in parts if isinstance(p, (IP, IPv6)))
    if ip.dst not in OURS:
        return nothing
    if isinstance(ip, IP) and (ip.flags.MF or ip.frag):
        return (FRAGMENT, 0, 0, b"") if ip.proto == 17 else nothing
    for i, p in enumerate(headers[:6]):
        if segments_left(p):
            return nothing
        if isinstance(p, IPv6ExtHdrFragment) and (p.m or p.offset):
            return (FRAGMENT, 0, 0, b"") if p.nh == 17 else nothing
    if len(headers) > 6:
        return nothing
    last = next(p for p in parts if isinstance(p, (UDP, TCP)))
    if last.dport != PORT:
        return nothing
    if isinstance(last, TCP):
        return TCP_SEGMENT, PORT, int(last.flags) & 0xFF, b""
    room = len(bytes(last)) - len(bytes(last[Padding])) if Padding in last else len(bytes(last))
    if not 8 <= last.len <= room:
        return LENGTH, PORT, 0, b""
    return DATAGRAM, PORT, 0, bytes(last)[8 : last.len]


with open(path, "wb") as f:
    for _ in range(count):
        kind, types, payload = message()
        data = frame(payload)
        what, port, flags, inner = seen(data)
        if what == DATAGRAM and inner != payload:
            raise SystemExit("scapy sees another payload than it was given")
        f.write(struct.pack("<IBHBHBB", len(data), what, port, flags, len(inner), kind, len(types)))
        f.write(bytes(types) + inner + data)
