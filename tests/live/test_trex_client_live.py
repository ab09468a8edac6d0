"""STL and ASTF: the real client (lbr-trex-client) against a fake server, over real ZMQ.

The fake has no client in its tree, so that the agent takes lbr-trex-client, from an environment of
its own that is made once. With PROBEBENCH_TREX=DIR (an installed or built TRex), the same tests run
on that one too, with the client of its tree, between two ports that are a veth pair.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pcap_tools"))
from fake_trex_server import make_tree
from synth import Talk, merged, write_pcap
from test_trex_stf import small_corpus
from test_trex_stf_live import REAL, TREXES

from harness.corpus import describe
from harness.errors import GeneratorFailed
from harness.generators.trex.astf import TrexAstf
from harness.generators.trex.interactive import TrexInteractive
from harness.generators.trex.stl import TrexStl
from harness.model import Corpus, Load
from lab import netns_tools as net
from lab.connect import connect
from lab.fake import FakeHost, Reply
from lab.host import Process
from lab.inventory import GeneratorSpec, HostSpec
from pcap_tools.capture import open_capture
from pcap_tools.clean import clean
from pcap_tools.expand import ExpandOptions, expand

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
KINDS: dict[str, type[TrexInteractive]] = {"stl": TrexStl, "astf": TrexAstf}


def environment(name: str, *packages: str) -> str:
    """The Python of an environment with these, made once: they must not be in ours (lbr-trex-client
    brings its own scapy and zmq)."""
    place = Path(sys.prefix) / name
    python = place / "bin/python"
    if not (place / "whole").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        argv = [python, "-m", "pip", "install", "-q", *packages]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{packages[0]} cannot be installed: {done.stderr.strip()[-200:]}")
        (place / "whole").touch()
    return str(python)


@pytest.fixture(scope="session")
def client() -> str:
    if sys.version_info >= (3, 12):
        pytest.skip("lbr-trex-client works on Python 3.11 and older only")
    return environment("trex-client", "lbr-trex-client==3.4.0")


@pytest.fixture(scope="session")
def old_client() -> str:
    """Its metadata does not name what it imports."""
    if sys.version_info >= (3, 12):
        pytest.skip("trex-stl-lib was tried on Python 3.11 only")
    return environment("trex-stl-lib", "trex-stl-lib==0.3", "scapy", "pyzmq", "pyyaml")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    clean([small_corpus(tmp_path)], tmp_path / "corpus.pcap")
    return describe(tmp_path / "corpus.pcap", ("10.0.0.0/8",), "k", None)


class Bench:
    """A generator in a namespace with two ports; its TRex is the fake one, or a real one."""

    def __init__(self, tmp_path: Path, space: str, client: str | None) -> None:
        self.path, self.space, self.client = tmp_path, space, client
        spec = HostSpec(
            connection="netns",
            netns=space,
            workdir=str(tmp_path / "work"),
            python=sys.executable,
        )
        self.host = connect("gen", spec)

    def generator(self, kind: str, behaviour: str = "normal", **options: Any) -> Any:
        tree = REAL if self.client is None else self.tree(behaviour)
        spec = GeneratorSpec(
            driver=f"trex-{kind}",
            host="gen",
            interface="tx0",
            server_interface="tx1",
            options={
                "path": tree,
                "software": True,
                "low_end": True,
                "prefix": self.space,
                "client_python": self.client,
                "rpc_port": self.ports[0],
                "publish_port": self.ports[1],
                "clients": 64,
                "servers": 16,
                "start_timeout": 30.0,
                **options,
            },
        )
        return KINDS[kind](self.host, spec)

    def tree(self, behaviour: str) -> str:
        """The fake installation; not written again while it may be running."""
        place = self.path / "trex"
        said = place / "behaviour"
        if not said.exists() or said.read_text() != behaviour:
            make_tree(place, behaviour)
        return str(place)

    @cached_property
    def ports(self) -> tuple[int, int]:
        return free_port(), free_port()

    def servers(self) -> list[str]:
        argv = ["pgrep", "-f", str(self.path / "work/trex.yaml")]
        return subprocess.run(argv, capture_output=True, text=True).stdout.split()

    def serve(self, kind: str, corpus: Corpus) -> Process:
        """A server of the user's own, ready."""
        own = self.generator(kind)
        own.prepare(corpus)
        server = self.host.start(["sh", "-c", own._server_command()], max_seconds=300)
        end = time.monotonic() + 30
        while True:
            try:
                self.generator(kind, server="running").prepare(corpus)
                return server
            except GeneratorFailed as error:
                assert time.monotonic() < end, (error, server.lines())
                time.sleep(0.2)


