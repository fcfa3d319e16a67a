#!/usr/bin/python3
"""regions.py - the second half of the demo, as root: six nodes in two regions, each with a network, a veth and
an XDP program of its own. A planned switchover under load; then the active region is cut off, goes on alone, and is
killed for real; the other one goes on by one command; the lost one comes back and gives what it had.

    regions.py BIN_DIR WORK_DIR        started by demo.sh, in namespaces that end with it

Each step prints what it took, and which receipts hold. Exit 0 only if every receipt for both regions holds at its
place all the while, and in the end every receipt there ever was; if what a failover took away is exactly what the
orphans have; and if all ledgers balance. DEMO_KEEP=1 leaves it up, and says how to play with it.
"""
import json
import os
import signal
import subprocess
import sys
import threading
import time

BIN, WORK = sys.argv[1], os.path.join(sys.argv[2], "regions")
NODES, PORT, PEER = range(1, 7), 7400, 7401
ONE, TWO = (1, 2, 3), (4, 5, 6)
begun, wrong, children = time.monotonic(), [], []


def section(text):
    print("\n== " + text, flush=True)


def say(text):
    print("  " + text, flush=True)


def oops(text):
    wrong.append(text)
    say("WRONG: " + text)


def expect(is_so, text):
    if not is_so:
        oops(text)


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit("demo: %s: %s" % (" ".join(words), done.stderr.strip() or done.stdout.strip()))
    return done.stdout


def wait_for(what, is_so, seconds=60):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = is_so()
        if found:
            return found
        time.sleep(0.02)
    raise SystemExit("demo: not within %d s: %s" % (seconds, what))


def child(*words, **how):
    """Ends with us."""
    process = subprocess.Popen(("setpriv", "--pdeathsig", "KILL", "--") + words, stdin=subprocess.DEVNULL, **how)
    children.append(process)
    return process


# --- networks and nodes -------------------------------------------------------------------------------------


class Node:
    def __init__(self, number):
        self.number, self.address = number, "10.79.0.%d" % number
        self.region = 1 if number in ONE else 2
        self.dir = os.path.join(WORK, "node%d" % number)
        self.process = None
        self.net = child("unshare", "--net", "sleep", "infinity")
        self.inside = ("nsenter", "--target", str(self.net.pid), "--net")
        ours = os.readlink("/proc/self/ns/net")
        wait_for("a network", lambda: os.readlink("/proc/%d/ns/net" % self.net.pid) != ours)
        run("ip", "link", "add", "n%d" % number, "type", "veth", "peer", "name", "eth0", "netns", str(self.net.pid))
        run("ip", "link", "set", "n%d" % number, "master", "br0", "up")
        run(*self.inside, "ip", "link", "set", "lo", "up")
        run(*self.inside, "ip", "addr", "add", self.address + "/24", "dev", "eth0")
        run(*self.inside, "ip", "link", "set", "eth0", "up")
        os.mkdir(self.dir)
        run(os.path.join(BIN, "sluice"), "cert", "create-node", "--id", str(number), "--host", self.address, "--dir",
            WORK)
        with open(self.dir + "/sluiced.yaml", "w", encoding="utf-8") as f:
            f.write("""node: {id: %d, region: %d, zone: rack%d}
data: {dir: %s/data}
ledger: {save_ms: 100}
log: {segment_bytes: 16MiB}
dedupe: {memory_bytes_max: 64MiB}
peer: {listen: "%s:%d"}
tls: {ca: %s/ca.crt, cert: %s/node-%d.crt, key: %s/node-%d.key}
ingest:
  address: [%s]
  port: %d
  insecure: true
  udp: {allow: [10.79.0.0/24]}
  tcp: {tls: true}
  xdp: {mode: native, interfaces: [eth0]}
""" % (number, self.region, number, self.dir, self.address, PEER, WORK, WORK, number, WORK, number, self.address, PORT))

    def start(self):
        with open(self.dir + "/log", "ab") as log:
            self.process = child(*self.inside, os.path.join(BIN, "sluiced"), "--config", self.dir + "/sluiced.yaml",
                                 stdout=log, stderr=log)

    def answers(self):
        if self.process.poll() is not None:
            with open(self.dir + "/log", encoding="utf-8") as f:
                raise SystemExit("demo: node %d has ended: %s" % (self.number, f.readlines()[-1]))
        return self.ask("status", wanted=None).returncode == 0

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ask(self, *words, wanted=0):
        done = subprocess.run([os.path.join(BIN, "sluice"), *words], capture_output=True, text=True, check=False,
                              env=dict(os.environ, SLUICE_SOCKET=self.dir + "/data/admin.sock"))
        if wanted is not None and done.returncode != wanted:
            raise SystemExit("demo: sluice %s at node %d: %s" % (" ".join(words), self.number, done.stderr.strip()))
        return done

    def json(self, *words):
        return json.loads(self.ask(*words, "--json", wanted=None).stdout)

    def cut(self, off=True):
        """From everybody: its port at the switch."""
        run("ip", "link", "set", "n%d" % self.number, "down" if off else "up")


