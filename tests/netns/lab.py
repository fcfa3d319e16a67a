"""lab.py - what the tests in network namespaces share: namespaces, veth pairs, frames, and a node in one.

A namespace here has no name: it lives while somebody has its descriptor or runs in it. So nothing is
left behind however a test ends, and two runs at a time do not meet. What is started in one gets
PR_SET_PDEATHSIG, and so ends with the test.

A test that may not make namespaces exits with 77 and says why.
"""
import atexit
import contextlib
import ctypes
import json
import multiprocessing
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

# pylint: disable=wrong-import-position
from sluice_node import (  # noqa: E402,F401
    BIN, FULL, WORK, Failed, Node, Stream, admin, batch_bytes, batch_frame, check_receipt, clean_up, client_frame, ev,
    event_key, expect, expect_equal, field, frames, main, nodes, number_field, trade, varint, wait_until, wire)

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, WAIT_ALL = 17, 0x4206, 0x4207, 0x40000000
PORT = 7400
SOL_UDP, UDP_SEGMENT = 17, 103


def skip(why):
    print(why)
    sys.exit(77)


def checked(rc):
    if rc < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Net:
    """A network namespace."""

    def __init__(self):
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        checked(libc.unshare(CLONE_NEWNET))
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        checked(libc.setns(before, CLONE_NEWNET))
        os.close(before)
        self.path = "/proc/%d/fd/%d" % (os.getpid(), self.fd)
        self.run("ip link set lo up")

    def enter(self):
        checked(libc.setns(self.fd, CLONE_NEWNET))

    @contextlib.contextmanager
    def inside(self):
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.enter()
        try:
            yield
        finally:
            checked(libc.setns(before, CLONE_NEWNET))
            os.close(before)

    def join(self):
        """For preexec_fn."""
        self.enter()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def run(self, command, code=0):
        """Runs a command; returns what it prints. code None: whatever it ends with."""
        done = subprocess.run(command.split(), preexec_fn=self.join, capture_output=True, text=True, timeout=60,
                              check=False)
        if code is not None and done.returncode != code:
            raise Failed("%s: exit %d: %s" % (command, done.returncode, done.stderr.strip()))
        return done.stdout if done.returncode == 0 else done.stderr

    def try_run(self, command):
        return self.run(command, code=None)

    def socket(self, family, kind, protocol=0):
        with self.inside():
            return socket.socket(family, kind, protocol)

    def sysctl(self, key, value):
        with self.inside(), open("/proc/sys/net/" + key, "w", encoding="ascii") as f:
            f.write(str(value))

    def program(self, interface):
        """What is attached to an interface: None or (mode, program id)."""
        link = json.loads(self.run("ip -d -j link show dev " + interface))[0]
        xdp = link.get("xdp")
        if not xdp or not xdp.get("prog"):
            return None
        return {1: "native", 2: "generic"}.get(xdp["mode"], "?"), xdp["prog"]["id"]

    def close(self):
        os.close(self.fd)


class Pair:
    """A veth pair: s<i> in the server's namespace, c<i> in the client's; 10.77.<i>.1 and .2, fd77:<i>::1
    and ::2. Each knows the other's MAC address, so that no datagram waits for ARP."""

    def __init__(self, server, client, i=0, queues=1, client_queues=None, mtu=1500):
        self.server, self.client, self.i, self.queues = server, client, i, queues
        self.s, self.c = "s%d" % i, "c%d" % i
        self.s4, self.c4 = "10.77.%d.1" % i, "10.77.%d.2" % i
        self.s6, self.c6 = "fd77:%d::1" % i, "fd77:%d::2" % i
        self.s_local, self.c_local = "fe80::77:%d:1" % i, "fe80::77:%d:2" % i
        self.smac, self.cmac = "02:00:00:00:%02x:01" % i, "02:00:00:00:%02x:02" % i
        n = client_queues or queues
        server.run("ip link add %s numrxqueues %d numtxqueues %d address %s mtu %d type veth peer name %s "
                   "numrxqueues %d numtxqueues %d address %s mtu %d netns %s" % (
                       self.s, queues, queues, self.smac, mtu, self.c, n, n, self.cmac, mtu, client.path))
        for net, name, a4, *a6 in ((server, self.s, self.s4, self.s6, self.s_local),
                                   (client, self.c, self.c4, self.c6, self.c_local)):
            # The kernel's own link-local address would come some time later.
            net.run("ip link set %s addrgenmode none up" % name)
            net.run("ip addr add %s/24 dev %s" % (a4, name))
            for a in a6:
                net.run("ip addr add %s/64 dev %s nodad" % (a, name))
        with client.inside():
            self.c_index = socket.if_nametoindex(self.c)
        self.neighbours()

    def neighbours(self):
        for net, name, mac, addresses in ((self.server, self.s, self.cmac, (self.c4, self.c6)),
                                          (self.client, self.c, self.smac, (self.s4, self.s6))):
            for a in addresses:
                net.run("ip neigh replace %s lladdr %s dev %s nud permanent" % (a, mac, name))

    def more_client_addresses(self, n):
        """10.77.<i>.<3...>: further sources."""
        for k in range(3, 3 + n):
            self.client.run("ip addr add 10.77.%d.%d/24 dev %s" % (self.i, k, self.c))
            self.client.run("ip addr add fd77:%d::%x/64 dev %s nodad" % (self.i, k, self.c))
            for a in ("10.77.%d.%d" % (self.i, k), "fd77:%d::%x" % (self.i, k)):
                self.server.run("ip neigh replace %s lladdr %s dev %s nud permanent" % (a, self.cmac, self.s))

    def udp(self, to=None, source=None, port=PORT):
        """A socket of the client's, connected to the server's address."""
        to = to or self.s4
        v6 = ":" in to
        s = self.client.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
        scope = (0, self.c_index) if v6 and to.startswith("fe80") else ()
        s.bind((source or (self.c6 if v6 else self.c4), 0) + scope)
        s.connect((to, port) + scope)
        s.settimeout(30)
        return s

    def raw(self):
        """For whole frames."""
        s = self.client.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with self.client.inside():
            s.bind((self.c, 0))
        return s

    def lost(self):
        """Frames that the pair itself has lost on their way to the server, before any program saw them."""
        link = json.loads(self.client.run("ip -s -j link show dev " + self.c))[0]
        return link["stats64"]["tx"]["dropped"]


