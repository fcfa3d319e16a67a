"""sluice_cluster.py - a cluster of real daemons on loopback, over mutual TLS, for end-to-end tests.

Each node has a directory, ports and a configuration of its own. `sluice cert` makes the certificates, one
CA for each cluster. Nothing here waits for a time, only for a condition.
"""
import json
import os
import subprocess

from sluice_node import BIN, WORK, Failed, Node, expect, free_port, wait_until


class Pki:
    """A CA, and what it signs."""

    def __init__(self, name):
        self.directory = os.path.join(WORK, name)
        self.cert("create-ca")

    def cert(self, what, *args):
        done = subprocess.run([os.path.join(BIN, "sluice"), "cert", what, "--dir", self.directory, *args],
                              capture_output=True, text=True, check=False)
        expect(done.returncode == 0, "sluice cert", what, *args, done.stdout, done.stderr)

    def node(self, number, host="localhost,127.0.0.1"):
        self.cert("create-node", "--id", str(number), "--host", host)
        return self.files("node-%d" % number)

    def client(self, role, name):
        self.cert("create-client", "--role", role, "--name", name)
        return self.files("%s-%s" % (role, name))

    def files(self, name):
        return {"ca": os.path.join(self.directory, "ca.crt"),
                "cert": os.path.join(self.directory, name + ".crt"),
                "key": os.path.join(self.directory, name + ".key")}


class Member(Node):
    """A node of a cluster; it may be of none yet."""

    def __init__(self, number, name, files, **settings):
        self.number = number
        self.peer = "127.0.0.1:%d" % free_port()
        keys = {"node.id": number, "node.zone": "rack%d" % number, "peer.listen": self.peer,
                "log.segment_bytes": "1MiB", "dedupe.memory_bytes_max": "16MiB"}
        if files:
            keys.update({"tls." + k: v for k, v in files.items()})
        keys.update({k.replace("__", "."): v for k, v in settings.items()})
        super().__init__(name, **keys)

    @property
    def place(self):
        return "%d=%s" % (self.number, self.peer)

    def serves(self):
        """Whatever its role is."""
        code = self.process.poll()
        if code is not None:
            raise Failed("sluiced ended with %s when it should start:\n%s" % (code, self.stderr()))
        try:
            return self.status().role in ("leader", "follower", "waiting")
        except (OSError, EOFError):
            return False

    def answers(self):
        """Can it be asked, whatever it says of itself?"""
        try:
            return self.status().role != ""
        except (OSError, EOFError):
            return False

    def runs(self):
        return self.process is not None and self.process.poll() is None

    def cluster_status(self):
        """As JSON, healthy or not."""
        return json.loads(self.cli("cluster", "status", "--json", code=None).stdout)


class Cluster:
    """Nodes 1 to n, of which none runs yet. The ones from second_region on are of region 2."""

    def __init__(self, name, n=3, tls=True, second_region=99, **settings):
        self.name, self.settings, self.second_region = name, settings, second_region
        self.pki = Pki(name + "-pki") if tls else None
        self.members = {}
        for number in range(1, n + 1):
            self.member(number)

    def member(self, number):
        """A directory for another node, which is not started."""
        files = self.pki.node(number) if self.pki else None
        self.members[number] = Member(number, "%s-%d" % (self.name, number), files, **self.settings,
                                      node__region=2 if number >= self.second_region else 1)
        return self.members[number]

    def __getitem__(self, number):
        return self.members[number]

    def __iter__(self):
        return iter(self.members.values())

    def running(self):
        return [m for m in self if m.runs()]

    def start(self):
        for m in self:
            m.launch()
        for m in self:
            wait_until(m.serves, "node %d serves" % m.number)

    def init(self, at=1, code=0, numbers=None):
        places = [self[n].place for n in (numbers or sorted(self.members))]
        return self[at].cli("cluster", "init", *places, code=code)

    def leader(self):
        """The node that leads and takes events, once there is one."""
        def leads():
            for m in self.running():
                try:
                    if m.status().role == "leader":
                        return m
                except (OSError, EOFError):
                    continue
            return None
        return wait_until(leads, "a node leads")

    def healthy(self):
        """Until a node that runs says so; returns its status."""
        def look():
            for m in self.running():
                s = m.cluster_status()
                if s.get("healthy"):
                    return s
            return None
        return wait_until(look, "the cluster is healthy")

    def together(self):
        """All that run have applied what the leader has committed, and have the same chain."""
        def same():
            try:
                seen = [m.status() for m in self.running()]
            except (OSError, EOFError):
                return False
            return len({(s.last_index, s.applied_index, s.digest) for s in seen}) == 1 and \
                seen[0].last_index == seen[0].applied_index
        wait_until(same, "all nodes have the same log")

    def stop(self):
        for m in self.running():
            m.stop()
