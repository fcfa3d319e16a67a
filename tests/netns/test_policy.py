#!/usr/bin/python3
"""test_policy.py - the policy in the driver: changed under load, and exact in what it drops.

Every datagram is either taken or counted under a reason that a policy of that time allows; what
`sluice xdp policy test` says is what then happens.
"""
import os
import random
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from lab import (  # noqa: E402
    FULL, PORT, Background, Ids, Stream, XdpNode, admin, batch_bytes, book, committed, custom, drops, event_key,
    expect, expect_equal, field, lab, mac_bytes, number_field, ones_sum, quote, run, trade, wait_until)

ids = Ids()


def refused(account, reason):
    return account["events"]["reasons"].get(reason, 0)


# --- under load -----------------------------------------------------------------------------------


def churn():
    """hundreds of changes while datagrams flow: none is lost, and none is dropped for a reason that no policy
    of the time had"""
    with lab() as (p,):
        p.more_client_addresses(1)
        with XdpNode(p.server, [p], "native", ingest__xdp__ring=4096) as node:
            plain, v6, odd = p.udp(), p.udp(p.s6), p.udp(source="10.77.0.3")

            def step(i):
                plain.send(trade("churn", b"t%d" % i))
                v6.send(quote("churn", b"q%d" % i))
                plain.send(book("churn", b"b%d" % i))
                odd.send(custom("churn", b"c%d" % i))
                plain.send(batch_bytes([quote("churn", b"Q%d" % i), trade("churn", b"T%d" % i)]))

            node.set("type.news", "64")
            sender = Background(step, 0.001)
            changes = 300 if FULL else 60
            for k in range(changes):
                node.set("admit.quote", "drop" if k % 2 else "accept")
                node.set("class.orderbook", str(k % 4))
                node.set("class.trade", str(k % 3))
                node.set("source.10.77.0.3/32", "deny" if k % 3 == 0 else "allow")
                # Rules and limits that never bite.
                node.set("source.192.0.2.%d/32" % (k % 200), "deny")
                node.set("limit.source_per_s", str(1000000 + k))
                if k % 10 == 0:
                    node.cli("xdp", "policy", "set", "orderbook", "rate", str(1000000 + k), "burst", "1000000")
                if k % 10 == 5:
                    node.cli("xdp", "policy", "set", "orderbook", "accept")
                    node.cli("xdp", "policy", "set", "--shadow", "trade", "drop")
                    node.cli("xdp", "policy", "discard")
                    # The account balances at every moment.
                    a = node.json("ledger")
                    expect(a["balances"] and a["xdp"]["balance"] and a["xdp"]["rings"]["agree"], "it balances:", a)
                    expect(node.xdp()["balances"], "xdp status balances")
            n = sender.end()
            expect(n > changes, "datagrams were sent meanwhile:", n)
            a = node.seen(5 * n)
            gone = drops(a)
            expect(set(gone) <= {"type_dropped", "source_denied"}, "drops", gone)
            expect(gone["type_dropped"] > 0 and gone["source_denied"] > 0, "the policy did something:", gone)
            expect_equal(committed(a, 1), 2 * n, "trades")
            expect_equal(committed(a, 3), n, "order books")
            expect_equal(committed(a, 64) + gone["source_denied"], n, "of the source that was denied at times")
            # A batch of a quote and a trade is decided event by event.
            expect_equal(committed(a, 2) + gone["type_dropped"] + refused(a, "type_not_admitted"), 2 * n, "quotes")
            expect_equal(set(a["events"]["reasons"]) - {"type_not_admitted"}, set(), "reasons of events")


