#!/usr/bin/python3
"""test_fallback.py - XDP where it cannot be had, and where it is taken away: the node goes on with what there
is, says why, and loses nothing that it does not count.
"""
import contextlib
import os
import signal
import socket
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from lab import (  # noqa: E402
    BIN, FULL, PORT, WORK, Ids, XdpNode, batch_bytes, committed, drops, expect, expect_equal, frame, idle, lab,
    run, trade, wait_until)

ids = Ids()
OURS = os.path.join(BIN, "bpf", "ingress.bpf.o")


def send(p, n, to=None):
    with p.udp(to) as s:
        for i in range(n):
            s.send(trade("fallback", ids(), i))
    return n


def both(p, n):
    return send(p, n) + send(p, n, p.s6)


def noted(node, name, mode, *words):
    """An interface's mode, and that status, log and xdp status say why."""
    i = node.interface(name)
    expect_equal(i["mode"], mode, "mode of " + name)
    for word in words:
        expect(word in i["note"], "xdp status says", repr(word), "of", name, "but:", i["note"])
        expect(any(word in n and name in n for n in node.status().notes), "status says", repr(word), "but:",
               node.status().notes)
        expect(word in node.stderr(100), "the log says", repr(word), "but:", node.stderr(100))
    return i


def unfit():
    """where native cannot be had, native gives sockets and auto what is right, each with the reason: loopback, a
    bridge, an MTU or a sender's MTU that is too large, fewer queues than the sender has"""
    cases = [
        (dict(), "lo", "loopback", None),
        (dict(), "br0", "the driver cannot do that", "the driver cannot do that"),
        (dict(queues=1, client_queues=4), None, "queues", "queues"),
    ]
    for options, name, auto, native in cases:
        with lab(**options) as (p,):
            if name == "br0":
                p.server.run("ip link add br0 type bridge")
                p.server.run("ip addr add 10.77.9.1/24 dev br0")
                p.server.run("ip link set br0 up")
            if not FULL and name == "br0":
                continue
            name = name or p.s
            for mode, words in (("auto", [auto]), ("native", [native or auto])) if FULL else (("auto", [auto]),):
                if mode == "auto" and name not in ("lo",):
                    words.append("no generic XDP on a virtual interface")
                with XdpNode(p.server, [p], mode, ingest__xdp__interfaces="[%s]" % name) as node:
                    noted(node, name, "socket", *words)
                    a = node.seen(both(p, 20))
                    expect_equal(committed(a), 40, "committed")
                    local = p.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    for _ in range(10):
                        local.sendto(trade("fallback", ids()), (p.s4, PORT))
                    local.close()
                    expect_equal(committed(node.seen(50)), 50, "committed, with those from this host")


def peer_mtu():
    """that the sender's MTU is what the driver refuses is said in words"""
    with lab(mtu=9000) as (p,):
        p.server.run("ip link set %s mtu 1500" % p.s)
        with XdpNode(p.server, [p], "native") as node:
            noted(node, p.s, "socket", "MTU")


def deleted():
    """an interface that does not exist is said not to; one that is deleted while it runs is said to be gone and
    does not keep the node busy; the other one goes on"""
    with lab(pairs=2) as (p, q), XdpNode(p.server, [p, q], "native", ingest__address="[0.0.0.0, '::']",
                                         ingest__xdp__interfaces="[nosuch0, s0, s1]") as node:
        noted(node, "nosuch0", "socket", "there is no interface nosuch0")
        expect_equal(node.xdp()["mode"], "native", "the best mode")
        sent = both(p, 50) + both(q, 50)
        node.seen(sent)
        p.server.run("ip link del " + p.s)
        wait_until(lambda: not node.interface(p.s)["attached"], "status says so", 10)
        expect("no longer attached" in node.interface(p.s)["note"], node.interface(p.s)["note"])
        idle(node, "the node sleeps")
        sent += both(q, 100)
        a = node.seen(sent)
        expect_equal((committed(a), drops(a)), (400, {}), "committed and drops")
        expect_equal(node.interface(q.s)["redirected"], 300, "by the other's rings")
        expect_equal(node.interface(p.s)["redirected"], 100, "by the rings of the one that is gone")
        idle(node, "the node sleeps after traffic")


def flapping():
    """an interface that goes down and comes back is used as before"""
    with lab() as (p,), XdpNode(p.server, [p], "native") as node:
        sent = both(p, 50)
        node.seen(sent)
        for _ in range(3):
            p.server.run("ip link set %s down" % p.s)
            p.server.run("ip link set %s up" % p.s)
            # IPv6 addresses go with the link.
            p.server.try_run("ip addr add %s/64 dev %s nodad" % (p.s6, p.s))
            p.neighbours()
            wait_until(lambda: "LOWER_UP" in p.client.run("ip link show " + p.c), "the link is up", 10)
            before = node.interface(p.s)["redirected"]
            sent += send(p, 50)
            node.seen(sent)
            expect_equal(node.interface(p.s)["redirected"] - before, 50, "redirected")
        wait_until(lambda: node.interface(p.s)["attached"], "it is attached", 10)
        idle(node, "the node sleeps")
        node.seen(sent)