def region(number):
    return [n for n in nodes if n.region == number]


def all_answer(some):
    for n in some:
        wait_for("node %d answers" % n.number, n.answers)


def together():
    """All nodes have the same log, and nothing is under way."""
    def same():
        s = [n.json("status") for n in nodes]
        return len({(x["lastIndex"], x["appliedIndex"], x["digest"]) for x in s}) == 1 and \
            s[0]["lastIndex"] == s[0]["appliedIndex"]
    wait_for("all nodes have the same log", same)


# --- producers ----------------------------------------------------------------------------------------------


class Sender:
    """`sluice send` over TLS, to one node or to several by their order; its receipts are in a file."""

    def __init__(self, name, to, durability="quorum", rate=2000):
        self.name, self.file = name, os.path.join(WORK, name + ".receipts")
        self.durability = durability
        self.gap = 0.0
        self.process = child(
            os.path.join(BIN, "sluice"), "send", "--generate", "0", "--rate", str(rate), "--batch", "20", "--source",
            name, "--durability", durability, "--give-up", "0", "--retry", "600", "--quiet", "--receipts-file",
            self.file, "--address", ",".join("%s:%d" % (n.address, PORT) for n in to), "--ca", WORK + "/ca.crt",
            "--cert", WORK + "/producer-demo.crt", "--key", WORK + "/producer-demo.key",
            stdout=subprocess.DEVNULL, stderr=open(os.path.join(WORK, name + ".err"), "wb"))
        threading.Thread(target=self.watch, daemon=True).start()

    def size(self):
        return os.path.getsize(self.file) if os.path.exists(self.file) else 0

    def watch(self):
        """The longest time without a receipt."""
        last, since = 0, time.monotonic()
        while True:
            size, now = self.size(), time.monotonic()
            self.gap = max(self.gap, now - since)
            if size != last:
                last, since = size, now
            time.sleep(0.002)

    def more(self, n=2000):
        before = self.size()
        wait_for("receipts for %s" % self.name, lambda: self.size() > before + n * 20)

    def receipts(self):
        """{id: place}"""
        with open(self.file, "rb") as f:
            lines = f.read().split(b"\n")[:-1]
        return {ident: (index, slot) for ident, index, slot, reason in (x.split() for x in lines)
                if reason in (b"ACCEPTED", b"DUPLICATE")}

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


def log_of(node):
    """{source: {id: place}}, of all events; one that is there twice is wrong."""
    tail = subprocess.Popen([os.path.join(BIN, "sluice"), "tail", "--from", "first", "--no-follow"],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            env=dict(os.environ, SLUICE_SOCKET=node.dir + "/data/admin.sock"))
    log, twice = {}, 0
    for line in tail.stdout:
        place, _, _, name = line.split(None, 4)[:4]
        source, ident = name.split(b"/", 1)
        ids = log.setdefault(source.decode(), {})
        twice += ident in ids
        ids[ident] = tuple(place.split(b"-")[1:])
    tail.wait()
    expect(twice == 0, "%d events are twice in the log of node %d" % (twice, node.number))
    return log


