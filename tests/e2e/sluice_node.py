"""sluice_node.py - what the end-to-end tests in Python share: a node in a temporary directory, and
clients of it that have no line in common with ours.

Everything is spoken with protobuf's own library, from classes that protoc makes of proto/*.proto when
a test starts. Only one thing is changed in them: EventResponse.event is read as bytes, so that what the
log holds can be compared byte by byte with what was sent.

SLUICE_BIN names the build directory (default build/release), SLUICE_MODE is quick or full. A test that
fails raises; `main()` makes an exit code of it and cleans up.
"""
import atexit
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(ROOT, os.environ.get("SLUICE_BIN", "build/release"))
FULL = os.environ.get("SLUICE_MODE", "quick") == "full"
WORK = tempfile.mkdtemp(prefix="sluice-e2e.", dir=os.environ.get("TMPDIR", "/tmp"))
# Sanitizers and busy machines are slow; nothing that works comes near these.
WAIT_S = 60.0
MESSAGES = ("event", "wire", "entry", "node", "admin")
nodes = []


def clean_up():
    for node in nodes:
        if node.process and node.process.poll() is None:
            node.process.kill()
            node.process.wait()
    shutil.rmtree(WORK, ignore_errors=True)


atexit.register(clean_up)


def make_messages():
    """The generated modules event_pb2, wire_pb2, admin_pb2. Not in a package named proto: there is
    another one of that name."""
    source, target = os.path.join(WORK, "in"), os.path.join(WORK, "py")
    os.makedirs(os.path.join(source, "sluice_pb"))
    os.makedirs(target)
    for name in MESSAGES:
        with open(os.path.join(ROOT, "proto", name + ".proto"), encoding="utf-8") as f:
            text = f.read().replace('import "proto/', 'import "sluice_pb/')
        if name == "admin":
            text, event = text.replace('import "sluice_pb/event.proto";', ""), text
            text = text.replace("  Event event = 1; ", "  bytes event = 1; ")
            assert event.count("  Event event = 1; ") == 1, "EventResponse has changed"
        with open(os.path.join(source, "sluice_pb", name + ".proto"), "w", encoding="utf-8") as f:
            f.write(text)
    subprocess.run(["protoc", "-I", source, "--python_out", target]
                   + ["sluice_pb/%s.proto" % n for n in MESSAGES], check=True)
    sys.path.insert(0, target)
    from sluice_pb import admin_pb2, event_pb2, wire_pb2  # pylint: disable=import-error
    return event_pb2, wire_pb2, admin_pb2


ev, wire, admin = make_messages()


class Failed(Exception):
    """An expectation that did not hold."""


def expect(condition, *what):
    if not condition:
        raise Failed(" ".join(str(w) for w in what))


def expect_equal(got, wanted, what):
    if got != wanted:
        raise Failed("%s: got %r, wanted %r" % (what, got, wanted))