def renumbered():
    """another MAC address, more queues and another name while it runs cost no datagram"""
    with contextlib.ExitStack() as stack:
        p, = stack.enter_context(lab(queues=4))
        p.client.run("ethtool -L %s rx 1 tx 1" % p.c)
        p.server.run("ethtool -L %s rx 1 tx 1" % p.s)
        node = stack.enter_context(XdpNode(p.server, [p], "native"))
        expect_equal(node.interface(p.s)["queues"], 1, "queues")
        sent = both(p, 20)
        node.seen(sent)
        p.smac = "02:00:00:00:00:77"
        p.server.run("ip link set %s address %s" % (p.s, p.smac))
        p.neighbours()

        def by_ring():
            nonlocal sent
            before = node.interface(p.s)["redirected"]
            sent += send(p, 5)
            node.seen(sent)
            return node.interface(p.s)["redirected"] > before
        wait_until(by_ring, "datagrams to the new MAC address come by the ring", 20)
        # What comes by a queue that was not there goes the kernel's way.
        p.server.run("ethtool -L %s rx 4 tx 4" % p.s)
        p.client.run("ethtool -L %s rx 4 tx 4" % p.c)
        for _ in range(24):
            sent += send(p, 5)
        node.seen(sent)
        expect(node.interface(p.s)["redirected"] < sent, "some came by other queues")
        p.server.run("ip link set %s down" % p.s)
        p.server.run("ip link set %s name other0" % p.s)
        p.server.run("ip link set other0 up")
        name, p.s = p.s, "other0"
        p.neighbours()
        wait_until(lambda: "LOWER_UP" in p.client.run("ip link show " + p.c), "the link is up", 10)
        sent += send(p, 20)
        a = node.seen(sent)
        expect_equal((drops(a), committed(a)), ({}, sent), "drops and committed")
        idle(node, "the node sleeps")
        expect(node.interface(name)["attached"], "it is still attached")


def down():
    """an interface that is down when the node starts is taken up with what there is, and the reason is said"""
    with lab() as (p,):
        p.server.run("ip link set %s down" % p.s)
        with XdpNode(p.server, [p], "native", ingest__address="[0.0.0.0, '::']") as node:
            i = node.interface(p.s)
            p.server.run("ip link set %s up" % p.s)
            p.neighbours()
            wait_until(lambda: "LOWER_UP" in p.client.run("ip link show " + p.c), "the link is up", 10)
            a = node.seen(send(p, 50))
            expect_equal((drops(a), committed(a)), ({}, 50), "drops and committed")
            if a["xdp"]["redirected"] == 0:
                expect("down" in i["note"], "the note says why there are no rings:", i["note"])


def detached():
    """a program that somebody detaches is missed within a second or two; datagrams then come by the sockets"""
    with lab() as (p,), XdpNode(p.server, [p], "native") as node:
        sent = both(p, 20)
        node.seen(sent)
        # With a link the kernel does not let `ip` do that.
        p.server.try_run("ip link set %s xdp off" % p.s)
        expect(p.server.program(p.s) is not None, "ip link set xdp off has no effect on a link")
        links = p.server.run("bpftool link show")
        link = next(line.split(":")[0] for line in links.splitlines()
                    if "prog %d" % node.interface(p.s)["programId"] in line)
        p.server.run("bpftool link detach id " + link)
        expect_equal(p.server.program(p.s), None, "the program")
        sent += both(p, 20)
        a = node.seen(sent)
        expect_equal((committed(a), a["xdp"]["redirected"]), (80, 40), "committed, and redirected before")
        wait_until(lambda: not node.interface(p.s)["attached"], "status says so", 10)
        i = node.interface(p.s)
        expect("no longer attached" in i["note"], i["note"])
        expect_equal(node.xdp()["mode"], "socket", "the mode in use")
        idle(node, "the node sleeps")


def theirs():
    """somebody else's program is left alone, in every mode, and that is said"""
    with lab() as (p,):
        for flag, shown in (("xdpdrv", "native"), ("xdpgeneric", "generic")) if FULL else (("xdpdrv", "native"),):
            other = other_program(p, flag)
            expect_equal(other[0], shown, "the other's program")
            for mode in ("auto", "native", "generic") if FULL else ("native" if flag == "xdpdrv" else "generic",):
                with XdpNode(p.server, [p], mode) as node:
                    noted(node, p.s, "socket", "another program is attached there")
                    a = node.seen(both(p, 10))
                    expect_equal(committed(a), 20, "committed")
                expect_equal(p.server.program(p.s), other, "the other's program, afterwards")
            p.server.run("ip link set %s %s off" % (p.s, flag))


TINY = """
#include <linux/bpf.h>
__attribute__((section("xdp"), used)) int pass_all(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] __attribute__((section("license"), used)) = "GPL";
"""


