#!/usr/bin/python3
"""test_rights.py - with fewer rights than XDP asks for, with less memory to lock, with and without bpffs: what there is
is used, the reason is said, and while it runs the node has no capability at all.
"""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from lab import (  # noqa: E402
    BIN, FULL, WORK, Ids, XdpNode, committed, drops, expect, expect_equal, lab, run, threads_capabilities, trade)

ids = Ids()


def traffic(p, node, n=50):
    for to in (p.s4, p.s6):
        with p.udp(to) as s:
            for i in range(n):
                s.send(trade("rights", ids(), i))
    a = node.seen(2 * n)
    expect_equal((committed(a), drops(a)), (2 * n, {}), "committed and drops")
    return a


def without(*capabilities):
    return ["setpriv", "--pdeathsig", "KILL", "--bounding-set", ",".join("-" + c for c in capabilities)]


def noted(node, name, mode, word):
    i = node.interface(name)
    expect_equal(i["mode"], mode, "mode; the note: " + i["note"])
    expect(word in i["note"], "xdp status says", repr(word), "but:", i["note"])
    expect(any(word in n for n in node.status().notes), "status says", repr(word), "but:", node.status().notes)
    expect(word in node.stderr(100), "the log says", repr(word))


def capabilities():
    """while it runs no thread has any capability, nor can get one, and it works without"""
    with lab() as (p,):
        node = XdpNode(p.server, [p], "native", ingest__workers=2)
        # Without a dispatcher, which cannot be left without capabilities.
        node.wrap = ["unshare", "-m", "sh", "-c", "umount -l /sys/fs/bpf 2>/dev/null; exec \"$@\"", "sh"]
        with node:
            i = node.interface(p.s)
            expect_equal(i["attach"], "single", "how it is attached")
            expect("bpffs is not mounted" in i["note"], "note", i["note"])
            got = threads_capabilities(node.process.pid)
            for kind in ("CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd"):
                expect_equal(got[kind], {0}, kind + " of every thread")
            a = traffic(p, node)
            expect_equal(a["xdp"]["redirected"], 100, "redirected")
            node.set("admit.quote", "drop")
            traffic_after = threads_capabilities(node.process.pid)
            expect_equal(traffic_after["CapEff"], {0}, "afterwards")


def refused():
    """root without the capabilities that XDP asks for: sockets, and the reason"""
    bpf = ("bpf", "sys_admin", "perfmon")
    cases = (((*bpf, "net_admin"), "socket", "CAP_BPF"), (("net_raw",), "native", "CAP_NET_RAW"),
             (bpf, "socket", "CAP_BPF"), (("net_admin", "sys_admin"), "socket", "CAP_NET_ADMIN"))
    for missing, mode, word in cases if FULL else cases[:2]:
        with lab() as (p,):
            node = XdpNode(p.server, [p], "auto" if "net_raw" not in missing else "native")
            node.wrap = without(*missing)
            with node:
                noted(node, p.s, mode, word)
                a = traffic(p, node)
                if mode == "native":
                    # The program runs, without sockets to redirect to.
                    expect_equal((a["xdp"]["arrived"], a["xdp"]["passed"]), (100, 100), "arrived and passed")
                expect_equal(threads_capabilities(node.process.pid)["CapEff"], {0}, "CapEff")
            expect_equal(p.server.program(p.s), None, "the program after the end")


def give_to_user(node, capabilities_, limit=None):
    """The node will run as a user that nobody else has, so that what it may lock is its own, with these
    capabilities. False when that user could not even read the program."""
    if not readable_by_others(BIN):
        print("  not tried: another user cannot read", BIN)
        return False
    uid = 100000 + os.getpid() * 10 + len(os.listdir(WORK)) % 10
    few = ",".join("+" + c for c in capabilities_)
    node.wrap = ["setpriv", "--pdeathsig", "KILL", "--reuid", str(uid), "--regid", str(uid), "--clear-groups",
                 "--inh-caps", few, "--ambient-caps", few]
    if limit is not None:
        node.wrap = ["prlimit", "--memlock=%d:%d" % (limit, limit)] + node.wrap
    node.configure(dict(node.keys, **{"admin.uids": "[0]"}))
    os.makedirs(node.data, exist_ok=True)
    os.chmod(WORK, 0o755)
    for path in (node.home, node.data):
        os.chmod(path, 0o755)
        os.chown(path, uid, uid)
    return True