@pytest.fixture(scope="module")
def space() -> Iterator[str]:
    """Two ports, tx0 and tx1, that are each other's end."""
    name = f"trexclient{os.getpid()}"
    net.run(["ip", "netns", "add", name])
    try:
        pair = ["link", "add", "name", "tx0", "type", "veth", "peer", "name", "tx1"]
        net.run(["ip", "-n", name, *pair])
        for port in ("lo", "tx0", "tx1"):
            net.run(["ip", "-n", name, "link", "set", port, "up"])
        for port in ("tx0", "tx1"):
            path = f"/proc/sys/net/ipv6/conf/{port}/disable_ipv6"
            net.run(net.in_namespace(name, ["sh", "-c", f"[ ! -e {path} ] || echo 1 >{path}"]))
        yield name
    finally:
        net.run(["ip", "netns", "del", name])


@pytest.fixture
def bench(tmp_path: Path, space: str, client: str) -> Iterator[Bench]:
    made = Bench(tmp_path, space, client)
    yield made
    made.host.close()


@pytest.fixture(params=TREXES)
def either(request: pytest.FixtureRequest, tmp_path: Path, space: str) -> Iterator[Bench]:
    """The fake TRex with lbr-trex-client, and the real one with its own client where there is."""
    fake = request.param == "fake"
    made = Bench(tmp_path, space, request.getfixturevalue("client") if fake else None)
    yield made
    made.host.close()


def many(tmp_path: Path, count: int) -> Corpus:
    """A corpus of that many flows."""
    talks = [
        Talk(sport=1000 + n, client=f"10.1.{n // 200}.{n % 200 + 1}", dport=80).whole()
        for n in range(count)
    ]
    raw = write_pcap(tmp_path / "many-raw.pcap", merged(*talks))
    clean([raw], tmp_path / "many.pcap")
    return describe(tmp_path / "many.pcap", ("10.0.0.0/8",), "k", None)


# -- the whole way ------------------------------------------------------------------------------


def test_a_stateless_trial(either: Bench, corpus: Corpus) -> None:
    generator = either.generator("stl", "slow", frames="64,1518")
    generator.prepare(corpus)
    assert not either.servers()
    if either.client is not None:
        assert generator.install.version == "v3.08"
    schedule = generator.plan(Load("pps", 2000, 1.0), 0)
    generator.start(schedule)
    sent = generator.finish()
    generator.stop()
    # Both ports, both sizes; the server's clock may cut a packet of a stream.
    assert abs(sent.packets - 2000) <= 8
    assert sent.bytes == pytest.approx(sent.packets * (60 + 1514) / 2, rel=0.01)
    assert sent.seconds >= 1.0 and sent.failed == 0 and not sent.templates
    assert not either.servers()


def test_a_stateful_trial(either: Bench, corpus: Corpus) -> None:
    generator = either.generator("astf", "lossy")
    generator.prepare(corpus)
    schedule = generator.plan(Load("flows", 40, 1.0), 0)
    assert schedule.settings["connections_per_s"] == 20
    generator.start(schedule)
    sent = generator.finish()
    generator.stop()
    assert set(sent.templates) == {t.name for t in generator.templates}
    assert sent.flows == sum(sent.templates.values()) == pytest.approx(40, abs=4)
    assert sent.extra["connections"] == pytest.approx(sent.flows, abs=2)
    assert 1.0 <= sent.seconds < 2.0
    if either.client is not None:
        assert sent.extra["retransmissions"] == 3 and sent.extra["active_flows_peak"] == 40
    assert not either.servers()


@pytest.mark.parametrize("axis", ["pps", "bps"])
def test_a_load_in_packets_is_measured_first(either: Bench, corpus: Corpus, axis: Any) -> None:
    """The fake's flows take 10 packets of 100 bytes on both ports; a real one's what they take."""
    generator = either.generator("astf")
    generator.prepare(corpus)
    value = 600.0 if axis == "pps" else 480_000.0
    schedule = generator.plan(Load(axis, value, 3.0), 0)
    assert "measured in a round of" in schedule.how and not either.servers()
    assert generator.plan(Load(axis, value, 3.0), 0) == schedule  # measured once
    generator.start(schedule)
    sent = generator.finish()
    generator.stop()
    asked = (sent.packets if axis == "pps" else sent.bytes * 8) / 3.0
    assert asked == pytest.approx(value, rel=0.08)
    if either.client is not None:
        assert schedule.settings["packets_a_flow"] == pytest.approx(10, rel=0.02)


