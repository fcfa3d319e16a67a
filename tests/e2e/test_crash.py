#!/usr/bin/python3
"""test_crash.py - kill -9 under load, again and again: while events come, while the node starts, while a
segment ends and the next begins, while indexes are written.

Two recording clients of our own making, and `sluice send` with libsluice, send all the time, reconnect,
and send again what has no receipt. Whenever the node is back:
  - every event with a receipt is where its receipt says, with the bytes that were sent;
  - no (source, id) is in the log twice, and nothing that nobody sent;
  - the events of a client are in the order of its sending;
  - every setting that was confirmed is in the history, in order;
  - the log verifies offline, before the start (where a torn tail is no finding) and at the end.
"""
import os
import random
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from recorder import Recorder, all_have_receipts, receipts  # noqa: E402
from sluice_node import BIN, FULL, Failed, Node, ev, expect, expect_equal, main, wait_until  # noqa: E402

ROUNDS = 100 if FULL else 8
seed = int(os.environ.get("SLUICE_SEED", time.time_ns() % 100000))
chance = random.Random(seed)
print("seed %d (SLUICE_SEED repeats the choices, not the timing)" % seed)

node = Node("crash", ingest__workers=2, log__segment_bytes="1MiB", dedupe__memory_bytes_max="16MiB",
            ledger__save_ms=20)


recorders = [Recorder("crash-%d" % n, lambda: node.port, seed) for n in range(2)]
settings = []  # confirmed values of skew.past_ms, in order


def load(on):
    for r in recorders:
        if on:
            r.go.set()
        else:
            r.go.clear()
        if r.error:
            raise r.error


def check_log():
    """Everything that must hold of the log, whatever happened."""
    wanted = {r.source: dict(r.receipts) for r in recorders}
    by_source = {r.source: r for r in recorders}
    found = {r.source: {} for r in recorders}
    others = set()
    last = {r.source: -1 for r in recorders}
    for index, slot, raw in node.tail():
        e = ev.Event.FromString(raw)
        r = by_source.get(e.source)
        if r is None:
            expect((e.source, e.id) not in others, "twice in the log:", e.source, e.id)
            others.add((e.source, e.id))
            continue
        expect(e.id not in found[e.source], "twice in the log:", e.source, e.id)
        found[e.source][e.id] = (index, slot)
        sent = r.sent.get(e.id)
        expect(sent is not None, "nobody sent", e.source, e.id)
        expect(raw.startswith(sent), "other bytes than were sent:", e.source, e.id)
        expect(int(e.id) > last[e.source], "out of order:", e.source, e.id, "after", last[e.source])
        last[e.source] = int(e.id)
    for source, places_of in wanted.items():
        for ident, place in places_of.items():
            got = found[source].get(ident)
            expect_equal(got, place, "place of %s %s" % (source, ident))
    history = [h["value"] for h in node.json("config", "history") if h["key"] == "skew.past_ms"]
    confirmed = [v for v in history if v in settings]
    expect_equal(confirmed, settings, "settings that were confirmed")
    node.ledger()
    return sum(map(len, found.values())) + len(others)


def change_setting(n):
    done = node.cli("config", "set", "skew.past_ms", str(600000000 + n), code=None)
    if done.returncode == 0:
        settings.append(str(600000000 + n))


def segments():
    try:
        return {f for f in os.listdir(os.path.join(node.data, "log")) if f.endswith(".seg")}
    except FileNotFoundError:
        return set()


def kill_under_load(n):
    """Some receipts, then any moment."""
    load(True)
    before = sum(receipts(recorders))
    wait_until(lambda: sum(receipts(recorders)) >= before + 200, "receipts under load")
    change_setting(n)
    node.cli("ledger")
    until = time.monotonic() + chance.random() * 0.4
    while time.monotonic() < until:
        receipts(recorders)
        time.sleep(0.005)
    node.kill()