def ordinary():
    """a user who was given just the capabilities that XDP asks for has it"""
    with lab() as (p,):
        node = XdpNode(p.server, [p], "native")
        if not give_to_user(node, ("bpf", "net_admin", "net_raw", "ipc_lock", "perfmon")):
            return
        with node:
            expect_equal(node.interface(p.s)["mode"], "native", "mode; " + node.interface(p.s)["note"])
            a = traffic(p, node)
            expect_equal(a["xdp"]["redirected"], 100, "redirected")
            if node.interface(p.s)["attach"] == "single":
                expect_equal(threads_capabilities(node.process.pid)["CapEff"], {0}, "CapEff")


def closed():
    """root's data behind a directory of a user's that is closed to others: it gets there, and says what it keeps"""
    with lab() as (p,):
        node = XdpNode(p.server, [p], "native")
        home = os.path.join(node.home, "user")
        os.mkdir(home, 0o700)
        os.chown(home, 100000, 100000)
        node.configure(dict(node.keys, **{"data.dir": os.path.join(home, "data")}))
        with node:
            traffic(p, node)
            expect("CAP_DAC_OVERRIDE" in node.stderr(100), "the log says what was kept:", node.stderr(100))


def readable_by_others(path):
    path = os.path.realpath(path)
    while path != "/":
        if not os.stat(path).st_mode & 0o001:
            return False
        path = os.path.dirname(path)
    return True


def memory():
    """with little memory to lock rings are smaller, or it is sockets, and that is said"""
    # 64 descriptors of one queue lock 1 MiB, 128 two; without rings half of one is enough.
    limits = ((700000, False), ((2 << 20) + 70000, True), (3000000, True))
    for limit, fits in limits if FULL else limits[:2]:
        with lab() as (p,):
            node = XdpNode(p.server, [p], "native", ingest__xdp__ring=128)
            if not give_to_user(node, ("bpf", "net_admin", "net_raw", "perfmon"), limit):
                return
            with node:
                i = node.interface(p.s)
                a = traffic(p, node, 25)
                expect_equal(a["xdp"]["redirected" if fits else "passed"], 50, i["note"])
                if limit < 3000000:
                    noted(node, p.s, "native", "RLIMIT_MEMLOCK")
                    expect(("ingest.xdp.ring is 64" if fits else "no AF_XDP") in i["note"], "the note:", i["note"])


def file_systems():
    """with bpffs mounted, and without, it attaches, works, and leaves nothing behind"""
    mounts = ("mount -t bpf bpf /sys/fs/bpf", "umount -l /sys/fs/bpf 2>/dev/null")
    for mount in mounts if FULL else mounts[:1]:
        for mode in ("native", "generic") if FULL else ("native",):
            with lab() as (p,):
                node = XdpNode(p.server, [p], mode)
                node.wrap = ["unshare", "-m", "sh", "-c", mount + "; exec \"$@\"", "sh"]
                with node:
                    i = node.interface(p.s)
                    expect_equal(i["mode"], mode, "mode")
                    expect(i["attach"] == "dispatcher" or "without a dispatcher: " in i["note"], "note", i["note"])
                    if mount.startswith("umount"):
                        expect("bpffs is not mounted" in i["note"], "note", i["note"])
                    expect(i["attached"], "it is attached")
                    a = traffic(p, node)
                    expect_equal(a["xdp"]["redirected"], 100, "redirected")
                expect_equal(p.server.program(p.s), None, "the program after the end")


if __name__ == "__main__":
    run([capabilities, refused, ordinary, closed, memory, file_systems])