def whole():
    """two types that change places by one promote: a batch of both never loses both or keeps both, and in a
    stream of both each change shows once"""
    with lab() as (p,), XdpNode(p.server, [p], "native", ingest__xdp__ring=4096) as node:
        s = p.udp()
        # In one class: so they stay in their order.
        node.set("class.orderbook", "1")
        node.set("admit.quote", "drop")

        def step(i):
            s.send(batch_bytes([quote("pair", b"q%d" % i), book("pair", b"b%d" % i)]))
            s.send(quote("single", b"%d" % (2 * i)))
            s.send(book("single", b"%d" % (2 * i + 1)))

        sender = Background(step, 0.0005)
        swaps = 60 if FULL else 24
        for k in range(swaps):
            up, down = ("orderbook", "quote") if k % 2 == 0 else ("quote", "orderbook")
            node.set("shadow.admit." + up, "drop")
            node.set("shadow.admit." + down, "accept")
            before = sender.count()
            node.set("shadow", "promote")
            wait_until(lambda b=before: sender.count() > b + 3, "some under this policy", 20)
        n = sender.end()
        a = node.seen(3 * n)
        # Of each batch one event; of the stream of singles one of each pair, but at a change.
        pairs, singles = {}, set()
        for _, _, raw in node.tail():
            source, ident = event_key(raw)
            if source == "pair":
                pairs[ident[1:]] = pairs.get(ident[1:], 0) + 1
            else:
                singles.add(int(ident))
        expect_equal((len(pairs), set(pairs.values())), (n, {1}), "batches that lost one of two")
        expect_equal(refused(a, "type_not_admitted"), n, "refused, one of each batch")
        changed, last = 0, 1
        for i in range(2 * n):
            # What is admitted of the two: books (odd) first, then quotes, and so on.
            if (i in singles) != (i % 2 == last):
                changed, last = changed + 1, 1 - last
        expect_equal(changed, swaps, "changes that the stream shows")
        gone = drops(a)
        expect_equal(set(gone), {"type_dropped"}, "drops")
        expect_equal(gone["type_dropped"] + len(singles), 2 * n, "singles")


def restart():
    """what is set holds after a restart, from the first datagram on"""
    with lab() as (p,), XdpNode(p.server, [p], "native") as node:
        node.set("admit.quote", "drop")
        node.set("source.fd77::2/128", "deny")
        node.set("class.trade", "2")
        for _ in range(2 if FULL else 1):
            node.stop()
            s, v6 = p.udp(), p.udp(p.s6)

            def step(i):
                # Before there is a socket the kernel answers with an ICMP error: that is no failure here.
                for sock, make in ((s, quote), (v6, trade), (s, trade)):
                    try:
                        sock.send(make("restart", ids()))
                    except ConnectionRefusedError:
                        pass

            sender = Background(step, 0.001)
            node.start()
            wait_until(lambda: (node.look() or (0, {}, 0))[2] > 20, "trades are committed", 20)
            sender.end()
            seen = [None]

            def rest():
                now = node.look()
                same, seen[0] = now is not None and now == seen[0], now
                return same
            wait_until(rest, "nothing more comes", 20)
            a = node.ledger()
            node.consistent(a)
            expect_equal((committed(a, 2), set(drops(a))), (0, {"type_dropped", "source_denied"}), "quotes, drops")
            expect_equal(committed(a), committed(a, 1), "trades alone")
            expect_equal([c["redirected"] > 0 for c in node.xdp()["classes"]], [False, False, True, False], "class")


# --- what it drops --------------------------------------------------------------------------------