@contextlib.contextmanager
def lab(pairs=1, **options):
    """A server's and a client's namespace with veth pairs between them."""
    server, client = Net(), Net()
    try:
        yield [Pair(server, client, i, **options) for i in range(pairs)]
    finally:
        for node in [n for n in nodes if getattr(n, "net", None) is server]:
            if node.process and node.process.poll() is None:
                node.kill()
        server.close()
        client.close()


def need():
    """Skips the test where it cannot be."""
    if os.geteuid() != 0:
        skip("namespaces and XDP need root")
    try:
        with lab():
            pass
    except (OSError, Failed) as e:
        skip("no network namespaces or veth pairs here: %s" % e)


def run(tests, together=2):
    """Runs the tests, so many at a time: each in a process and namespaces of its own. Starting a node is mostly the
    kernel's verifying of the program, on one core."""
    need()
    waiting, running, failed = list(tests), {}, []
    sys.stdout.flush()
    while waiting or running:
        if waiting and len(running) < together:
            test, out = waiting.pop(0), tempfile.TemporaryFile(mode="w+")
            pid = os.fork()
            if pid == 0:
                run_one(test, out)
            running[pid] = test, out
            continue
        pid, status = os.wait()
        test, out = running.pop(pid)
        out.seek(0)
        print(out.read(), end="", flush=True)
        if status != 0:
            failed.append(test.__name__)
    for name in failed:
        print("failed: " + name)
    sys.exit(1 if failed else 0)