def wait_until(condition, what, seconds=WAIT_S):
    """Returns the first true value of condition()."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise Failed("not within %d s: %s" % (seconds, what))
        time.sleep(0.02)


def free_port():
    """A port that TCP and UDP, IPv4 and IPv6 are free to use."""
    for _ in range(100):
        port = random.randrange(10000, 32000)
        sockets = []
        try:
            for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    s = socket.socket(family, kind)
                    sockets.append(s)
                    s.bind((host, port))
            return port
        except OSError:
            continue
        finally:
            for s in sockets:
                s.close()
    raise Failed("no free port")


# --- protobuf's wire format, by hand, for what the library would not write ------------------------


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, data):
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def number_field(number, value):
    return varint(number << 3) + varint(value)


def batch_bytes(events, seq=0, receipt=False, producer=""):
    out = b"".join(field(1, e) for e in events)
    if producer:
        out += field(2, producer.encode())
    if seq:
        out += number_field(3, seq)
    return out + (number_field(4, 1) if receipt else b"")


def client_frame(tag, body):
    inner = field(tag, body)
    return varint(len(inner)) + inner


def batch_frame(events, request, durability=0):
    return client_frame(2, number_field(1, request) + field(2, batch_bytes(events)) +
                        (number_field(3, durability) if durability else b""))


# --- events ---------------------------------------------------------------------------------------


def trade(source, ident, n=0, padding=0, when=None):
    """A serialized trade. n makes its bytes differ, padding makes it longer."""
    e = ev.Event(type=ev.TRADE, source=source, id=ident, symbol="SYM%d" % (n % 50),
                 timestamp_ns=when or time.time_ns())
    e.trade.price, e.trade.price_scale = 1875000 + n, 4
    e.trade.size, e.trade.venue, e.trade.sequence = 100 + n % 900, "XNAS", n
    while padding > 0:
        e.attributes["pad%d" % padding] = "x" * min(padding, 120)
        padding -= 120
    return e.SerializeToString()


def event_key(raw):
    e = ev.Event.FromString(raw)
    return e.source, e.id


# --- a node ---------------------------------------------------------------------------------------


def yaml_of(tree, depth=0):
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict):
            lines.append("%s%s:\n%s" % ("  " * depth, key, yaml_of(value, depth + 1)))
        else:
            lines.append("%s%s: %s\n" % ("  " * depth, key, value))
    return "".join(lines)


class Node:
    """sluiced with a directory and a port of its own."""

    def __init__(self, name="node", directory=None, **settings):
        self.home = directory or os.path.join(WORK, name)
        self.data = os.path.join(self.home, "data")
        self.port = free_port()
        self.process = None
        self.socket = os.path.join(self.home, "admin.sock")
        self.log = os.path.join(self.home, "stderr")
        self.config = os.path.join(self.home, "sluiced.yaml")
        os.makedirs(self.home, exist_ok=True)
        keys = {"data.dir": self.data, "admin.socket": self.socket, "ingest.port": self.port}
        keys.update({k.replace("__", "."): v for k, v in settings.items()})
        self.configure(keys)
        nodes.append(self)

    def configure(self, keys):
        tree = {}
        for key, value in keys.items():
            at = tree
            for part in key.split(".")[:-1]:
                at = at.setdefault(part, {})
            at[key.split(".")[-1]] = value
        self.keys = keys
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(yaml_of(tree))

    def launch(self, wrap=()):
        """Starts the process without waiting for it to serve."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                list(wrap) + [os.path.join(BIN, "sluiced"), "--config", self.config], stderr=log,
                stdout=log, stdin=subprocess.DEVNULL)

    def start(self, wrap=()):
        self.launch(wrap)
        wait_until(self.serves, "the node serves")

    def serves(self):
        code = self.process.poll()
        if code is not None:
            raise Failed("sluiced ended with %s when it should start:\n%s" % (code, self.stderr()))
        try:
            return self.status().role == "leader"
        except (OSError, EOFError):
            return False

    def stderr(self, last=20):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-last:])

    def ended(self, seconds=WAIT_S):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed("sluiced goes on; its last words:\n" + self.stderr()) from None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        expect_equal(self.ended(), 0, "exit code after SIGTERM; last words:\n" + self.stderr())

    def kill(self):
        self.process.kill()
        self.process.wait()

    # What a user has.
    def cli(self, *args, code=0, text=None):
        done = subprocess.run([os.path.join(BIN, "sluice"), *args], capture_output=True, timeout=300,
                              env=dict(os.environ, SLUICE_SOCKET=self.socket), input=text)
        if code is not None and done.returncode != code:
            raise Failed("sluice %s: exit %d, wanted %d\n%s%s" % (
                " ".join(args), done.returncode, code, done.stdout[-2000:].decode(errors="replace"),
                done.stderr[-2000:].decode(errors="replace")))
        return done

    def json(self, *args, code=0):
        return json.loads(self.cli(*args, "--json", code=code).stdout)

    def ledger(self):
        """The account, once nothing is in flight; fails when it does not balance."""
        def quiet():
            done = self.cli("ledger", "--json", code=None)
            account = json.loads(done.stdout)
            if account["events"]["total"]["inFlight"] != 0:
                return None
            return done.returncode, account
        code, account = wait_until(quiet, "nothing is in flight")
        expect(code == 0 and account["balances"], "the ledger does not balance:",
               json.dumps(account, indent=1))
        return account

    def verify(self):
        done = self.cli("log", "verify", self.data, "--json", code=None)
        expect(done.returncode == 0, "sluice log verify finds problems: exit", done.returncode,
               done.stdout[-3000:].decode(), done.stderr[-1000:].decode())
        return json.loads(done.stdout)

    # The admin socket, directly.
    def ask(self, request, timeout=WAIT_S):
        """Yields the AdminResponses to a request."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(timeout)
            s.connect(self.socket)
            data = request.SerializeToString()
            s.sendall(varint(len(data)) + data)
            yield from (admin.AdminResponse.FromString(f) for f in frames(s))

    def status(self, timeout=WAIT_S):
        for response in self.ask(admin.AdminRequest(status=admin.StatusRequest()), timeout):
            expect(not response.error, response.error)
            return response.status
        raise EOFError

    def tail(self, first=1, **more):
        """Yields (index, slot, stored bytes) of what is committed now."""
        request = admin.AdminRequest(tail=admin.TailRequest(from_index=first, **more))
        for response in self.ask(request):
            expect(not response.error, "tail:", response.error)
            if response.HasField("event"):
                yield response.event.index, response.event.slot, response.event.event
            if response.done:
                return
        raise Failed("tail ended early")


def frames(s):
    """Yields the delimited frames that arrive on a socket, until its end."""
    data, start = b"", 0
    while True:
        size = shift = 0
        at, whole = start, False
        while at < len(data) and not whole:
            size |= (data[at] & 0x7F) << shift
            shift += 7
            whole = data[at] < 0x80
            at += 1
        if whole and len(data) >= at + size:
            start = at + size
            yield data[at:start]
            continue
        more = s.recv(1 << 18)
        if not more:
            if start < len(data):
                raise Failed("the stream ends inside a frame")
            return
        data, start = data[start:] + more, 0


class Stream:
    """A TCP client; over TLS with a context of Python's."""

    durability = 0  # of its batches: the types' floors

    def __init__(self, port, host="127.0.0.1", hello=True, producer="e2e", timeout=WAIT_S, tls=None,
                 durability=0):
        self.durability = durability
        self.s = socket.create_connection((host, port), timeout)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            try:
                self.s = tls.wrap_socket(self.s, server_hostname=host)
            except OSError:
                self.s.close()
                raise
        self.frames = frames(self.s)
        self.requests = 0
        self.welcome = None
        if hello:
            self.send(client_frame(1, wire.Hello(protocol=1, producer=producer).SerializeToString()))
            frame = self.next()
            expect(frame is not None and frame.HasField("welcome"), "a welcome after hello, got", frame)
            self.welcome = frame.welcome

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.s.close()

    def send(self, data):
        self.s.sendall(data)

    def next(self):
        """The next ServerFrame, None at the end of the stream."""
        for data in self.frames:
            return wire.ServerFrame.FromString(data)
        return None

    def send_batch(self, events):
        self.requests += 1
        self.send(batch_frame(events, self.requests, self.durability))
        return self.requests

    def receipt(self):
        frame = self.next()
        expect(frame is not None and frame.HasField("receipt"), "a receipt, got", frame)
        return frame.receipt

    def batch(self, events):
        request = self.send_batch(events)
        r = self.receipt()
        expect_equal(r.request, request, "the receipt's request")
        check_receipt(r, len(events))
        return r


