#!/usr/bin/python3
"""test_readme.py - the examples of README.md work as they are written.

The blocks marked python and js are taken out of README.md and run verbatim, in a directory made as the
sentence before them says; only port 7400 is replaced by the test's node's. Then `sluice get` must find
what they sent. So are the commands below "Over TLS", "A cluster of three" and "Two regions", with their configurations and nodes
of their own. The JavaScript runs only where there are node and npm, and npm gets protobufjs: if not,
the test says so and the rest counts.
"""
import os
import re
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# pylint: disable=wrong-import-position
from sluice_node import (BIN, ROOT, WAIT_S, WORK, Node, expect, expect_equal, free_port, main,  # noqa: E402
                         wait_until)

node = Node("readme")


def readme():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        return f.read()


def block(language):
    """The one block of README.md in this language, sending to the test's node."""
    blocks = re.findall(r"^```%s\n(.*?)^```$" % language, readme(), re.MULTILINE | re.DOTALL)
    expect_equal(len(blocks), 1, "blocks of %s in README.md" % language)
    text, n = re.subn(r"\b7400\b", str(node.port), blocks[0])
    expect_equal(n, 1, "places of the port in the block of %s" % language)
    return text


def command(program):
    """The command in backticks in README.md that begins with this program."""
    commands = re.findall(r"`(%s [^`]*)`" % re.escape(program), readme())
    expect_equal(len(commands), 1, "commands of %s in README.md" % program)
    return commands[0]


def section(title):
    """The part of README.md below this heading."""
    parts = re.findall(r"^## %s\n(.*?)(?=^## )" % re.escape(title), readme(), re.MULTILINE | re.DOTALL)
    expect_equal(len(parts), 1, "sections %s in README.md" % title)
    return parts[0]


def directory(name):
    """A directory as a reader has it: with the project's proto/ in it."""
    path = os.path.join(WORK, name)
    os.mkdir(path)
    shutil.copytree(os.path.join(ROOT, "proto"), os.path.join(path, "proto"))
    return path


def run(args, where):
    done = subprocess.run(args, cwd=where, capture_output=True, text=True, timeout=WAIT_S,
                          shell=isinstance(args, str), check=False)
    expect_equal(done.returncode, 0, "exit code of %s\n%s%s" % (args, done.stdout, done.stderr))


def arrived(ident):
    """The event, once it is committed, after a look at what every example sends."""
    def found():
        return node.cli("get", ident, "--source", "my-feed", code=None).returncode == 0
    wait_until(found, "the example's event is committed")
    e = node.json("get", ident, "--source", "my-feed")
    expect_equal((e["type"], e["symbol"], e["trade"]),
                 ("TRADE", "AAPL", {"price": "18750", "priceScale": 2, "size": "100", "venue": "XNAS"}),
                 "the event as it is stored")
    age_s = (int(e["enrichment"]["receiveTimeNs"]) - int(e["timestampNs"])) / 1e9
    expect(abs(age_s) < WAIT_S, "the event's time is not its sending:", age_s, "s off")


def test_python():
    """README's Python example sends an event"""
    where = directory("python")
    run(command("protoc"), where)
    with open(os.path.join(where, "example.py"), "w", encoding="utf-8") as f:
        f.write(block("python"))
    run(["/usr/bin/python3", "example.py"], where)
    arrived("42")


def without_node():
    """Why the JavaScript cannot be run here; None when it can. npm has installed then."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            return "there is no " + program
    where = directory("node")
    try:
        done = subprocess.run(command("npm") + " --no-audit --no-fund", cwd=where, shell=True, timeout=WAIT_S,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        return "npm install does not end"
    return None if done.returncode == 0 else "npm install fails: " + done.stderr.strip()[:200]


def test_node():
    """README's Node example sends an event"""
    with open(os.path.join(WORK, "node", "example.js"), "w", encoding="utf-8") as f:
        f.write(block("js"))
    run(["node", "example.js"], os.path.join(WORK, "node"))
    arrived("43")