def shadow():
    """the shadow policy counts what it would have done and does nothing; promoted it does; discarded it is gone"""
    for mode in ("native", "socket"):
        with lab() as (p,), XdpNode(p.server, [p], mode) as node, p.udp() as s:
            sent = [0]

            def send(n, make):
                for _ in range(n):
                    s.send(make())
                sent[0] += n
                return node.seen(sent[0])

            node.set("admit.orderbook", "drop")
            send(5, lambda: quote("shadow", ids()))
            expect_equal(node.xdp()["shadow"], {"on": False, "taken": 0, "drops": {}, "eventsAdmitted": 0, "events": {}},
                         "without a shadow")
            node.cli("xdp", "policy", "set", "--shadow", "quote", "drop")
            node.cli("xdp", "policy", "set", "--shadow", "orderbook", "accept")
            node.cli("xdp", "policy", "set", "--shadow", "trade", "sample", "5")
            send(40, lambda: quote("shadow", ids()))
            send(30, lambda: book("shadow", ids()))
            send(25, lambda: trade("shadow", ids()))
            send(10, lambda: batch_bytes([quote("shadow", ids()), quote("shadow", ids())]))
            a = send(7, lambda: b"\x00")
            expect_equal(node.xdp()["shadow"],
                         {"on": True, "taken": 30, "drops": {"type_dropped": 50, "sampled_out": 20},
                          "eventsAdmitted": 0, "events": {"type_not_admitted": 20}}, "its counts")
            expect_equal(drops(a), {"type_dropped": 30, "not_protobuf": 7}, "drops")
            expect_equal(committed(a), 5 + 40 + 25 + 20, "committed")
            node.cli("xdp", "policy", "promote")
            expect_equal(node.xdp()["shadow"]["on"], False, "a shadow after it was promoted")
            send(11, lambda: quote("shadow", ids()))
            a = send(13, lambda: book("shadow", ids()))
            expect_equal((drops(a)["type_dropped"], committed(a, 3)), (41, 13), "in force")
            node.set("shadow.admit.orderbook", "drop")
            node.cli("xdp", "policy", "discard")
            send(5, lambda: book("shadow", ids()))
            x = node.xdp()["shadow"]
            expect_equal((x["on"], x["taken"], x["drops"].get("type_dropped")), (False, 0, None), "after discard")
            node.cli("xdp", "policy", "set", "--shadow", "orderbook", "drop")
            send(3, lambda: book("shadow", ids()))
            expect_equal(node.xdp()["shadow"],
                         {"on": True, "taken": 0, "drops": {"type_dropped": 3}, "eventsAdmitted": 0, "events": {}},
                         "a new shadow's counts")


