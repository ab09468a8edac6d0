"""TRex's interactive modes, with a server and an agent that answer from memory.

What the agent prints here was recorded from a TRex v3.08 in software mode.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from harness.corpus import describe
from harness.errors import ConfigError, GeneratorFailed
from harness.generators.trex._agent import Ended, code_of, watch
from harness.generators.trex.astf import TrexAstf
from harness.generators.trex.interactive import TrexInteractive
from harness.generators.trex.stl import TrexStl, frame
from harness.generators.trex.traffic import IMIX, mix_of
from harness.model import Load
from lab.fake import Call, FakeHost, FakeProcess, Reply
from lab.host import Exit
from lab.inventory import GeneratorSpec
from pcap_tools.clean import clean

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pcap_tools"))
from synth import Talk, merged, write_pcap

FOUND = (
    "wrapper=yes\nbinary=yes\nversion=v3.08\nstl=yes\nastf=yes\nhugepages=0\nhugepages_free=0\n"
    "cores=2\n"
)
OPTIONS = {"path": "/opt/trex", "software": True, "low_end": True}


def stats(kind: str, when: float, sent: tuple[int, int], **more: Any) -> str:
    ports = {
        str(number): {
            "opackets": count,
            "obytes": count * 100,
            "ipackets": count,
            "ibytes": count * 100,
            "ierrors": 0,
            "oerrors": 0,
        }
        for number, count in enumerate(sent)
    }
    total = {"queue_full": 3, "cpu_util": 1.5, "tx_cps": 0.0, "active_flows": 7.0}
    event = {"event": kind, "t": when, "ports": ports, "global": total, "traffic": {}}
    return json.dumps({**event, **more})


READY = json.dumps({"event": "ready", "version": "v3.08", "t": 10.0})
STARTED = json.dumps({"event": "started", "t": 11.0})


class Rig:
    """A host whose TRex says what it is told to say."""

    def __init__(
        self, make: type[TrexInteractive], tmp_path: Path, mtu: int = 1500, **options: Any
    ) -> None:
        self.server = FakeProcess(["Starting TRex v3.08 please wait ..."], None)
        self.agent = FakeProcess(["a warning of some library", READY], None)
        self.jobs: list[dict[str, Any]] = []
        self.commands: list[tuple[str, ...]] = []
        self.mtu, self.digest = mtu, ""

        def answer(call: Call) -> Reply | FakeProcess:
            self.commands.append(call.argv)
            if call.leashed:
                agent = any(word.endswith("trex_agent.py") for word in call.argv)
                return self.agent if agent else self.server
            if call.argv[0] == "test":
                return Reply("", "", 1)
            if call.argv[0] == "cat":
                return Reply(f"{self.mtu}\n")
            if call.argv[0] == "sha256sum":
                return Reply(f"{self.digest} x\n") if self.digest else Reply("", "", 1)
            return Reply(FOUND if "t-rex-64" in " ".join(call.argv) else "")

        self.host = FakeHost(answer, name="gen")
        spec = GeneratorSpec(
            driver=make.name,
            host="gen",
            interface="a",
            server_interface="b",
            options={**OPTIONS, **options},
        )
        self.generator: Any = make(self.host, spec)
        raw = write_pcap(
            tmp_path / "raw.pcap",
            merged(
                Talk(sport=1, client="10.0.0.1").whole(),
                Talk(sport=2, client="203.0.113.5", server="10.0.0.9").whole(),
            ),
        )
        clean([raw], tmp_path / "corpus.pcap")
        self.generator.prepare(describe(tmp_path / "corpus.pcap", ("10.0.0.0/8",), "k", None))

    def finish(self, *lines: str) -> Any:
        self.agent.emit(*lines)
        return self.generator.finish()


# -- STL ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mix"),
    [
        ("imix", IMIX),
        ("512", {512: 1}),
        ("64:7,1518:1", {64: 7, 1518: 1}),
        ("9000", {9000: 1}),
    ],
)
def test_mixes_of_frame_sizes(text: str, mix: dict[int, int]) -> None:
    assert mix_of(text) == mix


@pytest.mark.parametrize("text", ["", "63", "9239", "64:0", "64:x", "big"])
def test_mixes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="frames = "):
        mix_of(text)


@pytest.mark.parametrize("size", [64, 594, 1518, 9000])
def test_frames_are_what_scapy_would_make(size: int) -> None:
    packet = Ether(frame(size, 0x0A000001, 0x30000001, 1025, 9))
    assert len(packet) == size - 4 and packet[IP].len == size - 4 - 14
    assert packet[UDP].len == packet[IP].len - 20 and packet[UDP].chksum == 0
    assert (packet[IP].src, packet[IP].dst, packet[UDP].sport) == ("10.0.0.1", "48.0.0.1", 1025)


def test_stl_plans_and_streams(tmp_path: Path) -> None:
    rig = Rig(TrexStl, tmp_path, frames="64:3,1518:1")
    plan = rig.generator.plan(Load("bps", 8e6, 10), 0)
    mean = (3 * 60 + 1514) / 4
    assert plan.pps == pytest.approx(1e6 / mean) and plan.bps == pytest.approx(8e6)
    streams = rig.generator.job(plan)["streams"]
    assert len(streams) == 4
    assert sum(s["pps"] for s in streams) == pytest.approx(plan.pps)
    for one in streams:
        source, target = struct.unpack(">4s4s", bytes.fromhex(one["frame"])[26:34])
        client, server = (source, target) if one["port"] == 0 else (target, source)
        assert client[0] == 10 and server[0] != 10
    with pytest.raises(ConfigError, match="trex-stl cannot set the axis 'flows'"):
        rig.generator.plan(Load("flows", 5, 10), 0)


def test_stl_sends_and_tells(tmp_path: Path) -> None:
    rig = Rig(TrexStl, tmp_path)
    plan = rig.generator.plan(Load("pps", 1000, 4), 0)
    rig.generator.start(plan)
    server = next(argv for argv in rig.commands if argv[0] == "sh" and "-i --cfg" in argv[2])
    assert "--software" in server[2] and "--astf" not in server[2]
    rig.agent.emit(STARTED, stats("stats", 12.0, (900, 900)))
    assert rig.generator.progress().packets == 1800
    sent = rig.finish(stats("done", 15.9, (2000, 1999), ended=15.2))
    assert (sent.packets, sent.bytes, sent.flows) == (3999, 3999 * 96, 0)
    assert sent.seconds == 4.0  # the end is seen within half a second
    assert sent.extra["queue_full"] == 3 and sent.extra["active_flows_peak"] == 7


# -- ASTF ---------------------------------------------------------------------------------------


def test_astf_tells_the_flows_of_each_template(tmp_path: Path) -> None:
    rig = Rig(TrexAstf, tmp_path)
    one, two = rig.generator.templates
    plan = rig.generator.plan(Load("flows", 10, 5), 0)
    caps = rig.generator.job(plan)["caps"]
    assert [cap["cps"] for cap in caps] == [5.0, 5.0] and caps[0]["port"] == 80
    assert caps[0]["clients"][0].startswith("10.") and caps[1]["servers"][0].startswith("10.")
    rig.generator.start(plan)
    assert any("--astf" in argv[2] for argv in rig.commands if len(argv) > 2)
    traffic = {
        "client": {"tcps_connects": 48, "tcps_drops": 1, "tcps_sndrexmitpack": 2},
        "server": {"tcps_sndrexmitpack": 3},
    }
    sent = rig.finish(
        STARTED,
        json.dumps({"event": "groups", "flows": {one.name: 25}, "t": 16.9}),
        json.dumps({"event": "groups", "flows": {two.name: 24}, "t": 16.9}),
        stats("done", 17.0, (500, 480), ended=16.4, traffic=traffic),
    )
    assert sent.templates == {one.name: 25, two.name: 24} and sent.flows == 49
    assert sent.seconds == 5.0  # within the resolution and the longest flow
    assert sent.extra["connections"] == 48 and sent.extra["connection_drops"] == 1
    assert sent.extra["retransmissions"] == 5


def test_astf_that_took_longer_was_stretched(tmp_path: Path) -> None:
    rig = Rig(TrexAstf, tmp_path)
    rig.generator.start(rig.generator.plan(Load("flows", 10, 5), 0))
    opened = [
        stats("stats", when, (5, 5), traffic={"client": {"tcps_connattempt": count}})
        for when, count in ((12.0, 10), (19.0, 50), (25.0, 50))
    ]
    done = stats("done", 30.0, (5, 5), ended=26.0, traffic={"client": {"tcps_connattempt": 50}})
    sent = rig.finish(STARTED, *opened, done)
    # Flows were opened for 8 s instead of 5; how long the last ones took is not counted.
    assert sent.seconds == pytest.approx(5 + 3 - 0.75)


# -- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("version-refused", "Version mismatch: server 5.1, client 4.1"),
        ("ports-taken", "port is already taken by 'alice'"),
        ("wrong-mode", "RPC configuration mismatch - server 'STL', client 'ASTF'"),
        ("server-gone", "Failed to get server response from tcp://127.0.0.1:4501"),
    ],
)
def test_the_clients_trouble_is_told(tmp_path: Path, code: str, message: str) -> None:
    rig = Rig(TrexStl, tmp_path)
    rig.generator.start(rig.generator.plan(Load("pps", 1000, 4), 0))
    with pytest.raises(GeneratorFailed, match=f"gen: TRex: {code}: {message[:12]}"):
        rig.finish(json.dumps({"event": "error", "code": code, "message": message, "t": 1}))
    assert rig.server.poll() is not None  # ended with it


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("port is already taken by 'alice'", "ports-taken"),
        ("RPC configuration mismatch - server RPC configuration: 'STL', version", "wrong-mode"),
        ("Version mismatch: your client version is too new", "version-refused"),
        ("*** [RPC] - Failed to get server response from tcp://x", "server-gone"),
        ("*** [RPC] - Failed to send message to server general exception", "server-gone"),
        ("port(s) [0] have unresolved destination", "resolve-failed"),
        ("failed to allocate: out of memory", "out-of-memory"),
        ("something else", "refused"),
    ],
)
def test_the_clients_words_have_codes(text: str, code: str) -> None:
    assert code_of(text) == code


def test_a_server_that_dies_is_named(tmp_path: Path) -> None:
    rig = Rig(TrexStl, tmp_path)
    rig.generator.start(rig.generator.plan(Load("pps", 1000, 4), 0))
    rig.server.emit("No free hugepages reported in hugepages-2048kB")
    rig.server.finish(Exit(None, 9, "killed"))
    with pytest.raises(GeneratorFailed, match=r"was killed by SIGKILL; last: No free hugepages"):
        rig.finish(STARTED)


def test_a_request_is_not_broken_off_by_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    class Client:
        answered = 0

        def is_traffic_active(self) -> bool:
            os.kill(os.getpid(), signal.SIGTERM)
            self.answered += 1
            return True

        def get_stats(self) -> dict[str, Any]:
            return {}

    client, before = Client(), signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Ended):
            watch(client, 60.0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert client.answered == 1


def test_an_agent_that_dies_is_named(tmp_path: Path) -> None:
    rig = Rig(TrexStl, tmp_path)
    rig.generator.start(rig.generator.plan(Load("pps", 1000, 4), 0))
    rig.agent.finish(Exit(1, None, "exited"))
    with pytest.raises(GeneratorFailed, match="its client ended with status 1 before the end"):
        rig.finish()


def test_silence_ends_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.generators.trex.interactive._SILENT_S", 0.2)
    rig = Rig(TrexStl, tmp_path)
    rig.generator.start(rig.generator.plan(Load("pps", 1000, 4), 0))
    with pytest.raises(GeneratorFailed, match=r"hangs: its client said nothing for 0\.2 s"):
        rig.finish(STARTED)


def test_a_tree_without_a_client_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.FOUND", FOUND.replace("astf=yes\n", ""))
    with pytest.raises(GeneratorFailed, match="has no client for ASTF"):
        Rig(TrexAstf, tmp_path)