def run_one(test, out):
    """In a child: never returns, and leaves what the parent owns alone."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(out.fileno(), 1)
    os.dup2(out.fileno(), 2)
    code = 1
    try:
        main([test])
    except SystemExit as e:
        code = e.code
    finally:
        leave_none()
        sys.stdout.flush()
        os._exit(code)


# --- frames by hand -------------------------------------------------------------------------------


def ones_sum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def frame(pair, payload, source=None, to=None, sport=40000, port=PORT, mac=None, tags=(), options=b"",
          extensions=(), udp_bytes=None, checksum=None, ip_checksum=None, ip_bytes=None, pad=0):
    """An Ethernet frame with a UDP datagram from the client of a pair to its server. What is given in place
    of lengths and checksums goes into the frame as it is. extensions: (number, body) of IPv6 headers."""
    to = to or pair.s4
    v6 = ":" in to
    source = source or (pair.c6 if v6 else pair.c4)
    family = socket.AF_INET6 if v6 else socket.AF_INET
    src, dst = socket.inet_pton(family, source), socket.inet_pton(family, to)
    length = 8 + len(payload)
    udp = struct.pack("!HHHH", sport, port, length if udp_bytes is None else udp_bytes, 0) + payload
    if checksum is None:
        pseudo = src + dst + (struct.pack("!IHBB", length, 0, 0, 17) if v6 else struct.pack("!BBH", 0, 17, length))
        checksum = 0xFFFF - ones_sum(pseudo + udp) or 0xFFFF
    udp = udp[:6] + struct.pack("!H", checksum) + udp[8:]
    if v6:
        numbers = [n for n, _ in extensions] + [17]
        chain = b"".join(bytes([numbers[i + 1]]) + body for i, (_, body) in enumerate(extensions))
        size = len(chain) + len(udp) if ip_bytes is None else ip_bytes
        ip = struct.pack("!IHBB", 6 << 28, size, numbers[0], 64) + src + dst + chain
    else:
        size = 20 + len(options) + len(udp) if ip_bytes is None else ip_bytes
        ip = struct.pack("!BBHHHBBH", 0x40 | 5 + len(options) // 4, 0, size, 1, 0, 64, 17, 0) + src + dst + options
        sum_ = 0xFFFF - ones_sum(ip) if ip_checksum is None else ip_checksum
        ip = ip[:10] + struct.pack("!H", sum_) + ip[12:]
    ether = mac_bytes(mac or pair.smac) + mac_bytes(pair.cmac)
    for tpid, vid in tags:
        ether += struct.pack("!HH", tpid, vid)
    return ether + struct.pack("!H", 0x86DD if v6 else 0x0800) + ip + udp + b"\0" * pad


# --- in the background ----------------------------------------------------------------------------


class Background:
    """Calls step(i) again and again in a process of its own, until told to stop: end() returns how often that
    was. An exception there is one here."""

    def __init__(self, step, pause=0.0, nice=0):
        context = multiprocessing.get_context("fork")
        self.ending, self.result = context.Event(), context.Queue()
        self.begun = context.Value("L", 0)
        self.process = context.Process(target=self.main, args=(step, pause, nice), daemon=True)
        self.process.start()

    def main(self, step, pause, nice):
        os.nice(nice)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        atexit.unregister(clean_up)
        n = 0
        try:
            while not self.ending.is_set():
                step(n)
                n += 1
                self.begun.value = n
                if pause:
                    time.sleep(pause)  # a pace, not a wait for anything
        except BaseException as e:  # pylint: disable=broad-except
            self.result.put("%d: %r" % (n, e))
            return
        self.result.put(n)

    def count(self):
        """Steps so far."""
        return self.begun.value

    def end(self):
        self.ending.set()
        n = self.result.get(timeout=30)
        self.process.join(30)
        expect(isinstance(n, int), "the sender in the background:", n)
        return n


# --- events ---------------------------------------------------------------------------------------


def quote(source, ident, n=0):
    e = ev.Event(type=ev.QUOTE, source=source, id=ident, symbol="SYM", timestamp_ns=time.time_ns())
    e.quote.bid_price, e.quote.ask_price, e.quote.price_scale = 100 + n, 101 + n, 2
    e.quote.bid_size = e.quote.ask_size = 1
    return e.SerializeToString()


def book(source, ident, n=0):
    e = ev.Event(type=ev.ORDERBOOK, source=source, id=ident, symbol="SYM", timestamp_ns=time.time_ns())
    e.orderbook.bids.add(price=100 + n, size=1)
    e.orderbook.price_scale = 2
    return e.SerializeToString()


def custom(source, ident, number=64):
    e = ev.Event(source=source, id=ident, symbol="SYM", timestamp_ns=time.time_ns())
    e.custom.schema, e.custom.body = "s", b"body"
    return number_field(1, number) + e.SerializeToString()


class Ids:
    """Identifiers that no event had before."""

    def __init__(self):
        self.n = 0

    def __call__(self):
        self.n += 1
        return b"%d" % self.n


# --- a node ---------------------------------------------------------------------------------------


class XdpNode(Node):
    """sluiced in a namespace. Settings as of Node: ingest__xdp__ring="64"."""

    count = 0

    def __init__(self, net, pairs=(), mode="auto", **settings):
        XdpNode.count += 1
        self.net, self.wrap = net, ()
        keys = {
            "ingest__insecure": "true",
            "ingest__port": PORT,
            "ingest__address": "[%s]" % ", ".join("%s, '%s'" % (p.s4, p.s6) for p in pairs),
            "ingest__udp__allow": "[10.77.0.0/16, 'fd77::/16', 'fe80::/10']",
            "ingest__xdp__mode": mode,
            "ingest__xdp__interfaces": "[%s]" % ", ".join(p.s for p in pairs),
            "ingest__xdp__ring": 512,
            "dedupe__memory_bytes_max": "32MiB",
            "log__segment_bytes": "4MiB",
        }
        keys.update(settings)
        super().__init__(name="node%d-%d" % (os.getpid(), XdpNode.count), **keys)
        self.port = PORT

    def launch(self, wrap=()):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                list(wrap) + [os.path.join(BIN, "sluiced"), "--config", self.config], stderr=log, stdout=log,
                stdin=subprocess.DEVNULL, preexec_fn=self.net.join)

    def __enter__(self):
        self.start(self.wrap)
        return self

    def __exit__(self, kind, *_):
        if kind is None and self.process.poll() is None:
            self.stop()
        elif self.process.poll() is None:
            print("--- last words of %s:\n%s" % (self.home, self.stderr()))
            self.kill()
            self.process = None  # it ended by our hand: the other tests go on

    def xdp(self):
        """sluice xdp status"""
        return self.json("xdp", "status")

    def interface(self, name):
        return next(i for i in self.xdp()["interfaces"] if i["name"] == name)

    def set(self, key, value):
        """A setting, by the admin socket: quicker than the CLI. Returns the log's index."""
        for response in self.ask(admin.AdminRequest(setting_set=admin.SettingSetRequest(key=key, value=value))):
            expect(not response.error, key, value, response.error)
            return response.setting.index
        raise EOFError

    def policy_test(self, datagram, source, shadow=False):
        request = admin.PolicyTestRequest(datagram=datagram, shadow=shadow, **{"from": source})
        for response in self.ask(admin.AdminRequest(policy_test=request)):
            expect(not response.error, response.error)
            return response.policy_test
        raise EOFError

    def look(self):
        """(datagrams seen, drops by reason, events committed) now, or None while something is under way."""
        for r in self.ask(admin.AdminRequest(ledger=admin.LedgerRequest())):
            expect(not r.error, r.error)
            a = r.ledger
            if a.total.in_flight or a.xdp.ring_waiting:
                return None
            return a.datagrams_seen, {d.reason: d.count for d in a.drops if d.count}, a.total.committed
        raise EOFError

    def settled(self, n):
        """look(), once n datagrams are decided. Exact: more is wrong too."""
        def there():
            now = self.look()
            return now if now and now[0] >= n else None
        try:
            now = wait_until(there, "%d datagrams are accounted for" % n, 30)
        except Failed as e:
            raise Failed("%s\nledger: %s\nxdp: %s" % (e, json.dumps(self.json("ledger", code=None)),
                                                      json.dumps(self.json("xdp", "status", code=None)))) from None
        expect_equal(now[0], n, "datagrams seen; drops %s, committed %d" % now[1:])
        return now

    def seen(self, n):
        """The ledger, once n datagrams are decided and nothing is in flight."""
        self.settled(n)
        account = self.ledger()
        expect_equal(account["datagrams"]["seen"], n, "datagrams seen; " + json.dumps(account))
        self.consistent(account)
        return account

    def consistent(self, account):
        """Every sum that can be made of what is at rest."""
        d = account["datagrams"]
        expect_equal(d["seen"], d["delivered"] + sum(d["drops"].values()), "datagrams seen")
        if "xdp" not in account:
            return
        x, status = account["xdp"], self.xdp()
        expect(status["balances"], "xdp status balances")
        expect_equal(x["arrived"], x["dropped"] + x["redirected"] + x["passed"], "arrived in the driver")
        expect_equal(x["dropped"], sum(x["drops"].values()), "dropped in the driver")
        rings = x["rings"]
        expect_equal(x["redirected"], rings["taken"] + rings["full"] + rings["waiting"], "redirected")
        expect(rings["agree"], "rings agree", x)