def other_program(p, flag):
    """A program that is not ours, without a link, as `ip` attaches it."""
    path = os.path.join(WORK, "tiny.bpf")
    if not os.path.exists(path + ".o"):
        with open(path + ".c", "w", encoding="ascii") as f:
            f.write(TINY)
        machine = os.uname().machine
        p.server.run("clang -O2 -target bpf -I/usr/include/%s-linux-gnu -c %s.c -o %s.o" % (machine, path, path))
    p.server.run("ip link set dev %s %s obj %s.o sec xdp" % (p.s, flag, path))
    return p.server.program(p.s)


def stale():
    """a program of ours that was left behind without a link is taken over, whichever mode it was in"""
    for flag, mode in (("xdpgeneric", "native"), ("xdpdrv", "generic"), ("xdpdrv", "native"),
                       ("xdpgeneric", "generic")):
        if FULL or flag == "xdpgeneric" and mode == "native":
            with lab() as (p,):
                p.server.run("ip link set dev %s %s obj %s sec xdp" % (p.s, flag, OURS))
                before = p.server.program(p.s)
                expect(before is not None, "the stale program is there")
                with XdpNode(p.server, [p], mode) as node:
                    # Generic says what it cannot tell apart.
                    i = noted(node, p.s, mode, *["UDP_SEGMENT"] * (mode == "generic"))
                    expect(i["programId"] != before[1], "a program of its own")
                    expect_equal(p.server.program(p.s), (mode, i["programId"]), "what is attached")
                    a = node.seen(both(p, 20))
                    expect_equal(a["xdp"]["redirected"], 40, "redirected")
                expect_equal(p.server.program(p.s), None, "the program after the end")


def killed():
    """killed, it is detached at once, and the next start attaches; with SIGTERM what was taken is committed"""
    with lab() as (p,):
        node = XdpNode(p.server, [p], "native")
        node.start()
        try:
            both(p, 100)
            node.seen(200)
            node.kill()
            expect_equal(p.server.program(p.s), None, "the program after kill -9")
            node.start()
            noted(node, p.s, "native")
            # What was counted in the last moments before the kill is lost; from here on it is not.
            before = node.ledger()
            with p.udp() as s:
                for i in range(500):
                    s.send(batch_bytes([trade("stop", ids(), i)]))
                node.process.send_signal(signal.SIGTERM)
                for i in range(500):
                    s.send(batch_bytes([trade("stop", ids(), i)]))
            expect_equal(node.ended(), 0, "exit code")
            expect_equal(p.server.program(p.s), None, "the program after SIGTERM")
            events = node.verify()["events"]
            node.start()
            a = node.ledger()
            # Each of the first 500 is committed or counted; of the others some came when nobody listened.
            seen = a["datagrams"]["seen"] - before["datagrams"]["seen"]
            stopping = a["datagrams"]["drops"]["stopping"]
            expect(500 <= seen <= 1000, "datagrams seen of the second run:", seen)
            expect_equal(set(drops(a)) - {"stopping"}, set(), "drops")
            expect_equal(events, a["log"]["events"], "events in the log")
            expect_equal(events - 200 + stopping, seen, "committed or counted")
            node.stop()
        finally:
            if node.process and node.process.poll() is None:
                node.kill()


def second():
    """a second daemon leaves the first one's interface alone, says so, and takes its datagrams by sockets"""
    with lab() as (p,), XdpNode(p.server, [p], "native") as first:
        with XdpNode(p.server, [p], "auto", ingest__port=PORT + 1) as other:
            noted(other, p.s, "socket", "another program is attached there")
            sent = both(p, 20)
            with p.udp(port=PORT + 1) as s:
                for _ in range(30):
                    s.send(trade("second", ids()))
            expect_equal(committed(first.seen(sent)), 40, "the first one's")
            expect_equal(committed(other.seen(30)), 30, "the second one's")
        expect_equal(p.server.program(p.s), ("native", first.interface(p.s)["programId"]), "the first one's program")
        expect_equal(first.seen(sent + both(p, 10))["xdp"]["redirected"], 60, "redirected")


def loopback_addresses():
    """what comes from outside to a loopback address is not taken, as the kernel would not"""
    for address in ("[127.0.0.1, '::1']", "[0.0.0.0, '::']") if FULL else ("[0.0.0.0, '::']",):
        with lab() as (p,), XdpNode(p.server, [p], "native", ingest__address=address) as node, p.raw() as raw:
            for _ in range(5):
                raw.send(frame(p, trade("inside", ids()), to="127.0.0.1"))
                raw.send(frame(p, trade("inside", ids()), to="127.0.0.77"))
                raw.send(frame(p, trade("inside", ids()), to="::1", source=p.c6))
            sent = both(p, 5) if address.startswith("[0") else 0
            a = node.seen(sent)
            expect_equal(committed(a), sent, "committed")


if __name__ == "__main__":
    run([unfit, peer_mtu, deleted, flapping, renumbered, down, detached, theirs, stale, killed, second,
         loopback_addresses])