def kill_at_roll(n):
    """When a segment has ended and the next begins: at the first sign of its file, or just behind."""
    load(True)
    change_setting(n)
    before = segments()
    begun = time.monotonic()
    while segments() == before:
        expect(time.monotonic() < begun + 60, "no segment ends under load; receipts:", sum(receipts(recorders)))
    time.sleep(chance.choice((0, 0, 0.0005, 0.003)))
    node.kill()


def kill_while_starting(n):
    """Three times at any moment of the start, clients knocking."""
    load(True)
    node.kill()
    for _ in range(3):
        node.launch()
        time.sleep(chance.random() * max(0.02, start_s * 1.5))
        node.kill()
    del n


start_s = 0.3
sender = None


def start_sender():
    global sender
    sender = subprocess.Popen(
        [os.path.join(BIN, "sluice"), "send", "--generate", "0", "--rate", "2000", "--source", "libsluice", "--quiet",
         "--give-up", "0", "--address", "127.0.0.1:%d" % node.port, "--receipts-file", node.home + "/receipts"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_kills():
    """kill -9 at random moments, during starts and during segment rolls"""
    global start_s
    node.start()
    for r in recorders:
        r.start()
    start_sender()
    kinds = [kill_under_load, kill_at_roll, kill_while_starting, kill_at_roll]
    total = 0
    for n in range(ROUNDS):
        kinds[n % len(kinds)](n)
        load(False)
        node.verify()
        begun = time.monotonic()
        node.start()
        start_s = time.monotonic() - begun
        if not FULL or n % 10 == 9 or total < 30000:
            total = check_log()
    expect(len(segments()) > 2, "segments rolled:", segments())
    expect(all(r.connects >= ROUNDS // 2 for r in recorders), "clients reconnected")
    print("     %d rounds, %d events, %d receipts, %d known again after a resend, %d segments" % (
        ROUNDS, total, sum(receipts(recorders)), sum(r.duplicates for r in recorders), len(segments())))


def test_resends():
    """after the last kill everything without a receipt gets one, and nothing is there twice"""
    load(True)
    before = sum(receipts(recorders))
    wait_until(lambda: sum(receipts(recorders)) > before + 500, "receipts go on")
    load(False)
    all_have_receipts(recorders)
    check_log()
    for r in recorders:
        expect_equal(len(r.receipts), len(r.sent), "receipts of " + r.source)


def test_libsluice():
    """what `sluice send` was given receipts for through all of this is there, once"""
    expect(sender.poll() is None, "sluice send goes on through all of it, but ended with", sender.poll())
    sender.send_signal(signal.SIGINT)
    code = sender.wait(60)
    expect(code == 0, "sluice send, interrupted: exit", code, sender.stderr.read())
    log = {}
    for index, slot, raw in node.tail(source="libsluice"):
        e = ev.Event.FromString(raw)
        expect(e.id not in log, "twice in the log:", e.id)
        log[e.id] = (index, slot)
    answered = 0
    with open(node.home + "/receipts", "rb") as f:
        for line in f:
            ident, index, slot, reason = line.split()
            if reason in (b"ACCEPTED", b"DUPLICATE"):
                answered += 1
                expect_equal(log.get(ident), (int(index), int(slot)), "place of %s" % ident)
            else:
                raise Failed("sluice send got %r" % line)
    expect(answered > 1000, "only", answered, "receipts")
    expect_equal(len(log), answered, "events of sluice send in the log, and its receipts")


def test_end():
    """a stop by SIGTERM, the log verifies, and a last start finds the same"""
    for r in recorders:
        r.end = True
        r.go.set()
        r.join()
    count = check_log()
    node.stop()
    expect_equal(node.verify()["events"], count, "events that verify counts")
    node.start()
    expect_equal(check_log(), count, "events after the last start")
    expect_equal(node.ledger()["log"]["events"], count, "events in the ledger's log")
    node.stop()


main([test_kills, test_resends, test_libsluice, test_end])