def test_many_templates_are_told_whole(bench: Bench, tmp_path: Path) -> None:
    """More than one line of the leash could hold."""
    generator = bench.generator("astf")
    generator.prepare(many(tmp_path, 800))
    generator.start(generator.plan(Load("flows", 1600, 1.0), 0))
    sent = generator.finish()
    generator.stop()
    assert len(sent.templates) == 800 and set(sent.templates.values()) == {2}


@pytest.mark.parametrize("kind", ["stl", "astf"])
def test_troubles_of_the_generator_itself_are_told(bench: Bench, corpus: Corpus, kind: str) -> None:
    generator = bench.generator(kind, "full")
    generator.prepare(corpus)
    axis: Any = "pps" if kind == "stl" else "flows"
    generator.start(generator.plan(Load(axis, 200, 1.0), 0))
    extra = generator.finish().extra
    generator.stop()
    assert (extra["queue_full"], extra["alloc_error"]) == (5, 10)


@pytest.mark.parametrize(
    ("kind", "behaviour", "message"),
    [
        ("astf", "other-mode", r"gen: TRex: wrong-mode: .*server RPC configuration: 'STL'"),
        ("stl", "refuses", r"gen: TRex: version-refused: .*newer client version is required"),
        ("astf", "refuses", r"gen: TRex: version-refused: .*newer client version is required"),
        ("stl", "no-arp", "TRex ended with status 1; last: Failed resolving dest MAC"),
        ("astf", "no-memory", "TRex: out-of-memory: .*out of memory"),
        ("stl", "dies", "TRex ended with status 134; last: ERROR: mbuf pool is broken"),
        ("astf", "dies", "TRex ended with status 134; last: ERROR: mbuf pool is broken"),
        ("stl", "hangs", "TRex: server-gone|TRex hangs: its client said nothing"),
    ],
)
def test_what_fails_is_named(
    bench: Bench, corpus: Corpus, kind: str, behaviour: str, message: str
) -> None:
    generator = bench.generator(kind, behaviour)
    with pytest.raises(GeneratorFailed, match=message):
        generator.prepare(corpus)
        axis: Any = "pps" if kind == "stl" else "flows"
        generator.start(generator.plan(Load(axis, 500, 5), 0))
        generator.finish()
    generator.stop()
    assert not bench.servers()


@pytest.mark.parametrize("kind", ["stl", "astf"])
def test_ports_of_a_crashed_client_are_taken(bench: Bench, corpus: Corpus, kind: str) -> None:
    generator = bench.generator(kind, "crashed-client")
    generator.prepare(corpus)
    axis: Any = "pps" if kind == "stl" else "flows"
    generator.start(generator.plan(Load(axis, 200, 0.5), 0))
    sent = generator.finish()
    assert sent.packets > 50
    generator.stop()


def test_stopped_in_mid_trial(bench: Bench, corpus: Corpus) -> None:
    generator = bench.generator("stl")
    generator.prepare(corpus)
    generator.start(generator.plan(Load("pps", 1000, 60), 0))
    limit = time.monotonic() + 30
    while not generator.progress().packets and time.monotonic() < limit:
        time.sleep(0.05)
    generator.stop()
    generator.stop()
    assert not bench.servers()
    # Traffic was ended and the ports given back before the server was told to go.
    asked = json.loads((bench.path / "trex/asked.json").read_text())
    begun = asked.index("start_traffic")
    assert asked[begun:].count("stop_traffic") >= 2 and asked[begun:].count("release") >= 2


