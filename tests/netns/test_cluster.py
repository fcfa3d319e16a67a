#!/usr/bin/python3
"""test_cluster.py - three daemons in network namespaces, over mutual TLS, under load, while nodes die, stop, are
cut off, run out of disk, rot, are restarted, upgraded and replaced.

Producers send to each node all the time and record every receipt with its place. Each round shows that its
fault was really there, and that receipts go on, or do not, as they should; when it is over, every receipt ever
given is checked on every node: the event is there, at that place, once, and all have the same chain.
"""
import os
import random
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from lab import BIN, FULL, expect, expect_equal, main, need, wait_until  # noqa: E402
from cluster_lab import Balloon, Disks, Load, NetCluster, quick_status  # noqa: E402

ELECTION_S = 0.3  # cluster.h: CLUSTER_ELECTION_MS
STORM_S = 20
NEXT = os.path.join(BIN + "-NEXT_VERSION", "sluiced")

need()
seed = int(os.environ.get("SLUICE_SEED", time.time_ns() % 100000))
chance = random.Random(seed)
print("seed %d (SLUICE_SEED repeats the choices, not the timing)" % seed)
disks, no_disks = None, ""
if FULL:
    try:
        disks = Disks()
    except OSError as e:
        no_disks = str(e)
cluster = NetCluster("netns", disks=disks, ledger__save_ms=50, log__disk_free_bytes_min="16MiB")
load = Load(cluster, chance, seed)


def test_init():
    """a cluster of three namespaces is made, and takes events at each node"""
    cluster.start()
    cluster.init()
    cluster.healthy()
    load.start()
    load.go()
    for m in cluster:
        load.more(5, [m])
    load.check()


def checked(what):
    """The end of a round."""
    print("     %s; %d receipts hold on nodes %s" % (
        what, load.check(), ", ".join(str(m.number) for m in cluster.running())), flush=True)


def begin():
    """Load on a healthy cluster; returns its leader, and the others."""
    load.go()
    cluster.healthy()
    leader = cluster.leader()
    load.more(20)
    return leader, cluster.others(leader)


# --- nodes die and stop ---------------------------------------------------------------------------


def test_leader_is_killed():
    """kill -9 of the leader: another leads, receipts go on without it, and with it when it is back"""
    leader, others = begin()
    term, begun = leader.status().term, time.monotonic()
    leader.kill()
    second = cluster.new_leader(leader)
    expect(second.status().term > term, "a later term than", term)
    load.more(20, others)
    gap = load.gap(begun)
    leader.start()
    load.more(5, [leader])
    checked("longest gap %.2f s" % gap)


def test_follower_is_killed():
    """kill -9 of a follower: the term stays, receipts go on, and the follower comes back to its place"""
    leader, others = begin()
    term, follower, begun = leader.status().term, chance.choice(others), time.monotonic()
    follower.kill()
    load.more(40, cluster.others(follower))
    expect_equal((leader.status().role, leader.status().term), ("leader", term), "role and term of the leader")
    gap = load.gap(begun)
    follower.start()
    load.more(5, [follower])
    checked("longest gap %.2f s" % gap)


def test_all_are_killed():
    """kill -9 of all three at once: no receipt without two of them, none is lost, and it goes on with all"""
    begin()
    for m in cluster:
        m.process.kill()
    for m in cluster:
        m.kill()
    last = chance.choice(list(cluster))
    first = chance.choice(cluster.others(last))
    first.start()
    load.none_of(first, 4 * ELECTION_S)
    expect_equal(first.status().role, "follower", "what one of three is")
    for m in cluster.others(first):
        m.start()
    for m in cluster:
        load.more(5, [m])
    checked("node %d was alone first" % first.number)