def check_receipt(r, n):
    """What must hold in every receipt that is not truncated."""
    expect_equal(r.accepted + r.duplicates + r.refused, n, "events that the receipt accounts for")
    positions = [x.position for x in r.exceptions]
    expect(positions == sorted(set(positions)) and all(p < n for p in positions),
           "positions of exceptions:", positions)
    if [x.reason for x in r.exceptions] == [wire.REGION_UNREACHABLE] and r.refused == n:
        return # one stands for all
    expect_equal(len(positions), r.duplicates + r.refused, "exceptions")
    expect_equal(sum(x.reason == wire.DUPLICATE for x in r.exceptions), r.duplicates, "duplicates")
    expect((r.index > 0) == (r.accepted > 0), "an index if and only if something was accepted:", r)
    if r.accepted:
        expect(r.durability in (wire.QUORUM, wire.REGION, wire.DEGRADED) and r.epoch > 0 and r.term >> 20 == r.epoch,
               "durability, epoch and term:", r)


def places(r, n):
    """Per position: (index, slot, how), how being 'new', 'duplicate' or the reason's number."""
    out, slot = [None] * n, r.first_slot
    for x in r.exceptions:
        if x.reason == wire.DUPLICATE:
            out[x.position] = (x.first.index, x.first.slot, "duplicate")
        else:
            out[x.position] = (0, 0, x.reason)
    for i in range(n):
        if out[i] is None:
            out[i] = (r.index, slot, "new")
            slot += 1
    return out


def only_reason(r):
    """The reasons of a receipt in which nothing was accepted."""
    expect_equal(r.accepted, 0, "accepted")
    return {wire.Reason.Name(x.reason) for x in r.exceptions}


def main(tests):
    """Runs the functions in order, a line for each. One that fails does not keep the others from
    running, as long as the node is alive."""
    failed = []
    for test in tests:
        begun, name = time.monotonic(), " ".join((test.__doc__ or test.__name__).split())
        try:
            test()
            print("ok   %6.1f s  %s" % (time.monotonic() - begun, name), flush=True)
        except Exception:  # pylint: disable=broad-except
            failed.append(name)
            print("FAIL %6.1f s  %s\n%s" % (time.monotonic() - begun, name, traceback.format_exc()), flush=True)
            gone = [n for n in nodes if n.process and n.process.poll() not in (None, 0)]
            for node in gone:
                print("--- %s ended with %s; its last words:\n%s" % (node.home, node.process.poll(), node.stderr()))
            if gone:
                break
    for name in failed:
        print("failed: " + name)
    sys.exit(1 if failed else 0)