def check(node, senders, what):
    """How many receipts hold. Of those for both regions all, at their places."""
    all_given, missing = {s.name: s.receipts() for s in senders}, {}
    log = log_of(node)
    for s in senders:
        there, given = log.get(s.name, {}), all_given[s.name]
        gone = [i for i in given if i not in there]
        moved = sum(1 for i, place in given.items() if i in there and there[i] != place)
        missing[s.name] = len(gone)
        say("%s: %-9s %8d receipts for %-6s  %8d hold at their place, %d elsewhere, %d are missing" %
            (what, s.name, len(given), s.durability, len(given) - len(gone) - moved, moved, len(gone)))
        if s.durability == "region":
            expect(not gone and not moved, "receipts for both regions do not hold")
    return missing


def ledgers(some):
    for n in some:
        expect(n.ask("ledger", wanted=None).returncode == 0, "the ledger of node %d does not balance" % n.number)
    say("the ledgers of nodes %s balance" % ", ".join(str(n.number) for n in some))


# --- the story ----------------------------------------------------------------------------------------------

os.mkdir(WORK)
run("ip", "link", "set", "lo", "up")
run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "stp_state", "0")
run("ip", "addr", "add", "10.79.0.254/24", "dev", "br0")
run("ip", "link", "set", "br0", "up")
run(os.path.join(BIN, "sluice"), "cert", "create-ca", "--dir", WORK)
run(os.path.join(BIN, "sluice"), "cert", "create-client", "--role", "producer", "--name", "demo", "--dir", WORK)

section("Six nodes in two regions, each with a network and an XDP program of its own")
nodes = [Node(number) for number in NODES]
for node in nodes:
    node.start()
all_answer(nodes)
nodes[0].ask("cluster", "init", *["%d=%s:%d" % (n.number, n.address, PEER) for n in nodes])
wait_for("the cluster is healthy", lambda: nodes[0].ask("cluster", "status", wanted=None).returncode == 0)
nodes[0].ask("config", "set", "region.wait_ms", "60000")
for line in nodes[0].ask("cluster", "status").stdout.splitlines():
    say(line)
xdp = sum(1 for n in nodes if "native" in n.ask("status").stdout)
say("XDP in native mode at %d of 6 nodes" % xdp)
expect(xdp == 6, "XDP is not in native mode everywhere")

section("Events over TCP with receipts into both regions, over UDP into two nodes")
everywhere = [nodes[0], nodes[3], nodes[1], nodes[4], nodes[2], nodes[5]]
senders = [Sender("quorum-1", region(1)), Sender("quorum-2", region(2)),
           Sender("both-1", everywhere, "region"), Sender("both-2", everywhere[::-1], "region")]
