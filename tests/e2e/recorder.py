"""recorder.py - a client that sends all the time and remembers what it has receipts for, while the tests kill
what it sends to.
"""
import random
import threading
import time

from sluice_node import Failed, Stream, check_receipt, ev, expect, places, trade, wait_until, wire


class Recorder(threading.Thread):
    """Sends batches in a window, records receipts, sends again what has none. port() says where to, at each
    connection, or raises OSError. What is refused for one of the reasons in `again` has no receipt."""

    WINDOW = 16
    ENDS = ("the stream ends inside a frame", "got None", "ERROR_STOPPING")  # of a connection, and no failure

    def __init__(self, source, port, seed, again=(), durability=0):
        super().__init__(daemon=True)
        self.source, self.port, self.again, self.durability = source, port, again, durability
        self.chance = random.Random("%d %s" % (seed, source))
        self.sent = {}       # id: bytes
        self.pending = []    # batches without receipt, in order: lists of ids
        self.receipts = {}   # id: (index, slot)
        self.duplicates = self.connects = self.last = self.longest = 0
        self.go = threading.Event()
        self.end = False
        self.error = None

    def run(self):
        while not self.end and self.error is None:
            try:
                self.go.wait(0.1)
                if self.wanted():
                    self.connection()
            except Failed as e:
                if not any(w in str(e) for w in self.ENDS):
                    self.error = e
            except (OSError, EOFError):
                time.sleep(0.005)
            except Exception as e:  # pylint: disable=broad-except
                self.error = e

    def wanted(self):
        """Is there anything to connect for?"""
        return self.go.is_set()

    def new_batch(self):
        ids = []
        for _ in range(self.chance.randint(1, 40)):
            ident = b"%d" % len(self.sent)
            self.sent[ident] = trade(self.source, ident, len(self.sent), self.chance.choice((0, 0, 50, 900)))
            ids.append(ident)
        self.pending.append(ids)
        return ids

    def stream(self):
        return Stream(self.port(), timeout=20, durability=self.durability)

    def connection(self):
        with self.stream() as s:
            self.connects += 1
            waiting = list(self.pending)
            for ids in waiting:
                s.send_batch([self.sent[i] for i in ids])
            while not self.end and (self.go.is_set() or waiting):
                while self.go.is_set() and len(waiting) < self.WINDOW:
                    waiting.append(self.new_batch())
                    s.send_batch([self.sent[i] for i in waiting[-1]])
                if waiting:
                    self.take(s.receipt(), waiting.pop(0))

    def take(self, receipt, ids):
        self.longest = max(self.longest, time.monotonic() - (self.last or time.monotonic()))
        self.last = time.monotonic()
        check_receipt(receipt, len(ids))
        got = places(receipt, len(ids))
        if any(how in self.again for _, _, how in got):
            raise OSError("refused, for now")
        for ident, (index, slot, how) in zip(ids, got):
            if how not in ("new", "duplicate"):
                raise Failed("refused with %s: %s" % (how, receipt))
            self.duplicates += how == "duplicate"
            self.receipts[ident] = (index, slot)
        self.pending.remove(ids)


def receipts(recorders):
    """How many each of them has; raises what one has failed with."""
    for r in recorders:
        if r.error:
            raise r.error
    return [len(r.receipts) for r in recorders]


def more_receipts(recorders, n):
    """Waits until each of them has so many more."""
    before = receipts(recorders)
    wait_until(lambda: all(b >= a + n for a, b in zip(before, receipts(recorders))), "%d more receipts" % n)


def all_have_receipts(recorders):
    """Waits until nothing is without a receipt."""
    wait_until(lambda: receipts(recorders) and not any(r.pending for r in recorders), "everything has a receipt")


def check_receipts(node, recorders, moved=False):
    """Every event that has a receipt is where that says, once, with the bytes that were sent. moved: what has one
    for the active region alone may be elsewhere, since a region was lost and it was offered again."""
    log = {r.source: {} for r in recorders}
    for index, slot, raw in node.tail():
        e = ev.Event.FromString(raw)
        if e.source not in log:
            continue
        expect(e.id not in log[e.source], "twice in the log of node", node.number, e.source, e.id)
        log[e.source][e.id] = (index, slot, raw)
    for r in recorders:
        for ident, place in r.receipts.items():
            got = log[r.source].get(ident)
            there = got is not None and (got[:2] == place or (moved and r.durability != wire.REGION))
            expect(there and got[2].startswith(r.sent[ident]),
                   "node", node.number, "has for the receipt", place, "of", r.source, ident, got)
