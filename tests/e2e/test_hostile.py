#!/usr/bin/python3
"""test_hostile.py - attacks that want a node to themselves: its descriptors, its end, its port.

test_client.py has the hostile bytes; here the node's surroundings or its life are what is attacked.
"""
import os
import socket
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from sluice_node import Node, Stream, expect, main, trade  # noqa: E402


def events(prefix, n, padding=0):
    return [trade("hostile", b"%s-%d" % (prefix.encode(), i), i, padding) for i in range(n)]


def descriptors():
    """whoever takes all descriptors that clients can get does not keep the log from its files"""
    node = Node("descriptors", log__segment_bytes="1MiB")
    node.start(wrap=["prlimit", "--nofile=128:128"])
    with Stream(node.port) as good:
        crowd = []
        for _ in range(300):
            try:
                crowd.append(socket.create_connection(("127.0.0.1", node.port), 1))
            except OSError:
                break
        # Every new segment and every checkpoint opens a file.
        for i in range(8):
            for j in range(4):
                good.batch(events("d%d-%d" % (i, j), 16, padding=2000))
        expect(len(os.listdir("/proc/%d/fd" % node.process.pid)) < 128, "no descriptor is left")
        for s in crowd:
            s.close()
    expect(any("RLIMIT_NOFILE" in note for note in node.status().notes), "status says nothing of it")
    node.ledger()
    node.stop()
    node.verify()


main([descriptors])
