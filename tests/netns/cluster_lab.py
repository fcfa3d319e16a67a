"""cluster_lab.py - a cluster whose nodes have a network namespace each, its producers, and what takes packets
and room on the disk away from it.

    node 1 -- veth n1 --+
    node 2 -- veth n2 --+-- bridge, 10.78.0.254: the producers, in the switch's namespace
    node 3 -- veth n3 --+

A packet is lost at the bridge's port: a filter redirects it into a veth pair that leads nowhere. So each
direction of each pair of nodes fails alone, and nobody's kernel is told. Producers are not between two nodes:
they reach one that is cut off.
"""
import atexit
import os
import signal
import ssl
import subprocess
import time

from lab import (BIN, CLONE_NEWNET, WORK, Failed, Net, Stream, checked, ev, expect, expect_equal, libc,
                 wait_until, wire)
from recorder import Recorder
from sluice_cluster import Cluster, Member

CLONE_NEWNS = 0x20000
INGEST, PEER = 7400, 7500
PACE_S = 0.04  # between batches of a producer: what comes must be read again, three times, by Python
LATER = {wire.NOT_LEADER, wire.OVERLOADED, wire.STOPPING, wire.DISK_FULL}
assert CLONE_NEWNET != CLONE_NEWNS


def address(number):
    return "10.78.0.%d" % number


class Switch(Net):
    """The namespace that all nodes are cabled to."""

    def __init__(self):
        super().__init__()
        self.ports = set()
        self.run("ip link add br0 type bridge mcast_snooping 0 stp_state 0")
        self.run("ip addr add %s/24 dev br0" % address(254))
        self.run("ip link set br0 up")
        self.run("ip link add sink type veth peer name nowhere")
        self.run("ip link set sink up")
        self.run("ip link set nowhere up")

    def cable(self, number):
        """A namespace for node `number`."""
        net = Net()
        port = "n%d" % number
        self.run("ip link add %s type veth peer name eth0 netns %s" % (port, net.path))
        self.run("ip link set %s master br0" % port)
        self.run("ip link set %s up" % port)
        self.run("tc qdisc add dev %s clsact" % port)
        net.run("ip addr add %s/24 dev eth0" % address(number))
        net.run("ip link set eth0 up")
        self.ports.add(number)
        return net

    def lose(self, source, to):
        """What node `source` sends to node `to` is lost, from now on."""
        self.run("tc filter add dev n%d ingress protocol ip u32 match ip dst %s/32 "
                 "action mirred egress redirect dev sink" % (source, address(to)))

    def lost(self, source):
        """Packets of node `source` lost by the filters that there are now."""
        text = self.run("tc -s filter show dev n%d ingress" % source)
        return sum(int(line.split()[3]) for line in text.splitlines() if line.strip().startswith("Sent "))

    def heal(self):
        for number in self.ports:
            self.run("tc filter del dev n%d ingress" % number)


class NetMember(Member):
    """A node in a namespace of its own; `program` is the build that it is started from."""

    def __init__(self, net, number, name, files, data=None, host=None, **settings):
        self.net, self.program, self.host = net, os.path.join(BIN, "sluiced"), host or address(number)
        super().__init__(number, name, files, **{
            "ingest__address": "[%s]" % self.host, "ingest__udp__enabled": "false",
            "ingest__tcp__tls": "true" if files else "false",
            "peer__listen": "%s:%d" % (self.host, PEER), "ingest__port": INGEST, **settings})
        self.port, self.peer = INGEST, "%s:%d" % (self.host, PEER)
        if data:
            self.data = data
            self.configure(dict(self.keys, **{"data.dir": data}))

    def launch(self, wrap=()):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                list(wrap) + [self.program, "--config", self.config], stderr=log, stdout=log,
                stdin=subprocess.DEVNULL, preexec_fn=self.net.join)

    def runs(self):
        """Is it there and not paused?"""
        return super().runs() and self.state() not in "TZX"

    def state(self):
        try:
            with open("/proc/%d/stat" % self.process.pid, encoding="ascii") as f:
                return f.read().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "X"

    def pause(self):
        """Until it has really stopped."""
        self.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: self.state() == "T", "node %d is stopped" % self.number)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def said(self):
        """How much it has said so far: for heard()."""
        return os.path.getsize(self.log) if os.path.exists(self.log) else 0

    def heard(self, words, since=0):
        """Waits for a line with these words behind what it had said then."""
        def there():
            with open(self.log, encoding="utf-8", errors="replace") as f:
                f.seek(since)
                return words in f.read()
        wait_until(there, "node %d says %r" % (self.number, words))

    def runs_program(self):
        return os.path.realpath("/proc/%d/exe" % self.process.pid)


