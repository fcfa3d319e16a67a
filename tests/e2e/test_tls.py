#!/usr/bin/python3
"""test_tls.py - mutual TLS from end to end: producers and administrators with certificates of `sluice cert`.

Clients are ours (sluice send and bench, with libsluice), Python's own TLS with protobuf's own library, and
openssl's s_client. Whoever may not come in is told why, counted, and keeps nobody else waiting.
"""
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from sluice_node import (BIN, WAIT_S, WORK, Failed, Node, Stream, client_frame, expect,  # noqa: E402
                         expect_equal, frames, free_port, main, trade, wait_until, wire)

PKI, OTHER = os.path.join(WORK, "pki"), os.path.join(WORK, "other")


def run(*args, code=0, **more):
    done = subprocess.run(args, capture_output=True, text=True, timeout=300, check=False, **more)
    if code is not None:
        expect_equal(done.returncode, code, "exit code of %s\n%s%s" % (" ".join(args), done.stdout, done.stderr))
    return done


def cert(*args):
    run(os.path.join(BIN, "sluice"), "cert", *args)


def make_certificates():
    for directory in (PKI, OTHER):
        cert("create-ca", "--dir", directory)
        cert("create-client", "--dir", directory, "--role", "producer", "--name", "feed")
    for node in ("1", "2"):
        cert("create-node", "--dir", PKI, "--id", node, "--host", "127.0.0.1")
    cert("create-client", "--dir", PKI, "--role", "admin", "--name", "alice")
    cert("create-client", "--dir", PKI, "--role", "reader", "--name", "bob")
    make_expired()


def make_expired():
    """One as `sluice cert` would not make it: it was good for a day, long ago."""
    key, request, config = (os.path.join(PKI, "old." + x) for x in ("key", "csr", "cnf"))
    run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
        "/CN=old", "-keyout", key, "-out", request)
    with open(config, "w", encoding="utf-8") as f:
        f.write("[ca]\ndefault_ca=d\n[d]\ndatabase=%s\nnew_certs_dir=%s\nrand_serial=yes\ndefault_md=sha256\n"
                "policy=p\nx509_extensions=e\nunique_subject=no\n[p]\ncommonName=supplied\n[e]\n"
                "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\n"
                "subjectAltName=URI:urn:sluice:client:producer:old\n" % (os.path.join(PKI, "index"), WORK))
    with open(os.path.join(PKI, "index"), "w", encoding="utf-8"):
        pass
    run("openssl", "ca", "-batch", "-config", config, "-cert", path("ca.crt"), "-keyfile", path("ca.key"), "-in",
        request, "-out", path("old.crt"), "-startdate", "20200101000000Z", "-enddate", "20200102000000Z", "-notext")
    os.chmod(key, 0o600)


def path(name, directory=PKI):
    return os.path.join(directory, name)


def files(name, directory=PKI, ca=PKI):
    """Options of `sluice` for whoever this is: producer-feed, admin-alice, ..."""
    return ["--ca", path("ca.crt", ca), "--cert", path(name + ".crt", directory), "--key",
            path(name + ".key", directory)]


if not shutil.which("openssl"):
    print("there is no openssl")
    sys.exit(77)
make_certificates()
TLS = {"tls__ca": path("ca.crt"), "tls__key": path("node-1.key"), "tls__cert": path("node-1.crt")}
ADMIN = free_port()
node = Node("tls", ingest__tcp__tls="true", ingest__tcp__frame_s_max=2, ingest__workers=2,
            admin__listen='"127.0.0.1:%d"' % ADMIN, **TLS)