def test_restart_storm():
    """each node is killed at random times for a while, two of them at once now and then"""
    begin()
    kills, until = 0, time.monotonic() + STORM_S
    while time.monotonic() < until:
        victims = chance.sample(list(cluster), chance.choice((1, 1, 1, 2)))
        for m in victims:
            m.kill()
            kills += 1
        pause_at_most(chance.random() * 0.5)
        for m in victims:
            m.launch()
        pause_at_most(chance.random() * 1.5)
    for m in cluster:
        wait_until(m.serves, "node %d serves" % m.number)
    for m in cluster:
        load.more(5, [m])
    checked("%d kills" % kills)


def pause_at_most(seconds):
    """Any moment of this time; what the producers find meanwhile is looked at."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        load.count()
        time.sleep(0.01)


def test_leader_is_stopped():
    """SIGSTOP of the leader for longer than elections take: another leads; what it has taken in its old term
    and nobody else has gets no receipt from it when it goes on"""
    leader, others = begin()
    term = leader.status().term
    leader.pause()
    second = cluster.new_leader(leader)
    committed = second.status().commit_index
    load.more(20, others)
    expect(next(p for p in load.prompt if p.where() is leader).pending, "something waits for the node that is stopped")
    pause_at_most(2 * ELECTION_S)
    resumed = time.monotonic()
    leader.resume()
    wait_until(lambda: leader.status().term > term, "node %d has heard of the new term" % leader.number)
    load.more(10, [leader])
    for p in load.producers:
        stale = [t for t in p.times if t[0] > resumed and t[1] == leader.number and t[2] == term and t[3] > committed]
        expect(not stale, "receipts of the old term behind index", committed, stale)
    checked("node %d led meanwhile" % second.number)


def test_follower_is_stopped():
    """SIGSTOP of a follower: the others' receipts go on in the same term, and it catches up"""
    leader, others = begin()
    term, follower = leader.status().term, chance.choice(others)
    begun = time.monotonic()
    follower.pause()
    load.more(20, [leader])
    load.more(20, cluster.others(follower))
    pause_at_most(4 * ELECTION_S)
    gap = load.gap(begun)
    follower.resume()
    load.more(5, [follower])
    expect_equal(leader.status().term, term, "the leader's term")
    checked("longest gap %.2f s" % gap)


# --- the network ----------------------------------------------------------------------------------


def healed(*sources):
    """The filters had something to lose; they go."""
    for s in sources:
        expect(cluster.switch.lost(s.number) > 0, "packets of node %d were lost" % s.number)
    cluster.switch.heal()
    cluster.healthy()


def leader_is_cut(**directions):
    leader, others = begin()
    term, begun = leader.status().term, time.monotonic()
    cluster.cut(leader, **directions)
    try:
        second = cluster.new_leader(leader)
        expect(second.status().term > term, "a later term than", term)
        wait_until(lambda: leader.status().role != "leader", "node %d leads no longer" % leader.number)
        load.more(30, others)
        load.none_of(leader, 4 * ELECTION_S)
        gap = load.gap(begun)
        expect_equal(cluster.leader().number, second.number, "who leads")
    finally:
        healed(*(others if directions.get("sends") else [leader]))
    load.more(5, [leader])
    checked("longest gap %.2f s" % gap)


def test_leader_hears_only():
    """what the leader sends is lost: it stands down, another leads, and it gives no receipt"""
    leader_is_cut(hears=True)


def test_leader_sends_only():
    """what is sent to the leader is lost: it stands down, another leads, and it gives no receipt"""
    leader_is_cut(sends=True)


def test_leader_is_cut_off():
    """the leader is cut off both ways: it stands down, another leads, and it gives no receipt"""
    leader_is_cut()


def test_follower_is_cut_off():
    """a follower is cut off both ways for some seconds: the leader stays, and the term does when it is back"""
    leader, others = begin()
    term, follower, begun = leader.status().term, chance.choice(others), time.monotonic()
    cluster.cut(follower)
    try:
        load.more(40, cluster.others(follower))
        load.none_of(follower, 10 * ELECTION_S)
        gap = load.gap(begun)
    finally:
        healed(follower, leader)
    load.more(5, [follower])
    expect_equal((leader.status().role, leader.status().term), ("leader", term), "role and term of the leader")
    checked("longest gap %.2f s" % gap)