def drops(account):
    return {k: v for k, v in account["datagrams"]["drops"].items() if v}


def committed(account, number=None):
    if number is None:
        return account["events"]["total"]["committed"]
    return sum(t["committed"] for t in account["events"]["types"] if t["type"] == number)


def threads_capabilities(pid):
    """Of every thread: {line's name: set of values}."""
    out = {}
    for tid in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/status" % (pid, tid), encoding="ascii") as f:
            for line in f:
                if line.startswith("Cap"):
                    out.setdefault(line.split(":")[0], set()).add(int(line.split()[1], 16))
    return out


def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(node, what):
    """Less than a fifth of a second's CPU time while a second passes: it sleeps."""
    before, begun = cpu_seconds(node.process.pid), os.times().elapsed
    wait_until(lambda: os.times().elapsed - begun >= 1.0, "a second", 10)
    used = cpu_seconds(node.process.pid) - before
    expect(used < 0.2, what, "but it used", used, "s of CPU time in a second")


@contextlib.contextmanager
def thread_halted(node, name):
    """One thread of the node stands still, as if it waited for a device, while the others go on."""
    def call(request, stops):
        checked(libc.ptrace(request, tid, None, None))
        if stops:
            os.waitpid(tid, WAIT_ALL)

    tasks = "/proc/%d/task/" % node.process.pid
    for tid in [int(t) for t in os.listdir(tasks)]:
        with open(tasks + "%d/comm" % tid, encoding="ascii") as f:
            if f.read().strip() == name:
                break
    else:
        raise Failed("no thread " + name)
    call(PTRACE_SEIZE, False)
    call(PTRACE_INTERRUPT, True)
    try:
        yield
    finally:
        call(PTRACE_DETACH, False)


@atexit.register
def leave_none():
    for node in nodes:
        if node.process and node.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                node.process.send_signal(signal.SIGCONT)
                node.process.kill()