def sampling():
    """one in N is exactly that, by the driver, by batches and by the kernel's way together"""
    for mode in ("native", "generic", "socket") if FULL else ("native", "socket"):
        with lab() as (p,), XdpNode(p.server, [p], mode) as node, p.udp() as s, p.udp(p.s6) as s6:
            node.set("admit.quote", "sample 7")
            for _ in range(100):
                s.send(quote("sample", ids()))
                s6.send(quote("sample", ids()))
            for _ in range(20):
                s.send(batch_bytes([quote("sample", ids()) for _ in range(5)]))
            for _ in range(4):
                s.send(quote("sample", ids()) + field(99, b"x" * 3000))  # fragments
            sent = 224
            a = node.seen(sent)
            # 200 + 100 + 4 events, each of which took one turn.
            expect_equal(committed(a, 2), (304 + 6) // 7, mode + ": committed")
            expect_equal(drops(a).get("sampled_out", 0) + refused(a, "sampled_out"), 304 - committed(a, 2), mode)
            node.set("admit.quote", "accept")


def rates():
    """a rate takes its burst and what time adds, of its type alone; a source's limit is that source's alone"""
    for mode in ("native", "socket"):
        with lab() as (p,):
            p.more_client_addresses(2)
            with XdpNode(p.server, [p], mode) as node:
                node.set("admit.quote", "rate 1 burst 50")
                begun = time.monotonic()
                with p.udp() as s:
                    for i in range(200):
                        s.send(quote("rate", ids()))
                        s.send(trade("rate", ids()))
                    a = node.seen(400)
                    took = committed(a, 2)
                    expect(50 <= took <= 51 + time.monotonic() - begun, "quotes that were taken:", took)
                    expect_equal(drops(a), {"type_rate": 200 - took}, "drops")
                    expect_equal(committed(a, 1), 200, "trades")
                node.set("limit.source_burst", "20")
                node.set("limit.source_per_s", "1")
                begun = time.monotonic()
                for source, n in (("10.77.0.3", 100), ("10.77.0.4", 15), ("fd77:0::3", 60), ("10.77.0.3", 10),
                                  ("fd77:0::4", 15)):
                    with p.udp(p.s6 if ":" in source else p.s4, source=source) as s:
                        for _ in range(n):
                            s.send(trade("rate", ids()))
                        # Of no use, and so at nobody's expense.
                        s.send(b"\x00")
                a = node.seen(400 + 205)
                took = committed(a, 1) - 200
                most = 2 * (20 + time.monotonic() - begun + 1) + 30
                expect(20 + 20 + 30 <= took <= most, "taken of all sources:", took, "of at most", most)
                expect_equal(drops(a)["source_rate"], 200 - took, "over the limit")
                expect_equal(drops(a)["not_protobuf"], 5, "junk")
                if mode == "native":
                    top = {s.address: (s.taken, s.dropped) for s in sources(node)}
                    for quiet in ("10.77.0.4", "fd77::4"):
                        expect_equal(top[quiet], (15, 0), quiet)
                    expect_equal(sum(t for t, _ in top.values()), took, "taken, by source")
                    expect_equal(sum(d for _, d in top.values()), 200 - took, "dropped, by source")


def sources(node):
    for response in node.ask(admin.AdminRequest(xdp_status=admin.XdpStatusRequest(sources=True))):
        expect(not response.error, response.error)
        return response.xdp_status.sources
    raise EOFError


def syn_frame(p, sport, source=None, flags=2):
    src, dst = socket.inet_aton(source or p.c4), socket.inet_aton(p.s4)
    tcp = struct.pack("!HHIIBBHHH", sport, PORT, 1, 0, 0x50, flags, 1024, 0, 0)
    sum_ = 0xFFFF - ones_sum(src + dst + struct.pack("!BBH", 0, 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", sum_) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + src + dst
    ip = ip[:10] + struct.pack("!H", 0xFFFF - ones_sum(ip)) + ip[12:]
    return mac_bytes(p.smac) + mac_bytes(p.cmac) + b"\x08\x00" + ip + tcp


def connections():
    """SYNs over a source's rate are dropped, a denied source's segments all; others connect as before"""
    for mode in ("native", "generic") if FULL else ("native",):
        with lab() as (p,):
            p.more_client_addresses(2)
            with XdpNode(p.server, [p], mode) as node, p.raw() as raw:
                node.set("limit.syn_burst", "5")
                node.set("limit.syn_per_s", "1")
                begun = time.monotonic()
                for i in range(40):
                    raw.send(syn_frame(p, 20000 + i, "10.77.0.9"))
                # What is no SYN is none of its business.
                for i in range(10):
                    raw.send(syn_frame(p, 21000 + i, "10.77.0.9", flags=0x10))
                def counted():
                    i = node.interface(p.s)
                    return i if i["tcpPassed"] + i["tcpSynRate"] >= 50 else None
                i = wait_until(counted, "50 segments", 20)
                passed = i["tcpPassed"] - 10
                expect(5 <= passed <= 6 + time.monotonic() - begun, "SYNs that passed:", passed)
                expect_equal(i["tcpSynRate"], 40 - passed, "SYNs over the rate")
                with p.client.inside():
                    Stream(PORT, p.s4).close()
                before = node.interface(p.s)["tcpDenied"]
                with p.client.inside():
                    stream = Stream(PORT, p.s4)
                node.set("source.10.77.0.2/32", "deny")
                for i in range(10):
                    raw.send(syn_frame(p, 22000 + i))
                stream.send(b"\0" * 10)
                wait_until(lambda: node.interface(p.s)["tcpDenied"] >= before + 11, "denied segments", 20)
                with p.client.inside():
                    Stream(PORT, p.s6).close()
                stream.close()
                node.set("source.10.77.0.2/32", "")
                with p.client.inside():
                    Stream(PORT, p.s4, timeout=30).close()


# --- foretold -------------------------------------------------------------------------------------


def random_event(r):
    number = r.choice((0, 1, 1, 2, 2, 3, 3, 64, 65, 99, 127, 128, 300))
    if number in (1, 2, 3):
        e = (trade, quote, book)[number - 1]("foretold", ids())
    else:
        e = custom("foretold", ids(), number)
    if r.random() < 0.15:
        e = e[:r.randrange(1, len(e))]
    if r.random() < 0.1:
        e = e[2:] + e[:2]
    return e


def random_datagram(r):
    kind = r.random()
    if kind < 0.4:
        return random_event(r)
    if kind < 0.8:
        body = batch_bytes([random_event(r) for _ in range(r.choice((1, 1, 2, 3, 5, 15)))])
        if r.random() < 0.2:
            body = field(2, b"producer") + body
        if r.random() < 0.2:
            body += r.choice((field(2, b"p"), number_field(3, 77), field(5, b"?"), b"\x0a\x7f", b"\x0a", b"\x21"))
        return body
    if kind < 0.9:
        return bytes(r.randrange(256) for _ in range(r.randrange(40)))
    data = bytearray(random_event(r) if r.random() < 0.5 else batch_bytes([random_event(r), random_event(r)]))
    for _ in range(r.randrange(1, 4)):
        if data:
            data[r.randrange(len(data))] = r.randrange(256)
    return bytes(data)


def foretold():
    """what `policy test` says of hundreds of datagrams under several policies is what happens to them: verdict,
    reason and class"""
    seed = random.SystemRandom().randrange(1 << 32)
    r = random.Random(seed)
    names = {1: "trade", 2: "quote", 3: "orderbook", 64: "news", 65: "other"}
    hosts = ["10.77.0.2", "10.77.0.3", "fd77:0::2", "fd77:0::3"]
    for mode in ("native", "generic", "socket") if FULL else ("native", "socket"):
        with lab() as (p,):
            p.more_client_addresses(1)
            with XdpNode(p.server, [p], mode) as node:
                node.set("type.news", "64")
                node.set("type.other", "65")
                sockets = {h: p.udp(p.s6 if ":" in h else p.s4, source=h) for h in hosts}
                sent, total, classes = 0, {}, [0] * 4
                for _ in range(12 if FULL else 5):
                    for name in names.values():
                        node.set("admit." + name, r.choice(("accept", "accept", "drop")))
                        node.set("class." + name, str(r.randrange(4)))
                    denied = r.sample(hosts, 1)[0]
                    key = "source.%s/%d" % (denied, 128 if ":" in denied else 32)
                    node.set(key, "deny")
                    said, unwalked = [], 0
                    for _ in range(100 if FULL else 40):
                        host, data = r.choice(hosts), random_datagram(r)
                        t = node.policy_test(data, host)
                        said.append((t.verdict, t.reason, data.hex()[:60]))
                        unwalked += t.verdict == "by event" and not t.complete
                        if t.verdict == "drop":
                            total[t.reason] = total.get(t.reason, 0) + 1
                        else:
                            classes[getattr(t, "class")] += 1
                        sockets[host].send(data)
                        sent += 1
                    _, now, _ = node.settled(sent)
                    # What is behind the steps of the driver's walk may be nonsense: the worker finds out.
                    late = now.get("batch_malformed", 0) - total.get("batch_malformed", 0)
                    expect(0 <= late <= unwalked, "batches that turned out to be malformed:", late, "of", unwalked)
                    total["batch_malformed"] = now.get("batch_malformed", 0)
                    expect_equal(now, {k: v for k, v in total.items() if v}, "%s, seed %d: drops after\n%s" % (
                        mode, seed, "\n".join(map(repr, said))))
                    node.set(key, "")
                if mode != "socket":
                    expect_equal([c["redirected"] for c in node.xdp()["classes"]], classes,
                                 "%s, seed %d: by class" % (mode, seed))
                node.seen(sent)


if __name__ == "__main__":
    run([churn, whole, restart, shadow, sampling, rates, connections, foretold])