def test_one_direction_of_a_pair():
    """a follower does not hear the leader, but the other follower, and is heard: the leader stays"""
    leader, others = begin()
    term, follower, begun = leader.status().term, chance.choice(others), time.monotonic()
    cluster.switch.lose(leader.number, follower.number)
    try:
        load.more(40, cluster.others(follower))
        pause_at_most(10 * ELECTION_S)
        gap = load.gap(begun)
        expect_equal((leader.status().role, leader.status().term), ("leader", term), "role and term of the leader")
    finally:
        healed(leader)
    load.more(5, [follower])
    expect_equal((leader.status().role, leader.status().term), ("leader", term), "role and term of the leader")
    checked("longest gap %.2f s" % gap)


# --- disks ----------------------------------------------------------------------------------------


def disk_is_full(node):
    if not disks:
        print("     left out: no small file systems here (%s)" % no_disks)
        return
    begun = time.monotonic()
    with Balloon(node):
        wait_until(lambda: node.status().disk_full, "node %d says that its disk is full" % node.number)
        others = cluster.others(node)
        expect(not any(m.status().disk_full for m in others), "the others' disks are not full")
        load.more(60, others)
        expect(node.process.poll() is None, "node %d goes on" % node.number)
        gap = load.gap(begun)
    wait_until(lambda: not node.status().disk_full, "node %d has room again" % node.number)
    load.more(5, [node])
    checked("longest gap %.2f s" % gap)


def test_disk_of_follower_is_full():
    """a follower's disk is full: receipts go on with the other two; with room it catches up"""
    _, others = begin()
    disk_is_full(chance.choice(others))


def test_disk_of_leader_is_full():
    """the leader's disk is full: receipts go on with the other two; with room it catches up"""
    leader, _ = begin()
    disk_is_full(leader)


# --- restarts -------------------------------------------------------------------------------------


def restart(node, program=None):
    """As an operator does: SIGTERM, start, and on when all is well again."""
    node.stop()
    node.verify()
    node.program = program or node.program
    node.start()
    expect_equal(node.runs_program(), os.path.realpath(node.program), "what node %d runs" % node.number)
    cluster.healthy()
    load.more(5, [node])


def test_rolling_restart():
    """one node after the other is restarted under load: no receipt is lost, and none is long in coming"""
    begin()
    begun = time.monotonic()
    for m in cluster:
        restart(m)
    gap = load.gap(begun)
    expect(gap <= 5, "the longest gap between receipts: %.2f s" % gap)
    checked("longest gap %.2f s" % gap)


def test_rolling_upgrade():
    """one node after the other gets a build that speaks a newer version of the protocol, and then the old one
    again: every mixture works under load, and two nodes speak the newest version that both know"""
    expect(os.path.exists(NEXT), "first: make PLANT=NEXT_VERSION, for", NEXT)
    begin()
    old, begun = cluster[1].program, time.monotonic()
    for program in (NEXT, old):
        for m in cluster:
            heard_from = m.said()
            restart(m, program)
            for other in cluster.others(m):
                version = 2 if {m.program, other.program} == {NEXT} else 1
                m.heard("node %d at %s port %s, protocol version %d" % (
                    other.number, *other.peer.split(":"), version), heard_from)
        load.check()
        load.go()
    gap = load.gap(begun)
    checked("longest gap %.2f s, with pauses to check" % gap)


# --- rot ------------------------------------------------------------------------------------------


def sealed(node):
    """Its segments that end."""
    directory = os.path.join(node.data, "log")
    names = sorted(f for f in os.listdir(directory) if f.endswith(".seg"))
    return [os.path.join(directory, f) for f in names[:-1]]


