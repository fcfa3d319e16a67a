#!/usr/bin/python3
"""test_tap.py - `sluice tap --dropped`: for every reason the right datagram, from the right place, and no count is
another for it.
"""
import json
import os
import socket
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from lab import (  # noqa: E402
    BIN, SOL_UDP, UDP_SEGMENT, Background, Ids, XdpNode, admin, batch_bytes, book, custom, drops, expect,
    expect_equal, field, frame, frames, lab, run, quote, trade, varint, wait_until)

ids = Ids()


class Tap:
    """A tap by the admin socket. It is on when this returns: the admin thread has answered twice since."""

    def __init__(self, node, *reasons):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(20)
        self.s.connect(node.socket)
        data = admin.AdminRequest(tap=admin.TapRequest(reasons=reasons, follow=True)).SerializeToString()
        self.s.sendall(varint(len(data)) + data)
        self.frames = frames(self.s)
        node.status()
        node.status()

    def next(self):
        for data in self.frames:
            r = admin.AdminResponse.FromString(data)
            expect(not r.error, "tap:", r.error)
            if r.HasField("tap_sample"):
                return r.tap_sample
        raise EOFError

    def rest(self):
        """What comes within a second."""
        out, self.s = [], self.s
        self.s.settimeout(1)
        try:
            while True:
                out.append(self.next())
        except TimeoutError:
            return out

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()


def check(sample, p, reason, payload, in_kernel, source):
    what = "%s of %s" % (reason, payload[:20].hex())
    expect_equal(sample.reason, reason, what)
    expect_equal(sample.in_kernel, in_kernel, what + ": in the kernel")
    expect_equal(sample.source, source, what + ": source")
    expect(abs(sample.time_ns - time.time_ns()) < 30e9, what + ": time")
    if in_kernel:
        expect_equal(sample.interface, p.s, what + ": interface")
        expect_equal(sample.queue, 0, what + ": queue")


def reasons():
    """for each reason there is a sample of the datagram that was dropped for it, and none of any other"""
    many = batch_bytes([field(2, b"x")] * 1100)
    for mode in ("native", "socket"):
        with lab() as (p,):
            p.more_client_addresses(1)
            with XdpNode(p.server, [p], mode) as node:
                node.set("type.news", "64")
                node.set("admit.orderbook", "drop")
                node.set("admit.quote", "sample 1000000")
                node.set("admit.news", "rate 1 burst 1")
                node.set("source.10.77.0.3/32", "deny")
                cases = [
                    ("source_denied", trade("tap", ids()), "10.77.0.3"),
                    ("empty", b"", None),
                    ("not_protobuf", b"\xfe\xff not protobuf", None),
                    # Looks like a frame with a datagram from where headers are looked for.
                    ("not_protobuf", b"\x01" * 12 + b"\x08\x00\x45" + b"\0" * 8 + b"\x11" + b"\0" * 60, None),
                    ("event_malformed", b"\x08\x01\x12\x7fshort", None),
                    ("batch_malformed", b"\x0a\x7fshort", None),
                    ("type_unknown", custom("tap", ids(), 99), None),
                    ("type_dropped", book("tap", ids()), None),
                    ("sampled_out", quote("tap", ids()), None),
                    ("type_rate", custom("tap", ids()), None),
                    ("batch_too_large", many, None),
                ]
                sent, wanted = 0, {}
                with p.udp() as s:
                    # The first of these is taken.
                    for make in (quote, custom):
                        s.send(make("tap", ids()))
                        sent += 1
                    node.settled(sent)
                    for reason, payload, source in cases:
                        with Tap(node, reason) as tap, p.udp(source=source) as own:
                            for other in (b"\xfd", b"", trade("tap", ids()), book("tap", ids())):
                                s.send(other)
                            own.send(payload)
                            sent += 5
                            for k in ("not_protobuf", "empty", "type_dropped", reason):
                                wanted[k] = wanted.get(k, 0) + 1
                            host, port = own.getsockname()[:2]
                            in_kernel = mode != "socket" and len(payload) < 1400
                            data = b"\xfd" if reason == "not_protobuf" else b"" if reason == "empty" else payload
                            first = tap.next()
                            if reason in ("not_protobuf", "empty", "type_dropped"):
                                first = tap.next()
                                data = payload
                            check(first, p, reason, data, in_kernel, "%s:%d" % (host, port))
                            body = first.data[14 + 28:] if in_kernel else first.data
                            expect_equal(body, payload[:len(body)], reason + ": payload")
                            expect(len(body) == len(payload) or len(first.data) == 256, reason + ": length", len(body))
                            expect_equal(first.frame_bytes, len(payload) + (42 if in_kernel else 0), "length")
                    node.set("limit.source_burst", "1")
                    node.set("limit.source_per_s", "1")
                    with Tap(node, "source_rate") as tap:
                        for k in range(5):
                            s.send(trade("tap", ids(), k))
                        sent += 5
                        check(tap.next(), p, "source_rate", b"", mode != "socket", "%s:%d" % s.getsockname()[:2])
                _, now, _ = node.settled(sent)
                rated = now.pop("source_rate")
                expect(1 <= rated <= 5, "source_rate", rated)
                expect_equal(now, wanted, mode + ": drops")
                node.seen(sent)