def test_tls():
    """README's commands for TLS, with its configuration"""
    where, text = os.path.join(WORK, "tls"), section("Over TLS")
    ingest, remote = free_port(), free_port()
    config = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    expect_equal((len(config), len(commands)), (1, 2), "blocks of yaml and sh")
    os.mkdir(where)
    with open(os.path.join(where, "tls.yaml"), "w", encoding="utf-8") as f:
        f.write(config[0].replace("7402", str(remote)).replace("ingest:\n", "ingest:\n  port: %d\n" % ingest))
    script = "\n".join(commands).replace("7400", str(ingest)).replace("7402", str(remote))
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    env["PATH"] = BIN + ":" + env["PATH"]
    done = subprocess.run(["bash", "-e", "-c", script + "kill %1\nwait %1\n"], cwd=where, env=env, text=True,
                          capture_output=True, timeout=2 * WAIT_S, check=False)
    expect_equal(done.returncode, 0, "exit code of the commands\n%s%s" % (done.stdout, done.stderr))
    for words in ("name         node-1\n", "accepted    1000\n", "leader"):
        expect(words in done.stdout, "not '%s':" % words, done.stdout)


def commands_of(title, ports, name, status, words):
    """Runs the commands of a section, at other ports; `status` is the configuration whose node must be healthy in
    the end."""
    where = os.path.join(WORK, name)
    commands = re.findall(r"^```sh\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)
    expect_equal(len(commands), 1, "blocks of sh")
    script = re.sub(ports, str(free_port() // 100), commands[0])
    expect(script != commands[0], "ports in the commands")
    # Faster than anybody types: what is killed holds its directory until it is gone.
    script = re.sub(r"^kill -9 (%\d+)", r"kill -9 \1; wait \1 || true", script, flags=re.MULTILINE)
    os.mkdir(where)
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    env["PATH"] = BIN + ":" + env["PATH"]
    end = """
until sluice cluster status --config %s; do sleep 0.1; done
nodes=$(jobs -p)
kill $nodes || true                     # one may have been killed above
for node in $nodes; do wait $node || { e=$?; [ $e = 137 ] || { echo "a daemon ended with $e"; exit 1; }; }; done
""" % status
    done = subprocess.run(["bash", "-e", "-c", "trap 'kill -9 $(jobs -p) 2>/dev/null || true' EXIT\n" + script + end],
                          cwd=where, env=env, text=True, capture_output=True, timeout=2 * WAIT_S, check=False)
    expect_equal(done.returncode, 0, "exit code of the commands\n%s%s" % (done.stdout, done.stderr))
    for word in words:
        expect(word in done.stdout, "not '%s':" % word, done.stdout)


def test_cluster():
    """README's commands for a cluster of three, with its configuration"""
    commands_of("A cluster of three", r"\b74(?=[01][1-3$])", "three", "node2.yaml",
                ("a cluster of 3 nodes; node ", "accepted    1000\n", "rack3"))


def test_regions():
    """README's commands for two regions, with its configuration"""
    commands_of("Two regions", r"\b74(?=[23][1-6$])", "six", "region2.yaml",
                ("a cluster of 6 nodes; node ", "accepted    1000\n", "would lose nothing",
                 "region 2 is the active one; node "))


def test_account():
    """the ledger knows the examples' datagrams and no others"""
    expect_equal(node.ledger()["datagrams"], node.ledger()["datagrams"] | {
        "seen": examples, "delivered": examples}, "the ledger of datagrams")
    node.stop()
    expect_equal(node.verify()["events"], examples, "events in the log")


node.start()
tests = [test_python]
reason = without_node()
if reason:
    block("js")
    print("not run: README's Node example: " + reason, flush=True)
else:
    tests.append(test_node)
examples = len(tests)
main(tests + [test_tls, test_cluster, test_regions, test_account])