def context(name=None, directory=PKI, ca=PKI):
    """Python's TLS, which checks the node's certificate against its address, too."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(path("ca.crt", ca))
    if name:
        c.load_cert_chain(path(name + ".crt", directory), path(name + ".key", directory))
    return c


class TlsStream(Stream):
    """A TCP client over TLS."""

    def __init__(self, port, c, hello=True):  # pylint: disable=super-init-not-called
        plain = socket.create_connection(("127.0.0.1", port), WAIT_S)
        try:
            self.s = c.wrap_socket(plain, server_hostname="127.0.0.1")
        except OSError:
            plain.close()
            raise
        self.frames = frames(self.s)
        self.requests = 0
        if hello:
            self.send(client_frame(1, wire.Hello(protocol=1, producer="e2e").SerializeToString()))
            frame = self.next()
            expect(frame is not None and frame.HasField("welcome"), "a welcome after hello, got", frame)


def streams():
    return json.loads(node.cli("ledger", "--json", code=None).stdout)["streams"]


@contextlib.contextmanager
def counts(name, n):
    """That so many are counted by then."""
    before = streams().get(name, 0)
    yield
    wait_until(lambda: streams().get(name, 0) >= before + n, "%s grows by %d" % (name, n))
    expect_equal(streams().get(name, 0) - before, n, name)


def committed():
    return sum(1 for _ in node.tail())


def address(port=None):
    return "127.0.0.1:%d" % (port or node.port)


# --- who may send ---------------------------------------------------------------------------------


def test_send():
    """sluice send and sluice bench over TLS"""
    before = committed()
    done = node.cli("send", "--generate", "3000", "--address", address(), *files("producer-feed"))
    expect(b"accepted    3000" in done.stdout, done.stdout)
    env = {"SLUICE_CA": path("ca.crt"), "SLUICE_CERT": path("node-2.crt"), "SLUICE_KEY": path("node-2.key")}
    done = run(os.path.join(BIN, "sluice"), "send", "--generate", "100", "--address", address(),
               env=dict(os.environ, **env))
    expect("accepted    100" in done.stdout, done.stdout)
    result = node.json("bench", "--to", address(), "--seconds", "1", "--rate", "500", *files("admin-alice"))
    expect(result["accepted"] == result["eventsSent"] > 0, result)
    expect_equal(committed() - before, 3100 + result["eventsSent"], "events in the log")
    node.ledger()


def test_python():
    """a client that has no line in common with ours"""
    events = [trade("py", b"tls-%d" % i, i) for i in range(200)]
    before = committed()
    with TlsStream(node.port, context("producer-feed")) as s:
        expect_equal(s.s.version(), "TLSv1.3", "version")
        r = s.batch(events)
        expect_equal((r.accepted, r.duplicates), (200, 0), "accepted, duplicates")
        again = s.batch(events)
        expect_equal((again.accepted, again.duplicates), (0, 200), "accepted, duplicates of the second")
        for start in range(0, 200, 7):  # many small frames, many records
            s.send_batch(events[start:start + 7])
        for start in range(0, 200, 7):
            expect_equal(s.receipt().duplicates, len(events[start:start + 7]), "duplicates")
        big = [trade("py", b"big-%d" % i, i, padding=900) for i in range(40)]
        expect_equal(s.batch(big).accepted, 40, "accepted of a large frame")
    stored = [raw for _, _, raw in node.tail()][before:]
    for sent, raw in zip(events + big, stored):
        expect(raw.startswith(sent), "stored bytes differ from those sent")
    expect_equal(len(stored), 240, "events stored")
    node.ledger()


def s_client(*more, code=None):
    return run("openssl", "s_client", "-connect", address(), "-CAfile", path("ca.crt"), "-verify_return_error",
               "-brief", *more, code=code, input="")


def test_s_client():
    """openssl's own program agrees: TLS 1.3 alone, a certificate each, no resumption"""
    mine = ["-cert", path("producer-feed.crt"), "-key", path("producer-feed.key")]
    session = os.path.join(WORK, "session")
    done = s_client(*mine, "-sess_out", session, "-verify_ip", "127.0.0.1", code=0)
    said = done.stdout + done.stderr
    expect("TLSv1.3" in said and "Verification: OK" in said and "ECDSA" in said, said)
    expect(not os.path.exists(session), "a session that could be resumed")
    with counts("connections_refused", 2):
        expect(s_client(*mine, "-tls1_2").returncode != 0, "TLS 1.2 is taken")
        s_client() # its handshake is over before it is told that it needs a certificate


# --- who may not ----------------------------------------------------------------------------------


def test_reader():
    """a reader may not send, and is told so"""
    with counts("connections_refused", 2):
        with TlsStream(node.port, context("reader-bob"), hello=False) as s:
            frame = s.next()
            expect(frame.HasField("error") and frame.error.closing, frame)
            expect_equal(frame.error.code, wire.ERROR_NOT_PERMITTED, "error")
            expect("may not send" in frame.error.message, frame.error.message)
            expect(s.next() is None, "the end of the connection")
        done = node.cli("send", "--generate", "1", "--address", address(), "--connect-timeout", "2",
                        *files("reader-bob"), code=3)
        expect(b"may not send events" in done.stderr, done.stderr)

    def reported(): # one refusal a second is
        with TlsStream(node.port, context("reader-bob"), hello=False) as s:
            s.next()
        return "reader bob may not send events" in node.stderr(50)
    wait_until(reported, "a report of it")


def refused_with(alert, c):
    """In TLS 1.3 a client hears of it with its first read. When a client is quick to write, a reset may
    come before the alert is read: that is a refusal too, and the server counts it."""
    try:
        with TlsStream(node.port, c, hello=False) as s:
            got = s.s.recv(1)
            raise Failed("taken, and got %r" % got)
    except ssl.SSLError as e:
        expect(alert in str(e).lower().replace("_", " "), "alert %r, not %s" % (alert, e))
    except ConnectionResetError:
        pass


