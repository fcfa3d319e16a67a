"""region_lab.py - a cluster in two regions, each a network namespace, with a line between them that takes its
time (wan.c):

    nodes 1, 2, 3: 10.77.1.1 to .3 -- wan0 ~~~ 30 ms each way ~~~ wan0 -- nodes 4, 5, 6: 10.77.2.4 to .6

The line is one to the kernels at both ends: it delays and loses packets, and can be cut one way.
"""
import os
import subprocess

from lab import BIN, Net, Stream, expect_equal, wait_until
from cluster_lab import INGEST, NetMember
from recorder import Recorder
from sluice_cluster import Cluster

DELAY_US = 30000


def region_of(number):
    return 1 if number < 4 or number == 7 else 2


def address(number):
    return "10.77.%d.%d" % (region_of(number), number)


class Wan:
    """Two namespaces, and the line."""

    def __init__(self):
        self.net = {1: Net(), 2: Net()}
        self.process = subprocess.Popen(
            [os.path.join(BIN, "wan"), "wan0", self.net[1].path, self.net[2].path], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1)
        expect_equal(self.process.stdout.readline(), "ready\n", "the line's word")
        for r, net in self.net.items():
            net.run("ip link set wan0 mtu 60000 up")
            net.run("ip route add 10.77.%d.0/24 dev wan0" % (3 - r))
        self.delay(DELAY_US)

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        return self.process.stdout.readline().strip()

    def delay(self, us):
        expect_equal(self.tell("delay %d" % us), "ok", "delay")

    def lose(self, per_mille):
        expect_equal(self.tell("loss %d" % per_mille), "ok", "loss")

    def cut(self, one=False, two=False):
        """What region 1 sends, and what region 2 does; without either it is whole again."""
        expect_equal(self.tell("cut %d" % (2 if one and two else 0 if one else 1 if two else 3)), "ok", "cut")

    def stats(self):
        """(bytes, packets, lost) of what region 1 has sent, and region 2."""
        n = [int(x) for x in self.tell("stats").split()[1:]]
        return tuple(n[:3]), tuple(n[3:])


class RegionCluster(Cluster):
    def __init__(self, name, n=6, tls=True, **settings):
        self.wan = Wan()
        super().__init__(name, n, tls, **settings)

    def member(self, number):
        net, host = self.wan.net[region_of(number)], address(number)
        net.run("ip addr add %s/32 dev lo" % host)
        files = self.pki.node(number, host) if self.pki else None
        self.members[number] = NetMember(net, number, "%s-%d" % (self.name, number), files, host=host,
                                         node__region=region_of(number), **self.settings)
        return self.members[number]

    def cluster_active(self):
        """The active region, by what a node that answers says; waits until there is one."""
        def look():
            for m in self.running():
                found = [r["region"] for r in m.cluster_status().get("regions", ()) if r["active"]]
                if len(found) == 1:
                    return found[0]
            return None
        return wait_until(look, "a region is active")

    def region(self, number):
        return [m for m in self if region_of(m.number) == number]

    def send(self, node, *options, durability=None):
        """`sluice send` from the node's own region; returns its process."""
        if self.pki:
            files = self.pki.files("producer-feed")
            options = [x for k, v in files.items() for x in ("--" + k, v)] + list(options)
        if durability:
            options = ["--durability", durability] + list(options)
        return subprocess.Popen(
            [os.path.join(BIN, "sluice"), "send", "--json-summary", "--quiet", "--address",
             "%s:%d" % (node.host, INGEST), *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=node.net.join)


class RegionProducer(Recorder):
    """Sends to a node from within its region."""

    def __init__(self, cluster, node, source, seed, again, durability, tls=None):
        super().__init__(source, None, seed, again, durability)
        self.node, self.tls = node, tls

    def run(self):
        self.node.net.enter()
        super().run()

    def stream(self):
        return Stream(INGEST, host=self.node.host, tls=self.tls, timeout=20, durability=self.durability)