def test_the_profile_compiles_without_a_server(client: str, corpus: Corpus, tmp_path: Path) -> None:
    """By the client library, from the files and pools that a trial would use."""
    found = "wrapper=yes\nbinary=yes\nstl=yes\nastf=yes\ncores=2\n"
    said = {"test": Reply("", "", 1), "cat": Reply("1500\n")}
    host = FakeHost(lambda call: said.get(call.argv[0], Reply(found)))
    spec = GeneratorSpec(
        driver="trex-astf", host="gen", interface="a", server_interface="b",
        options={"path": "/opt/trex", "software": True, "low_end": True},
    )  # fmt: skip
    generator = TrexAstf(host, spec)
    generator.prepare(corpus)
    (packed,) = (v for k, v in host.files.items() if k.endswith("flows.tar.gz"))
    (tmp_path / "f.tar.gz").write_bytes(packed)
    subprocess.run(["tar", "-xzf", "f.tar.gz"], cwd=tmp_path, check=True)
    generator._files = str(tmp_path)
    job = json.dumps(generator.job(generator.plan(Load("flows", 10, 5), 0)))
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import lbr_trex_client, _agent\n"
        "import trex.astf.api as api\n"
        "print(json.dumps(_agent.profile_of(api, json.loads(sys.argv[2])).to_json()))"
    )
    agent = ROOT / "harness/generators/trex"
    argv = [client, "-c", program, agent, job]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    profile = json.loads(done.stdout)
    assert len(profile["templates"]) == 2
    ranges = {d["ip_start"]: d["ip_end"] for d in profile["ip_gen_dist_list"]}
    for template in generator.templates:
        assert ranges[template.clients.texts()[0]] == template.clients.texts()[1]
        assert ranges[template.servers.texts()[0]] == template.servers.texts()[1]
    assert profile["tg_names"] == [t.name for t in generator.templates]


# -- servers of API 4 ---------------------------------------------------------------------------


def test_a_server_of_api_4_takes_trex_stl_lib(
    bench: Bench, corpus: Corpus, old_client: str
) -> None:
    """Streams and a pushed file; `push_pcap` of trex-stl-lib needs a scapy of its time."""
    for options in ({"frames": "64,1518"}, {"push": "remote"}):
        generator = bench.generator("stl", "api4", client_python=old_client, **options)
        generator.prepare(corpus)
        schedule = generator.plan(Load("pps", 1000, 1.0), 0)
        generator.start(schedule)
        sent = generator.finish()
        generator.stop()
        assert abs(sent.packets - schedule.packets) <= 8
        assert sent.bytes == pytest.approx(schedule.bytes, rel=0.02)
        assert not bench.servers()


@pytest.mark.parametrize(
    ("behaviour", "fits"),
    [("api4", "takes trex-stl-lib 0.3, and STL only"), ("normal", "in the server's own tree fits")],
)
def test_a_refused_client_is_told_which_fits(
    bench: Bench, corpus: Corpus, old_client: str, behaviour: str, fits: str
) -> None:
    python = bench.client if behaviour == "api4" else old_client
    generator = bench.generator("stl", behaviour, client_python=python)
    generator.prepare(corpus)
    generator.start(generator.plan(Load("pps", 1000, 1.0), 0))
    with pytest.raises(GeneratorFailed, match=f"version-refused: .*{fits}.*client_python") as e:
        generator.finish()
    assert "\n" not in str(e.value)
    generator.stop()


# -- captures pushed ----------------------------------------------------------------------------


def frames_of(path: Path) -> list[bytes]:
    """Of a capture, without the MACs, which are TRex's."""
    with open_capture([path]) as capture:
        return [
            bytes(b.data[o + 12 : o + n])
            for b in capture.batches()
            for o, n in zip(b.offset, b.caplen, strict=True)
        ]