def headers():
    """samples of what only frames by hand can be: lengths, checksums, tags, impossible sources"""
    with lab() as (p,), XdpNode(p.server, [p], "native", ingest__xdp__checksum="always") as node, p.raw() as raw:
        event = trade("tap", ids())
        cases = [
            ("length", frame(p, event, udp_bytes=7), "10.77.0.2:40000", True),
            ("length", frame(p, event, udp_bytes=2000, to=p.s6), "[fd77::2]:40000", True),
            ("checksum", frame(p, event, checksum=0x1234), "10.77.0.2:40000", False),
            ("checksum", frame(p, event, checksum=0x1234, to=p.s6), "[fd77::2]:40000", False),
            # Behind what the driver looks at: by the worker, from the ring.
            ("batch_malformed", frame(p, batch_bytes([event] * 17) + b"\x0a\x7f"), "10.77.0.2:40000", False),
            ("source_denied", frame(p, event, source="127.0.0.1"), "127.0.0.1:40000", True),
            ("not_protobuf", frame(p, b"\xffjunk", tags=[(0x88A8, 7), (0x8100, 5)]), "10.77.0.2:40000", True),
            ("not_protobuf", frame(p, b"\xff" * 1000), "10.77.0.2:40000", True),
        ]
        with Tap(node) as tap:
            for n, (reason, data, source, in_kernel) in enumerate(cases):
                raw.send(data)
                sample = tap.next()
                check(sample, p, reason, data, in_kernel, source)
                expect_equal(sample.interface, p.s, reason + ": interface")
                expect_equal(sample.data, data[:256], reason + ": the frame")
                expect_equal(sample.frame_bytes, len(data), reason + ": length")
                node.settled(n + 1)


def cli(node, *args):
    return subprocess.Popen([os.path.join(BIN, "sluice"), "tap", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=dict(os.environ, SLUICE_SOCKET=node.socket))


def command():
    """the command: as JSON, for people, its payload, one at a time, and reasons that there are not"""
    with lab() as (p,), XdpNode(p.server, [p], "native") as node, p.udp() as s:
        sent = 0
        for args in (["--json"], []):
            tap = cli(node, "--dropped", "type_unknown", "--count", "5", *args)

            def done():
                nonlocal sent
                s.send(custom("tap", b"id", 99))
                s.send(b"\xff")
                sent += 2
                return tap.poll() is not None
            wait_until(done, "five samples", 20)
            out = tap.stdout.read()
            expect_equal(tap.returncode, 0, "exit code; " + tap.stderr.read())
            if args:
                rows = [json.loads(line) for line in out.splitlines()]
                expect_equal(len(rows), 5, "samples")
                for row in rows:
                    expect_equal((row["reason"], row["interface"], row["inKernel"]), ("type_unknown", p.s, True), "row")
                    expect_equal(custom_type(bytes.fromhex(row["payload"])), 99, "the payload's type")
            else:
                expect_equal(out.count("type_unknown " + p.s + " queue 0 10.77.0.2:"), 5, out)
                expect("08 63" in out, "a dump of it:", out)
        with Tap(node):
            second = cli(node, "--dropped", "all", "--count", "1")
            out, err = second.communicate(timeout=20)
            expect(second.returncode != 0 and "tap" in err, "a second tap:", second.returncode, out, err)
        wrong = cli(node, "--dropped", "nonsense", "--count", "1")
        out, err = wrong.communicate(timeout=20)
        expect(wrong.returncode != 0 and "not_protobuf" in err, "an unknown reason:", err)
        a = node.seen(sent)
        expect_equal(drops(a), {"type_unknown": sent // 2, "not_protobuf": sent // 2}, "drops")


def lookalike():
    """what came by a socket is shown as it is, also when it looks like a frame with a datagram in it"""
    with lab() as (p,), XdpNode(p.server, [p], "socket") as node, p.udp() as s:
        inner = b"\xff" + frame(p, trade("tap", ids()))[1:]
        tap = cli(node, "--dropped", "not_protobuf", "--count", "1", "--json")

        def done():
            s.send(inner)
            return tap.poll() is not None
        wait_until(done, "a sample", 20)
        expect_equal(json.loads(tap.stdout.read())["payload"], inner.hex(), "payload")


def custom_type(payload):
    expect_equal(payload[0], 8, "first byte")
    return payload[1]


def flood():
    """under a flood samples are limited in number, and the counts are as exact as without"""
    for mode in ("native", "socket"):
        with lab() as (p,), XdpNode(p.server, [p], mode) as node, p.udp() as s:
            train = b"".join(b"\xff%09d" % k for k in range(50))

            def step(_):
                s.sendmsg([train], [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", 10))])

            with Tap(node, "not_protobuf") as tap:
                begun = time.monotonic()
                sender = Background(step, 0.0002, nice=10)
                n = 0
                while time.monotonic() - begun < 1.5:
                    sample = tap.next()
                    n += 1
                    expect_equal(sample.reason, "not_protobuf", "reason")
                sent = sender.end() * 50
                n += len(tap.rest())
                most = 100 + 1000 * (time.monotonic() - begun) + 10
            expect(100 <= n <= most, "samples:", n, "of at most", most)
            expect(sent > 2 * n, "more was dropped than sampled:", sent, n)
            if mode == "native":
                sent -= p.lost()
                a = node.seen(sent)
                expect_equal(drops(a), {"not_protobuf": sent}, "drops")
            # A tap that nobody reads holds nobody up.
            with Tap(node, "not_protobuf"):
                more = Background(step, 0.0002, nice=10)
                wait_until(lambda: more.count() > 1500, "a flood that nobody reads of", 20)
                expect_equal(node.status().role, "leader", "it answers")
                sent += more.end() * 50
            if mode == "native":
                sent -= p.lost()
                a = node.seen(sent)
                expect_equal(drops(a), {"not_protobuf": sent}, "drops")


if __name__ == "__main__":
    run([reasons, headers, command, lookalike, flood])