class NetCluster(Cluster):
    """disks: where each node's data directory is on a file system of its own."""

    def __init__(self, name, n=3, disks=None, **settings):
        self.switch, self.disks = Switch(), disks
        super().__init__(name, n, **settings)

    def member(self, number):
        files = self.pki.node(number, address(number))
        name = "%s-%d" % (self.name, number)
        data = self.disks.make(name) if self.disks else None
        self.members[number] = NetMember(self.switch.cable(number), number, name, files, data, **self.settings)
        return self.members[number]

    def others(self, node):
        return [m for m in self if m is not node]

    def cut(self, node, sends=False, hears=False):
        """From all other nodes, in one direction or both."""
        for m in self.others(node):
            if not sends:
                self.switch.lose(node.number, m.number)
            if not hears:
                self.switch.lose(m.number, node.number)

    def new_leader(self, old):
        """Another than `old`, which may think that it still leads."""
        def look():
            for m in self.others(old):
                s = quick_status(m)
                if s and s.role == "leader":
                    return m
            return None
        return wait_until(look, "another node than %d leads" % old.number)


def quick_status(node):
    try:
        return node.status(timeout=2) if node.runs() else None
    except (OSError, EOFError):
        return None


class Disks:
    """Small ext4 file systems, mounted in a mount namespace of this test's own: they end with it."""

    def __init__(self, size="512M"):
        self.size, self.mounts = size, []
        checked(libc.unshare(CLONE_NEWNS))
        self.command("mount", "--make-rprivate", "/")
        atexit.register(self.close)

    @staticmethod
    def command(*args):
        done = subprocess.run(args, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise OSError("%s: %s" % (" ".join(args), done.stderr.strip()))

    def make(self, name):
        """Returns the data directory on it."""
        image, mount = os.path.join(WORK, name + ".image"), os.path.join(WORK, name + ".disk")
        os.mkdir(mount)
        self.command("truncate", "-s", self.size, image)
        self.command("mkfs.ext4", "-q", "-m", "0", "-F", image)
        self.command("mount", "-o", "loop", image, mount)
        self.mounts.append(mount)
        return os.path.join(mount, "data")

    def close(self):
        for mount in self.mounts:
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
        self.mounts = []


class Balloon:
    """All the room that a node's file system has left, but less than 64 KiB: the log's directory may need a block for
    one more name."""

    def __init__(self, node):
        self.path = os.path.join(os.path.dirname(node.data), "balloon")

    def __enter__(self):
        with open(self.path, "wb") as f:
            size = 1 << 24
            while size >= 65536:
                try:
                    os.posix_fallocate(f.fileno(), f.tell(), size)
                    f.seek(size, os.SEEK_CUR)
                except OSError:
                    size //= 2
        return self

    def __exit__(self, *_):
        os.unlink(self.path)


class Producer(Recorder):
    """Sends over TLS from the switch's namespace to where() (a node), and remembers when and from whom it has
    its receipts."""

    def __init__(self, load, source, where, seed, window=1):
        super().__init__(source, None, seed, LATER)
        self.load, self.where, self.at = load, where, None  # at: the number of the node
        self.WINDOW = window  # pylint: disable=invalid-name
        self.times = []  # (monotonic time, node, term, index) of each receipt

    def run(self):
        self.load.net.enter()
        super().run()

    def stream(self):
        node = self.where()
        self.at = node.number
        return Stream(INGEST, host=address(node.number), tls=self.load.tls, timeout=4, producer=self.source)

    def wanted(self):
        """What was sent is sent until it has a receipt, also when nothing new is."""
        return bool(self.go.is_set() or self.pending)

    def new_batch(self):
        time.sleep(PACE_S)  # a pace, not a wait for anything
        return super().new_batch()

    def take(self, receipt, ids):
        super().take(receipt, ids)
        self.times.append((time.monotonic(), self.at, receipt.term, receipt.index))


class Load:
    """The producers: one at each of some nodes, one that goes to any, and `sluice send` with all addresses."""

    def __init__(self, cluster, chance, seed):
        self.cluster, self.net, self.seed, self.sent_by_cli = cluster, cluster.switch, seed, {}
        self.files = cluster.pki.client("producer", "feed")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.load_verify_locations(self.files["ca"])
        self.tls.load_cert_chain(self.files["cert"], self.files["key"])
        self.producers = [Producer(self, "at-%d" % m.number, lambda m=m: m, seed) for m in cluster]
        self.producers += [
            Producer(self, "any", lambda: chance.choice(list(cluster)), seed, 16),
            Producer(self, "followers", lambda: self.a_follower(chance), seed, 16)]
        # Those with one batch under way read a receipt when it comes: what they have tells the time.
        self.prompt = [p for p in self.producers if p.WINDOW == 1]
        self.read = {}     # node number: (next index, {source: {id: (index, slot)}}): of the log, as far as read
        self.receipts_file = os.path.join(WORK, "receipts")
        self.sender = None

    def at(self, node, instead_of=None):
        """Receipts of this node are counted, too; by the producer that was at another until now, if there is one."""
        if instead_of:
            next(p for p in self.prompt if p.where() is instead_of).where = lambda: node
            return
        producer = Producer(self, "at-%d" % node.number, lambda: node, self.seed)
        self.producers.append(producer)
        self.prompt.append(producer)
        producer.go.set()
        producer.start()

    def a_follower(self, chance):
        """Some node that does not say that it leads."""
        return chance.choice([m for m in self.cluster if getattr(quick_status(m), "role", "") != "leader"] or
                             [self.cluster[1]])

    def start(self):
        for p in self.producers:
            p.start()
        to = ",".join("%s:%d" % (address(m.number), INGEST) for m in self.cluster)
        tls = [x for k, v in self.files.items() for x in ("--" + k, v)]
        self.sender = subprocess.Popen(
            [os.path.join(BIN, "sluice"), "send", "--generate", "0", "--rate", "300", "--batch", "10", "--quiet",
             "--source", "send", "--give-up", "0", "--retry", "600", "--address", to, *tls,
             "--receipts-file", self.receipts_file],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=self.net.join)

    def go(self):
        self.sender.send_signal(signal.SIGCONT)
        for p in self.producers:
            p.go.set()

    def count(self, nodes=None):
        """Receipts, of all nodes or of those, that were read as they came."""
        for p in self.producers:
            if p.error:
                raise p.error
        expect(self.sender.poll() is None, "sluice send goes on through all of it")
        return sum(1 for p in self.prompt for t in p.times if not nodes or t[1] in nodes)

    def more(self, n=40, nodes=None):
        """So many more receipts come, of any node or of those."""
        numbers = {m.number for m in nodes} if nodes else None
        before = self.count(numbers)
        wait_until(lambda: self.count(numbers) >= before + n, "%d more receipts from %s" % (n, numbers or "any node"))

    def none_of(self, node, seconds):
        """Watches for so long that no receipt comes from a node."""
        begun = time.monotonic()
        before = self.count({node.number})
        while time.monotonic() < begun + seconds:
            expect_equal(self.count({node.number}), before, "receipts of node %d" % node.number)
            time.sleep(0.02)

    def silence(self):
        """Until no receipt has come for a second."""
        seen = [self.count(), time.monotonic()]

        def silent():
            n = self.count()
            if n != seen[0]:
                seen[:] = n, time.monotonic()
            return time.monotonic() > seen[1] + 1
        wait_until(silent, "no receipt comes any more")

    def gap(self, since):
        """The longest time without a receipt, since then."""
        times = sorted(t[0] for p in self.prompt for t in p.times if t[0] >= since)
        expect(len(times) > 1, "receipts since then:", times)
        return max(b - a for a, b in zip([since] + times, times))

    def settle(self):
        """Everything has a receipt, nothing comes any more, and all nodes have the same log."""
        for p in self.producers:
            p.go.clear()
        wait_until(lambda: self.count() >= 0 and not any(p.pending for p in self.producers), "all has a receipt")
        self.sender.send_signal(signal.SIGSTOP)
        self.cluster.healthy()
        self.cluster.together()

    def check(self):
        """Settles; then every receipt holds on every node that runs."""
        self.settle()
        for node in self.cluster.running():
            self.check_node(node)
        return sum(len(p.receipts) for p in self.producers) + len(self.sent_by_cli)

    def check_node(self, node):
        log = self.log_of(node)
        for p in self.producers:
            self.check_one(node, p.source, log.get(p.source, {}), p.receipts)
        self.check_one(node, "send", log.get("send", {}), self.receipts_of_send())
        node.ledger()

    @staticmethod
    def check_one(node, source, log, receipts):
        for ident, place in receipts.items():
            expect_equal(log.get(ident), place, "place of %s %s on node %d" % (source, ident, node.number))

    def receipts_of_send(self):
        """{id: place, or None of what was refused}. The last line may be half written."""
        try:
            with open(self.receipts_file, "rb") as f:
                lines = f.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return {}
        for line in lines[len(self.sent_by_cli):]:
            ident, index, slot, reason = line.split()
            if reason not in (b"ACCEPTED", b"DUPLICATE", b"DISK_FULL"):
                raise Failed("sluice send got %r" % line)
            expect(ident not in self.sent_by_cli, "two receipts of sluice send for", ident)
            self.sent_by_cli[ident] = (int(index), int(slot)) if reason != b"DISK_FULL" else None
        return self.sent_by_cli

    def log_of(self, node):
        """{source: {id: place}}. What was read before is not read again."""
        at, log = self.read.get(node.number, (1, {}))
        sent = {p.source: p.sent for p in self.producers}
        until = node.status().last_index
        for index, slot, raw in node.tail(at):
            e = ev.Event.FromString(raw)
            ids = log.setdefault(e.source, {})
            expect(e.id not in ids, "twice in the log of node", node.number, e.source, e.id)
            ids[e.id] = (index, slot)
            if e.source in sent:
                expect(e.id in sent[e.source] and raw.startswith(sent[e.source][e.id]),
                       "other bytes than were sent, at node", node.number, e.source, e.id)
        self.read[node.number] = until + 1, log
        return log

    def stop(self):
        self.sender.send_signal(signal.SIGCONT)
        self.sender.send_signal(signal.SIGINT)
        code = self.sender.wait(60)
        refused = None in self.receipts_of_send().values()
        expect(code == refused, "sluice send, interrupted: exit", code, self.sender.stderr.read())
        for p in self.producers:
            p.end = True
            p.go.set()
            p.join()