class Watcher:
    """tcpdump on port tx1, into a file."""

    def __init__(self, bench: Bench) -> None:
        self.path = bench.path / "seen.pcap"
        argv = ["tcpdump", "--immediate-mode", "-i", "tx1", "-Q", "in", "-U", "-w", str(self.path)]
        argv += ["tcp", "or", "(udp", "and", "not", "port", "68)"]
        self._process = subprocess.Popen(
            net.in_namespace(bench.space, argv), stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        assert "listening" in self._process.stderr.readline()

    def frames(self) -> list[bytes]:
        time.sleep(0.5)
        self._process.terminate()
        self._process.communicate(timeout=10)
        return frames_of(self.path)


@pytest.mark.parametrize("gaps", ["even", "corpus"])
@pytest.mark.parametrize("push", ["fresh", "remote", "local"])
def test_a_corpus_pushed(either: Bench, corpus: Corpus, push: str, gaps: str) -> None:
    """What is sent is counted, and on a real TRex compared with what arrives, frame by frame."""
    generator = either.generator("stl", push=push, push_gaps=gaps)
    generator.prepare(corpus)
    schedule = generator.plan(Load("pps", 500, 2.0), 3)
    watcher = Watcher(either) if either.client is None else None  # the fake one sends nothing
    generator.start(schedule)
    sent = generator.finish()
    generator.stop()
    assert sent.packets == schedule.packets == schedule.iterations * corpus.packets
    assert sent.bytes == schedule.bytes and sent.flows == schedule.flows
    assert sent.seconds == pytest.approx(schedule.seconds, rel=0.2)
    assert not list((either.path / "work").glob("push.pcap*"))
    if watcher is None:
        return
    seen = watcher.frames()
    if push == "fresh":
        options = ExpandOptions(
            key="k", iterations=schedule.iterations, first=3, every=schedule.every_s,
            home=("10.0.0.0/8",),
        )  # fmt: skip
        expand([corpus.path], str(either.path / "expected.pcap"), options)
        assert seen == frames_of(either.path / "expected.pcap")
    else:
        least = 60 - 12 if push == "local" else 0  # it pads
        frames = [frame.ljust(least, b"\0") for frame in frames_of(Path(corpus.path))]
        assert seen == frames * schedule.iterations


def test_a_capture_that_trex_cannot_read_is_no_result(either: Bench, corpus: Corpus) -> None:
    generator = either.generator("stl", push="remote")
    generator.prepare(corpus)
    for file in (either.path / "work/captures").iterdir():
        file.write_bytes(b"not a capture")
    generator.start(generator.plan(Load("pps", 500, 1.0), 0))
    with pytest.raises(GeneratorFailed, match="TRex pushed nothing: it could not read"):
        generator.finish()
    generator.stop()


# -- a server that the user started -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stl", "astf"])
def test_a_running_server_is_used_and_left(either: Bench, corpus: Corpus, kind: str) -> None:
    server = either.serve(kind, corpus)
    generator = either.generator(kind, server="running")
    generator.prepare(corpus)
    axis: Any = "pps" if kind == "stl" else "flows"
    for _ in range(2):  # and given back
        generator.start(generator.plan(Load(axis, 200, 1.0), 0))
        assert generator.finish().packets > 100
        generator.stop()
        assert server.poll() is None
    # A client of ours that dies leaves ports that the next one may take.
    generator.start(generator.plan(Load(axis, 200, 60.0), 0))
    while not generator.progress().packets:
        time.sleep(0.05)
    (agent,) = pids("trex_agent.py", either)
    os.kill(agent, signal.SIGKILL)
    with pytest.raises(GeneratorFailed, match="its client was killed by SIGKILL"):
        generator.finish()
    generator.start(generator.plan(Load(axis, 200, 1.0), 0))
    assert generator.finish().packets > 100
    generator.stop()
    other: Any = either.generator("astf" if kind == "stl" else "stl", server="running")
    with pytest.raises(GeneratorFailed, match=r"wrong-mode: .*start the server with `t-rex-64 -i"):
        other.prepare(corpus)
    server.stop(8.0)
    with pytest.raises(GeneratorFailed, match=r"server-gone: .*start `t-rex-64 -i") as caught:
        generator.prepare(corpus)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["stl", "astf"])
def test_ports_of_somebody_else_are_not_taken(either: Bench, corpus: Corpus, kind: str) -> None:
    server = either.serve(kind, corpus)
    generator = either.generator(kind, server="running")
    generator.prepare(corpus)
    axis: Any = "pps" if kind == "stl" else "flows"
    plan = generator.plan(Load(axis, 200, 60.0), 0)
    job = {**generator._common(), "user": "alice", "duration": 60.0, **generator.job(plan)}
    path = either.path / "alice.json"
    path.write_text(json.dumps(job))
    alice = either.host.start([generator._python, generator._agent_path, str(path)], max_seconds=90)
    while not any('"started"' in line for line in alice.lines()):
        assert alice.poll() is None
        time.sleep(0.05)
    with pytest.raises(GeneratorFailed, match=r"ports-taken: .*by 'alice'; .*release them there"):
        generator.prepare(corpus)
    generator.start(generator.plan(Load(axis, 200, 1.0), 0))
    with pytest.raises(GeneratorFailed, match=r"ports-taken: .*by 'alice'"):
        generator.finish()
    assert alice.poll() is None
    alice.stop(8.0)
    generator.prepare(corpus)
    server.stop(8.0)


def pids(word: str, bench: Bench) -> list[int]:
    """Processes of the namespace with a word of their command line that ends so."""
    found = []
    for pid in net.run(["ip", "netns", "pids", bench.space]).stdout.split():
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if len(words) > 1 and words[1].endswith(word) and "leash" not in words[0]:
            found.append(int(pid))
    return found
