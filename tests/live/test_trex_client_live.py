"""STL and ASTF: the real client (lbr-trex-client) against a fake server, over real ZMQ.

The fake has no client in its tree, so that the agent takes lbr-trex-client, from an environment of
its own that is made once. With PROBEBENCH_TREX=DIR (an installed or built TRex), test_trex_stf_live
tries the same drivers on that one, with the client of its tree.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pcap_tools"))
from fake_trex_server import make_tree
from synth import Talk, merged, write_pcap
from test_trex_stf import small_corpus

from harness.corpus import describe
from harness.errors import GeneratorFailed
from harness.generators.trex.astf import TrexAstf
from harness.generators.trex.interactive import TrexInteractive
from harness.generators.trex.stl import TrexStl
from harness.model import Corpus, Load
from lab.fake import FakeHost, Reply
from lab.inventory import GeneratorSpec, HostSpec
from lab.local import LocalHost
from pcap_tools.clean import clean

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
KINDS: dict[str, type[TrexInteractive]] = {"stl": TrexStl, "astf": TrexAstf}


def client_python() -> str:
    """An environment with lbr-trex-client, made once: it must not be in ours (it brings its own
    scapy and zmq)."""
    place = Path(sys.prefix) / "trex-client"
    python = place / "bin/python"
    if not (place / "whole").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        argv = [python, "-m", "pip", "install", "-q", "lbr-trex-client==3.4.0"]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"lbr-trex-client cannot be installed: {done.stderr.strip()[-200:]}")
        (place / "whole").touch()
    return str(python)


@pytest.fixture(scope="session")
def client() -> str:
    if sys.version_info >= (3, 12):
        pytest.skip("lbr-trex-client works on Python 3.11 and older only")
    return client_python()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    clean([small_corpus(tmp_path)], tmp_path / "corpus.pcap")
    return describe(tmp_path / "corpus.pcap", ("10.0.0.0/8",), "k", None)


class Bench:
    """A generator on a local host whose TRex is the fake one."""

    def __init__(self, tmp_path: Path, client: str) -> None:
        self.path, self.client = tmp_path, client
        spec = HostSpec(connection="local", workdir=str(tmp_path / "work"), python=sys.executable)
        self.host = LocalHost("gen", spec)

    def generator(self, kind: str, behaviour: str = "normal", **options: Any) -> Any:
        spec = GeneratorSpec(
            driver=f"trex-{kind}",
            host="gen",
            interface="a",
            server_interface="b",
            options={
                "path": str(make_tree(self.path / "trex", behaviour)),
                "software": True,
                "low_end": True,
                "client_python": self.client,
                "rpc_port": free_port(),
                "publish_port": free_port(),
                "clients": 64,
                "servers": 16,
                "start_timeout": 30.0,
                **options,
            },
        )
        return KINDS[kind](self.host, spec)

    def servers(self) -> list[str]:
        argv = ["pgrep", "-f", str(self.path / "work/trex.yaml")]
        return subprocess.run(argv, capture_output=True, text=True).stdout.split()


@pytest.fixture
def bench(tmp_path: Path, client: str) -> Iterator[Bench]:
    made = Bench(tmp_path, client)
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


def test_a_stateless_trial(bench: Bench, corpus: Corpus) -> None:
    generator = bench.generator("stl", "slow", frames="64,1518")
    generator.prepare(corpus)
    assert generator.install.version == "v3.08" and not bench.servers()
    schedule = generator.plan(Load("pps", 2000, 1.0), 0)
    generator.start(schedule)
    sent = generator.finish()
    generator.stop()
    # Both ports, both sizes; the server's clock may cut a packet of a stream.
    assert abs(sent.packets - 2000) <= 4
    assert sent.bytes == pytest.approx(sent.packets * (60 + 1514) / 2, rel=0.01)
    assert sent.seconds >= 1.0 and sent.failed == 0 and not sent.templates
    assert not bench.servers()


def test_a_stateful_trial(bench: Bench, corpus: Corpus) -> None:
    generator = bench.generator("astf", "lossy")
    generator.prepare(corpus)
    schedule = generator.plan(Load("flows", 40, 1.0), 0)
    assert schedule.settings["connections_per_s"] == 20
    generator.start(schedule)
    sent = generator.finish()
    generator.stop()
    assert set(sent.templates) == {t.name for t in generator.templates}
    assert sent.flows == sum(sent.templates.values()) == pytest.approx(40, abs=2)
    assert sent.extra["connections"] == sent.flows and sent.extra["retransmissions"] == 3
    assert sent.extra["active_flows_peak"] == 40 and sent.seconds >= 1.0
    assert not bench.servers()


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
    host = FakeHost(lambda call: Reply(found, "", 1 if call.argv[0] == "test" else 0))
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