def test_strangers():
    """no certificate, another CA's, an expired one: refused, by TLS's own alert"""
    loose = context("producer-feed", OTHER)
    with counts("connections_refused", 3):
        refused_with("certificate required", context())
        refused_with("unknown ca", loose)
        refused_with("certificate expired", context("old"))
    # Ours does not even try with files that are not right.
    for name, directory, words in (("old", PKI, "has expired: it was good until 2020-01-02T00:00:00Z"),
                                   ("producer-feed", OTHER, "is not signed by")):
        done = node.cli("send", "--generate", "1", "--address", address(), *files(name, directory), code=2)
        expect(words.encode() in done.stderr, done.stderr)
    # And does not trust a node of another CA.
    with counts("connections_refused", 1):
        done = node.cli("send", "--generate", "1", "--address", address(), "--connect-timeout", "2",
                        *files("producer-feed", OTHER, OTHER), code=3)
    expect(b"the peer's certificate is not signed by our CA" in done.stderr, done.stderr)


def test_plaintext_to_tls():
    """a client without TLS is told that it needs it"""
    with counts("connections_refused", 2):
        with Stream(node.port, hello=False) as s:
            s.send(client_frame(1, wire.Hello(protocol=1).SerializeToString()))
            frame = s.next()
            expect_equal(frame.error.code, wire.ERROR_TLS_REQUIRED, "error")
            expect(s.next() is None, "the end of the connection")
        done = node.cli("send", "--generate", "1", "--address", address(), "--connect-timeout", "2", code=3)
        expect(b"over TLS alone" in done.stderr, done.stderr)
    for junk in (b"GET / HTTP/1.1\r\n\r\n", bytes(300), b"\x16\x03\x01\xff\xff" + bytes(70000), os.urandom(5000)):
        with socket.create_connection(("127.0.0.1", node.port), WAIT_S) as s:
            with contextlib.suppress(OSError):
                s.sendall(junk)
                s.shutdown(socket.SHUT_WR)
                while s.recv(4096):
                    pass
    node.ledger()


def test_tls_to_plaintext():
    """TLS to a port without it ends in a sentence, and the node goes on"""
    plain = Node("plain")
    plain.start()
    done = node.cli("send", "--generate", "1", "--address", address(plain.port), "--connect-timeout", "1",
                    *files("producer-feed"), code=3)
    expect(b"does not speak TLS" in done.stderr, done.stderr)
    expect(b"accepted    10" in plain.cli("send", "--generate", "10", "--address", address(plain.port)).stdout,
           "it does not serve")
    plain.stop()


def test_slow_handshakes():
    """handshakes that take for ever time out, and keep nobody waiting"""
    with counts("connections_timed_out", 40):
        sockets = [socket.create_connection(("127.0.0.1", node.port), WAIT_S) for _ in range(40)]
        for i, s in enumerate(sockets):
            s.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[:i % 12])
        begun = time.monotonic()
        with TlsStream(node.port, context("producer-feed")) as other:
            expect_equal(other.batch([trade("beside", b"slow-0")]).accepted, 1, "accepted")
        expect(time.monotonic() - begun < 30, "somebody else was kept waiting")
        for s in sockets:
            expect_equal(s.recv(100), b"", "the end of a slow connection")
            s.close()


# --- administration -------------------------------------------------------------------------------


def remote(*args, who="admin-alice", code=0, directory=PKI, ca=PKI):
    return node.cli(*args, "--address", address(ADMIN), *files(who, directory, ca), code=code)


def test_remote_admin():
    """an admin does over TLS what the socket's user does"""
    expect(b"leader" in remote("status").stdout, "no status")
    expect_equal(remote("ledger", "--json").returncode, 0, "ledger")
    remote("config", "set", "class.trade", "1")
    last = node.json("config", "history")[-1]
    expect_equal((last["key"], last["value"], last["by"]), ("class.trade", "1", "alice"), "the change")
    expect(b"alice" in remote("config", "history").stdout, "no name in the history")
    remote("config", "set", "class.trade", "")
    lines = remote("tail", "--no-follow", "--from", "1", "--json").stdout.count(b"\n")
    expect_equal(lines, committed(), "events in a tail over TLS")


def test_remote_reader():
    """a reader reads, and no more"""
    for args in (["status"], ["ledger"], ["tail", "--no-follow", "--count", "1"], ["config", "get"],
                 ["xdp", "status"], ["get", "tls-7", "--source", "py"]):
        remote(*args, who="reader-bob")
    for args in (["config", "set", "class.trade", "1"], ["tap", "--dropped", "all", "--count", "1"],
                 ["config", "show"], ["xdp", "policy", "set", "quote", "drop"]):
        done = remote(*args, who="reader-bob", code=4)
        expect(b"bob, whose role is reader, may not ask for this" in done.stderr, args, done.stderr)
    done = remote("status", who="producer-feed", code=4)
    expect(b"feed, whose role is producer, may not ask for this" in done.stderr, done.stderr)