def flip(path):
    """A bit in the first half, which is full of records."""
    with open(path, "r+b") as f:
        at = chance.randrange(4096, os.path.getsize(path) // 2)
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1 << chance.randrange(8)]))


def test_rot():
    """bits flip in sealed segments of a node that is down: it mends them from the others when it starts"""
    _, others = begin()
    node = chance.choice(others)
    wait_until(lambda: load.count() and len(sealed(node)) >= 3, "segments of node %d end" % node.number)
    node.stop()
    rotten = chance.sample(sealed(node), 2)
    for path in rotten:
        for _ in range(8):
            flip(path)
    done = node.cli("log", "verify", node.data, code=None)
    expect(done.returncode not in (0, 2), "verify finds rot: exit", done.returncode, done.stdout.decode())
    said = node.said()
    node.start()
    node.heard("repaired", said)
    cluster.healthy()
    load.more(5, [node])
    load.read.pop(node.number)
    checked("rot in %s" % ", ".join(map(os.path.basename, rotten)))
    node.stop()
    node.verify()
    node.start()


# --- members --------------------------------------------------------------------------------------


def test_four():
    """a fourth node joins under load; with two of four nothing gets a receipt, with three it goes on"""
    begin()
    four = cluster.member(4)
    four.start()
    cluster[1].cli("cluster", "add", four.place)
    load.at(four)
    load.more(5, [four])
    victims = chance.sample(list(cluster), 2)
    left = [m for m in cluster if m not in victims]
    for m in victims:
        m.kill()
    pause_at_most(4 * ELECTION_S)
    for m in left:
        load.none_of(m, ELECTION_S)
    victims[0].start()
    load.more(20, left)
    victims[1].start()
    load.more(5, victims)
    checked("nodes %d and %d were dead" % tuple(m.number for m in victims))


def test_replace():
    """a node that is dead for good is replaced by a fresh one under a new id; its old directory is refused"""
    leader, others = begin()
    dead, fresh = chance.choice(others), cluster.member(5)
    dead.kill()
    del cluster.members[dead.number]
    fresh.start()
    leader.cli("cluster", "replace", str(dead.number), fresh.place, "--yes")
    load.at(fresh, instead_of=dead)
    load.more(5, [fresh])
    term, said, index = cluster.leader().status().term, dead.said(), cluster.leader().status().last_index
    dead.start()
    dead.heard("is not a node of this cluster", said)
    load.more(40)
    expect(dead.status().role != "leader" and dead.status().commit_index <= index, "what it gets:", dead.status())
    expect_equal(cluster.leader().status().term, term, "the term, in spite of it")
    dead.stop()
    checked("node %d in place of %d" % (fresh.number, dead.number))


ROUNDS = [test_init, test_leader_is_killed, test_follower_is_killed, test_all_are_killed, test_restart_storm,
          test_leader_is_stopped, test_follower_is_stopped, test_leader_hears_only, test_leader_sends_only,
          test_leader_is_cut_off, test_follower_is_cut_off, test_one_direction_of_a_pair, test_rolling_restart,
          test_disk_of_follower_is_full, test_disk_of_leader_is_full, test_rot, test_rolling_upgrade, test_four,
          test_replace]
QUICK = [test_init, test_leader_is_stopped, test_leader_hears_only, test_all_are_killed]


def test_end():
    """all stop: each log verifies, and has the same events; read from its beginning, every receipt holds"""
    load.settle()
    load.stop()
    load.read.clear()
    cluster.healthy()
    cluster.together()
    for m in cluster:
        load.check_node(m)
    cluster.stop()
    found = {m.verify()["events"] for m in cluster}
    expect_equal(len(found), 1, "numbers of events: %s" % found)


wanted = sys.argv[1:]
main([t for t in (ROUNDS if FULL else QUICK) if not wanted or t in (test_init,) or t.__name__[5:] in wanted] +
     [test_end])
