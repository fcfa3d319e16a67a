#!/usr/bin/python3
"""Starts, stops and limits that are not as they should be: what a whole node makes of them.

Environment: SLUICE_BIN (where sluiced and sluice are).
"""
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.abspath(os.environ.get("SLUICE_BIN", os.path.join(ROOT, "build/release")))
TMP = tempfile.mkdtemp(prefix="sluice-adversity-")
DEADLINE_S = 60
started = []


def generate():
    subprocess.run(
        ["protoc", "-I" + ROOT, "--python_out=" + TMP, os.path.join(ROOT, "proto/event.proto")], check=True
    )
    sys.path.insert(0, os.path.join(TMP, "proto"))
    import event_pb2

    return event_pb2


pb = generate()


def check(truth, *what):
    if not truth:
        print("FAILED:", *what)
        sys.exit(1)


def until(truth, *what):
    end = time.monotonic() + DEADLINE_S
    while not truth():
        check(time.monotonic() < end, "not within", DEADLINE_S, "s:", *what)
        time.sleep(0.01)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Node:
    """A directory, a config, and at times a process."""

    def __init__(self, name, **more):
        self.dir = os.path.join(TMP, name)
        self.port = free_port()
        self.socket = os.path.join(self.dir, "admin.sock")
        self.config = self.dir + ".yaml"
        self.log = self.dir + ".err"
        self.more = more
        self.process = None
        self.write_config(self.socket)

    def write_config(self, admin_socket):
        with open(self.config, "w") as f:
            f.write("data: { dir: %s }\nadmin: { socket: %s }\n" % (self.dir, admin_socket))
            f.write("ingest: { port: %d, address: [127.0.0.1] }\n" % self.port)
            f.write("log: { segment_bytes: 1MiB, disk_free_bytes_min: 0 }\n")
            f.write("dedupe: { memory_bytes_max: 32MiB }\nledger: { save_ms: 50 }\n")

    def start(self, prepare=None, redirect=True):
        self.process = subprocess.Popen(
            [os.path.join(BIN, "sluiced"), "--config", self.config],
            stdout=subprocess.DEVNULL,
            stderr=open(self.log, "ab") if redirect else subprocess.DEVNULL,
            preexec_fn=prepare,
        )
        started.append(self.process)
        until(lambda: os.path.exists(self.socket) or self.process.poll() is not None, "no start")
        check(self.process.poll() is None, "ended at once:", self.said())
        until(lambda: self.status() is not None, "no status")

    def said(self):
        return open(self.log).read() if os.path.exists(self.log) else ""

    def cli(self, *arguments):
        return subprocess.run(
            [os.path.join(BIN, "sluice"), *arguments, "--socket", self.socket],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def status(self):
        r = self.cli("status", "--json")
        return json.loads(r.stdout) if r.returncode == 0 else None

    def stop(self, signals=1):
        for _ in range(signals):
            self.process.send_signal(signal.SIGTERM)
        check(self.process.wait(DEADLINE_S) == 0, "exit", self.process.returncode, self.said())

    def balances(self):
        r = self.cli("ledger")
        check(r.returncode == 0, r.stdout)


def event(n):
    e = pb.Event(type=pb.TRADE, source="adversity", id=b"%d" % n, timestamp_ns=time.time_ns(), symbol="X" * 16)
    e.trade.price, e.trade.price_scale, e.trade.size, e.trade.venue = 18750, 2, 100, "XNAS"
    return e.SerializeToString()


class Flood(threading.Thread):
    """Sends datagrams until it is stopped."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.over, self.sent = port, False, 0
        self.start()

    def run(self):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.connect(("127.0.0.1", self.port))
        while not self.over:
            try:
                s.send(event(self.sent))
                self.sent += 1
            except ConnectionRefusedError:
                pass

    def stop(self):
        self.over = True
        self.join()


def connections_leave_descriptors_for_the_log():
    n = Node("descriptors")
    n.start(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300)))
    held = []
    for _ in range(400):
        held.append(socket.create_connection(("127.0.0.1", n.port), timeout=DEADLINE_S))
    flood = Flood(n.port)
    until(lambda: n.process.poll() is not None or int(n.status()["checkpointIndex"]) > 3, "no checkpoint")
    check(n.process.poll() is None, "the node ended:", n.said())
    flood.stop()
    check(n.status()["role"] == "leader", "role")
    n.balances()
    for c in held:
        c.close()
    n.stop()


def standard_files_that_are_closed_do_not_become_the_logs():
    n = Node("closed")
    n.start(lambda: [os.close(fd) for fd in (0, 1, 2)], redirect=False)
    for fd in (0, 1, 2):
        target = os.readlink("/proc/%d/fd/%d" % (n.process.pid, fd))
        check(target == "/dev/null", fd, "is", target)
    n.stop()


def a_start_that_fails_late_commits_and_accounts_for_what_was_taken():
    n = Node("late")
    flood = Flood(n.port)
    n.write_config(TMP + "/none/admin.sock")
    for _ in range(5):
        r = subprocess.run([os.path.join(BIN, "sluiced"), "--config", n.config], stderr=subprocess.PIPE, text=True)
        check(r.returncode == 1, "exit", r.returncode, r.stderr)
        check("admin socket" in r.stderr, r.stderr)
    flood.stop()
    n.write_config(n.socket)
    n.start()
    total = json.loads(n.cli("ledger", "--json").stdout)["events"]["total"]
    check(int(n.status()["events"]) == int(total["committed"]), "the log holds", n.status()["events"], "the ledger", total)
    n.balances()
    n.stop()


def two_signals_and_a_client_that_does_not_read_do_not_hold_up_a_stop():
    n = Node("signals")
    n.start()
    silent = socket.create_connection(("127.0.0.1", n.port))
    flood = Flood(n.port)
    until(lambda: int(n.status()["events"]) > 0, "no events")
    n.stop(signals=2)
    flood.stop()
    silent.close()


def a_node_that_was_stopped_for_a_while_goes_on():
    n = Node("paused")
    n.start()
    n.process.send_signal(signal.SIGSTOP)
    time.sleep(5)  # longer than any of the engine's timeouts
    n.process.send_signal(signal.SIGCONT)
    r = subprocess.run(
        [os.path.join(BIN, "sluice"), "send", "--address", "127.0.0.1:%d" % n.port, "--generate", "1000"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    check(r.returncode == 0, r.stdout)
    check(int(n.status()["events"]) == 1000, "events", n.status()["events"])
    n.stop()


tests = [
    connections_leave_descriptors_for_the_log,
    standard_files_that_are_closed_do_not_become_the_logs,
    a_start_that_fails_late_commits_and_accounts_for_what_was_taken,
    two_signals_and_a_client_that_does_not_read_do_not_hold_up_a_stop,
    a_node_that_was_stopped_for_a_while_goes_on,
]
try:
    for test in tests:
        if len(sys.argv) < 2 or test.__name__ in sys.argv[1:]:
            test()
            print("ok", test.__name__)
finally:
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
    shutil.rmtree(TMP, ignore_errors=True)