udp = [child(os.path.join(BIN, "sluice"), "send", "--udp", "--generate", "100000", "--rate", "20000", "--batch", "10",
             "--source", "udp-%d" % n.number, "--run", "1", "--quiet", "--address", "%s:%d" % (n.address, PORT),
             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for n in (nodes[0], nodes[3])]
for s in senders:
    s.more()
for u in udp:
    expect(u.wait() == 0, "sluice send --udp failed")

section("A planned switchover under load: region 2 becomes the active one")
for s in senders:
    s.gap = 0.0
say(nodes[0].ask("cluster", "switchover", "--to", "2").stdout.strip())
for s in senders:
    s.more()
say("the longest wait for a receipt: " +
    ", ".join("%s %.0f ms" % (s.name, s.gap * 1000) for s in senders))

section("Region 1 is cut off: region 2, the active one, goes on alone at a quorum")
for n in region(1):
    n.cut()
senders[1].more(4000)
say("what is to be durable in both regions waits, and is not refused")

section("Region 2 is killed (kill -9), and the line to region 1 is whole again: nobody takes events")
for n in region(2):
    n.kill()
for n in region(1):
    n.cut(False)
text = wait_for("region 1 can be asked",
                lambda: (lambda d: d.stdout if d.returncode == 0 else None)(
                    nodes[0].ask("cluster", "failover", "--to", "1", "--dry-run", wanted=None)))
for line in text.splitlines():
    say(line)

section("sluice cluster failover --to 1 --yes")
asked = time.monotonic()
report = nodes[0].json("cluster", "failover", "--to", "1", "--yes", "--manifest", WORK + "/failover.pem")
say(report["result"])
senders[0].more(1)
took = time.monotonic() - asked
say("writing again %.2f s after the command" % took)
expect(took < 3, "that is more than 3 s")
senders[0].more(1000)
missing = check(nodes[0], senders, "before the lost region is back")
lost = sum(missing.values())
say("receipts at a quorum that the failover has taken away: %d; for both regions: 0" % lost)

section("Region 2 is started again: it hears of the new epoch, sets aside what it had alone, and comes back")
back = time.monotonic()
for n in region(2):
    n.start()
all_answer(region(2))
say(nodes[0].ask("cluster", "rejoin").stdout.strip() + ", %.1f s after the start" % (time.monotonic() - back))
files = nodes[0].json("cluster", "orphans")["orphans"]
for line in nodes[0].ask("cluster", "orphans").stdout.splitlines():
    say(line)
expect(lost <= max((f["events"] for f in files), default=0), "the orphans are fewer than what was lost")
nodes[0].json("cluster", "orphans", "--manifest", WORK + "/losses.pem")
manifest = nodes[0].json("cluster", "manifest", WORK + "/losses.pem", "--ca", WORK + "/ca.crt")
told = [end for end in manifest["manifest"]["losses"] if end["into"] == report["report"]["epoch"]]
least, most = (sum(end[k] for end in told) for k in ("eventsAtLeast", "eventsAtMost"))
say("the loss manifest, signed by node %d: between %d and %d events were receipted and lost" %
    (manifest["signedBy"], least, most))
expect(manifest["manifest"]["complete"], "the manifest is not of all members")
expect(lost <= most, "more receipts were lost than the manifest says")
nodes[0].json("cluster", "manifest", WORK + "/failover.pem", "--ca", WORK + "/ca.crt")

section("sluice cluster reconcile")
put = nodes[0].json("cluster", "reconcile")
say(put["result"])
expect(put["accepted"] >= lost, "fewer events were put in again than were lost")
expect(put["conflicts"] == 0 and not put["silent"], "a conflict, or a silent node")
for s in senders:
    s.more()
for s in senders:
    s.stop()
wait_for("the cluster is healthy", lambda: nodes[0].ask("cluster", "status", wanted=None).returncode == 0)
together()
for n in (nodes[0], nodes[4]):
    gone = check(n, senders, "node %d" % n.number)
    expect(sum(gone.values()) == 0, "receipts do not hold")
log = log_of(nodes[5])
for name in ("udp-1", "udp-4"):
    say("%s: %d of 100000 datagrams' events are in the log; UDP without receipts promises nothing" %
        (name, len(log.get(name, {}))))
ledgers(nodes)

if os.environ.get("DEMO_KEEP") == "1" and not wrong:
    section("It stays up (DEMO_KEEP=1). From another terminal, as root:")
    for n in nodes:
        say("export SLUICE_SOCKET=%s/data/admin.sock   # node %d, region %d" % (n.dir, n.number, n.region))
    say("%s/sluice cluster status; ... cluster failover --to 2 --dry-run" % BIN)
    say("kill -9 %s                          # region 1" % " ".join(str(n.process.pid) for n in region(1)))
    say("Ctrl-C here ends it.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass
for process in children:
    process.kill()
print("\n%.0f s. %s" % (time.monotonic() - begun, "Something is WRONG: see above." if wrong else
                        "Every receipt holds, and all accounts balance."), flush=True)
sys.exit(1 if wrong else 0)