def test_remote_refusals():
    """who is nobody administers nothing"""
    done = remote("status", who="producer-feed", directory=OTHER, ca=OTHER, code=4)
    expect(b"the peer's certificate is not signed by our CA" in done.stderr, done.stderr)
    done = node.cli("status", "--address", address(ADMIN), code=2)
    expect(b"--address needs --ca, --cert and --key" in done.stderr, done.stderr)
    done = node.cli("status", "--address", "127.0.0.1:1", *files("admin-alice"), code=3)
    expect(b"no daemon answers at 127.0.0.1:1: Connection refused" in done.stderr, done.stderr)
    for c in (context(), context("old"), context("producer-feed", OTHER)):
        with socket.create_connection(("127.0.0.1", ADMIN), WAIT_S) as plain:
            try:
                got = c.wrap_socket(plain, server_hostname="127.0.0.1").recv(1)
                expect_equal(got, b"", "an answer to nobody")
            except OSError:
                pass
    # Strangers that say nothing: more of them than there are connections.
    silent = [socket.create_connection(("127.0.0.1", ADMIN), WAIT_S) for _ in range(40)]
    remote("status")
    for s in silent:
        s.close()
    wait_until(lambda: "admin_refused" in node.stderr(200), "a report of them")


# --- breaks, and wrong configurations -------------------------------------------------------------


def test_restart():
    """the node is killed while a client sends over TLS, to the next of several addresses: once each"""
    before, total = committed(), 20000
    out = []
    nobody = free_port()
    sender = threading.Thread(target=lambda: out.append(node.cli(
        "send", "--generate", str(total), "--rate", "10000", "--address",
        "%s,%s" % (address(nobody), address()), "--give-up", "120", "--json-summary", *files("producer-feed"),
        code=None)))
    sender.start()
    wait_until(lambda: committed() > before + total // 4, "a quarter is there")
    node.kill()
    node.start()
    sender.join(300)
    expect(out and out[0].returncode == 0, "sluice send:", out and (out[0].stdout, out[0].stderr))
    expect_equal(committed() - before, total, "events in the log")


def starts_not(words, **settings):
    bad = Node("bad", **{**TLS, "ingest__tcp__tls": "true", **settings})
    bad.launch()
    expect(bad.ended() in (1, 2), "exit code")
    expect(words in bad.stderr(), "not '%s': %s" % (words, bad.stderr()))
    os.unlink(bad.log)


def test_configurations():
    """files that do not fit are named before the node starts"""
    starts_not("is not the certificate of node 7", node__id=7)
    starts_not("is not the key of", tls__key=path("node-2.key"))
    starts_not("is not the certificate of node 1", tls__cert=path("admin-alice.crt"), tls__key=path("admin-alice.key"))
    starts_not("is not signed by", tls__ca=path("ca.crt", OTHER))
    starts_not("tls.key is missing", tls__key='""')
    starts_not("admin.listen needs tls.ca", tls__ca='""', tls__cert='""', tls__key='""', ingest__tcp__tls="false",
               admin__listen='"127.0.0.1:7402"')
    os.chmod(path("node-1.key"), 0o644)
    starts_not("others can read or change", node__id=1)
    os.chmod(path("node-1.key"), 0o600)
    starts_not("UDP is not encrypted: set ingest.udp.enabled: false", ingest__address="[0.0.0.0]")
    anywhere = Node("anywhere", ingest__address="[0.0.0.0]", ingest__udp__enabled="false", ingest__tcp__tls="true",
                    admin__listen='"0.0.0.0:%d"' % free_port(), **TLS)
    anywhere.start()
    anywhere.stop()


def test_stop():
    """the node stops in good order, and its account balances"""
    node.ledger()
    with TlsStream(node.port, context("producer-feed")) as s:
        node.process.terminate()
        frame = s.next()
        expect_equal(frame.error.code, wire.ERROR_STOPPING, "error")
        expect(s.next() is None, "the end of the connection")
    expect_equal(node.ended(), 0, "exit code")
    node.verify()


if __name__ == "__main__":
    node.start()
    main([test_send, test_python, test_s_client, test_reader, test_strangers, test_plaintext_to_tls,
          test_tls_to_plaintext, test_slow_handshakes, test_remote_admin, test_remote_reader, test_remote_refusals,
          test_restart, test_configurations, test_stop])
