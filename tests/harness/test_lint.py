"""Each check of the linter, on a capture made to trigger it and on one that is fit."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "pcap_tools"))
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import GRE, Ether
from synth import MS, T0, Frame, Talk, merged, write_pcap

from harness.cli import corpus_flows
from harness.errors import ConfigError
from harness.lint.check import Result
from harness.lint.run import lint
from harness.lint.sensor import SURICATA, SensorFacts, Timeouts
from harness.lint.subject import Subject, find_profile, read_subject
from harness.profile import CorpusSpec, LoadSpec, Profile

PROFILE = Profile(name="p", load=LoadSpec(values=(2000.0, 4000.0), duration=10))
SENSOR = SURICATA.model_copy(update={"workers": 4})

Make = Callable[..., Subject]


def fit(count: int = 20) -> list[Talk]:
    return [
        Talk(client=f"10.0.{i}.{i + 1}", sport=40000 + i, start=T0 + i * MS).whole(3)
        for i in range(count)
    ]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A subject of some frames."""

    def made(
        frames: list[Frame],
        profile: Profile = PROFILE,
        sensor: SensorFacts = SENSOR,
        rules: tuple[Path, ...] = (),
        snaplen: int = 262144,
    ) -> Subject:
        path = write_pcap(tmp_path / "c.pcap", frames, snaplen=snaplen)
        return read_subject([str(path)], profile, sensor, rules)

    return made


def found(subject: Subject) -> dict[str, Result]:
    return {result.code: result for result in lint(subject)}


def test_a_fit_capture_has_neither_errors_nor_warnings(make: Make) -> None:
    results = found(make(merged(*fit())))
    assert {code: r.severity for code, r in results.items()} == {
        "loop-period": "info",
        "flow-table": "info",
    }


def load(axis: str, *values: float, duration: float = 10) -> Profile:
    return Profile.model_validate(
        {"name": "p", "load": {"axis": axis, "values": values, "duration": duration}}
    )


def midstream() -> list[Frame]:
    return merged(*fit(), Talk(client="10.9.0.1", sport=7).talk(2).close())


def unterminated() -> list[Frame]:
    return merged(*fit(), Talk(client="10.9.0.1", sport=7).open().talk(2))


def with_gap() -> list[Frame]:
    talk = Talk(client="10.9.0.1", sport=7).open().talk(2)
    del talk.frames[4]  # 1,000 bytes that are acknowledged and never come
    return merged(*fit(), talk.talk(1).close())


def backwards() -> list[Frame]:
    frames = merged(*fit())
    frames[5], frames[6] = (frames[6][0], frames[5][1]), (frames[5][0] - 1, frames[6][1])
    return frames


def doubled() -> list[Frame]:
    return [frame for frame in merged(*fit()) for _ in range(2)]


def oversized() -> list[Frame]:
    talk = Talk(client="10.9.0.1", sport=7).open().tcp(0, "PA", b"x" * 4000)
    return merged(*fit(), talk.tcp(1, "A").close())


def outside() -> list[Frame]:
    talks = [Talk(client=f"8.8.{i}.8", server="9.9.9.9", sport=5000 + i).whole() for i in range(9)]
    return merged(*fit(5), *talks)


def elephant() -> list[Frame]:
    return merged(*fit(), Talk(client="10.9.0.1", sport=7, ms=1).whole(300))


def tunnelled() -> list[Frame]:
    base = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    inner = IP(src="10.1.1.1", dst="10.2.2.2") / UDP(sport=9, dport=9)
    there = bytes(base / IP(src="10.0.0.1", dst="198.51.100.9") / GRE() / inner)
    back = bytes(base / IP(src="198.51.100.9", dst="10.0.0.1") / GRE() / inner)
    frames = [(T0 + i * MS, there if i % 2 == 0 else back) for i in range(200)]
    return sorted([*merged(*fit()), *frames])


def encrypted() -> list[Frame]:
    talk = Talk(client="10.9.0.1", dport=443).open()
    for _ in range(40):
        talk.tcp(0, "PA", b"\x17\x03\x03\x03\xe8" + b"e" * 1000).tcp(1, "A")
    return merged(*fit(5), talk.close())


def short_flows() -> list[Frame]:
    return merged(
        *(Talk(client=f"10.0.{i}.1", sport=5000 + i, dport=53).udp(0).udp(1) for i in range(40))
    )


Case = tuple[Callable[[], list[Frame]], dict[str, object]]


def whole() -> list[Frame]:
    return merged(*fit())


NARROW = SENSOR.model_copy(update={"home": ("10.0.0.0/16",)})
SMALL = SENSOR.model_copy(update={"flow_limit": 1000})
FLAT = SENSOR.model_copy(update={"hash_size": 16})
ADDITIVE = SENSOR.model_copy(update={"balancer": "rss-microsoft-128"})
PATIENT = SENSOR.model_copy(update={"home": NARROW.home, "timeouts": Timeouts(tcp_closed=9999)})


@pytest.mark.parametrize(
    ("code", "severity", "frames", "more"),
    [
        ("half-flows", "error", midstream, {}),
        ("never-ending-flows", "error", unterminated, {}),
        ("capture-gaps", "error", with_gap, {}),
        ("snapped-packets", "error", whole, {"snaplen": 200}),
        ("time-backwards", "warning", backwards, {}),
        ("duplicate-packets", "warning", doubled, {}),
        ("oversized-frames", "error", oversized, {}),
        ("outside-home", "error", outside, {}),
        ("elephant-flow", "warning", elephant, {}),
        ("tunnels", "warning", tunnelled, {}),
        ("encrypted-share", "warning", encrypted, {}),
        ("below-one-iteration", "error", whole, {"profile": load("pps", 10)}),
        ("short-steady-state", "warning", elephant, {"profile": load("pps", 2000, duration=1)}),
        ("address-reuse", "error", whole, {"sensor": NARROW, "profile": load("flows", 9000)}),
        ("address-reuse", "warning", whole, {"sensor": PATIENT, "profile": load("flows", 200)}),
        ("flow-rate", "warning", short_flows, {}),
        ("flow-table", "error", whole, {"sensor": SMALL}),
        ("flow-table", "warning", whole, {"sensor": FLAT}),
        ("predicted-imbalance", "error", elephant, {"profile": load("flows", 2.1)}),
        ("torn-flows", "error", whole, {"sensor": ADDITIVE}),
    ],
)
def test_a_check_fires_on_what_it_is_for_and_not_on_a_fit_capture(
    make: Make,
    code: str,
    severity: str,
    frames: Callable[[], list[Frame]],
    more: dict[str, object],
) -> None:
    results = found(make(frames(), **more))
    assert results[code].severity == severity
    assert results[code].numbers and results[code].remedy
    if code not in ("flow-table",):
        assert code not in found(make(whole()))


def test_numbers_are_those_of_the_capture(make: Make) -> None:
    results = found(make(elephant()))
    packets = 3 + 4 * 300 + 3
    assert results["elephant-flow"].numbers["packets"] == packets
    large = found(make(oversized()))["oversized-frames"].numbers
    assert large == {"packets": 1, "largest": 4040, "mtu": 1500}
    lost = found(make(with_gap()))["capture-gaps"].numbers
    assert lost["missing_bytes"] == 1000 and lost["flows"] == 1
    fresh = found(make(whole(), sensor=NARROW, profile=load("flows", 9000)))["address-reuse"]
    assert fresh.numbers["capacity_iterations"] == 256 * 254 // 20
    assert fresh.numbers["run_iterations"] == 9000 * 10 // 20


def test_rules_that_count_are_found(make: Make, tmp_path: Path) -> None:
    rules = tmp_path / "t.rules"
    rules.write_text(
        '# alert ip any any -> any any (msg:"off"; threshold:type limit,track by_src; sid:9;)\n'
        'alert tcp any any -> any 80 (msg:"a; threshold: no"; content:"\\;"; sid:1; rev:1;)\n'
        'alert tcp any any -> any 80 (msg:"b"; \\\n'
        "  threshold: type limit, track by_src, count 1, seconds 60; sid:2;)\n"
        'alert tcp any any -> any 22 (msg:"c"; detection_filter:track by_src, count 5, seconds 9; '
        "sid:3;)\n"
        'drop tcp any any -> any 23 (msg:"d"; threshold:type both, track by_dst, count 1, seconds '
        "5; sid:4;)\n"
    )
    config = tmp_path / "threshold.config"
    config.write_text(
        "suppress gen_id 1, sig_id 7\n"
        "threshold gen_id 1, sig_id 8, type threshold, track by_src, count 10, seconds 60\n"
        "rate_filter gen_id 1, sig_id 5, track by_src, count 9, seconds 9, new_action drop, "
        "timeout 9\n"
    )
    result = found(make(whole(), rules=(rules, config)))["rate-dependent-rules"]
    assert result.severity == "warning"
    assert result.numbers == {
        "rules": 4,
        "rate_dependent": 5,
        "limit": 1,
        "detection_filter": 1,
        "both": 1,
        "threshold": 1,
        "rate_filter": 1,
    }
    assert "2, 3, 4, 8, 5" in result.message
    plain = tmp_path / "plain.rules"
    plain.write_text('alert tcp any any -> any 80 (msg:"threshold:"; sid:1;)\n')
    assert "rate-dependent-rules" not in found(make(whole(), rules=(plain,)))
    with pytest.raises(ConfigError, match=r"none\.rules: cannot read"):
        lint(make(whole(), rules=(tmp_path / "none.rules",)))


def test_silences_are_capped_as_the_expander_caps_them(make: Make) -> None:
    frames = merged(Talk(ms=1000).whole(3))
    capped = replace(make(frames), profile=Profile(name="p", corpus=CorpusSpec(max_gap=0.1)))
    assert capped.corpus.span_s == pytest.approx(0.1 * (len(frames) - 1), rel=0.01)
    assert capped._estimated().span_s >= capped.corpus.span_s
    assert make(frames).corpus.span_s == pytest.approx(len(frames) - 1)


def test_open_loads_stand_for_the_probe(make: Make) -> None:
    subject = make(whole(), profile=find_profile("demo"))
    assert subject.assumed
    assert [one.value for one in subject.loads] == [400_000]
    with pytest.raises(ConfigError, match="ready profiles: demo, flows"):
        find_profile("nonsense")


app = typer.Typer()
corpus_flows.register(app)


@app.command("other")
def _other() -> None:
    """So that commands have names."""


def test_inspect_for_prints_findings_and_fails_on_errors(tmp_path: Path) -> None:
    good = write_pcap(tmp_path / "good.pcap", whole())
    bad = write_pcap(tmp_path / "bad.pcap", unterminated())
    done = CliRunner().invoke(app, ["inspect", str(good), "--for", "demo"])
    assert done.exit_code == 0 and "verdict: fit" in done.output
    done = CliRunner().invoke(app, ["inspect", str(bad), "--for", "demo", "--json"])
    assert done.exit_code == 1
    value = json.loads(done.stdout)
    assert value["errors"] == 1 and value["profile"] == "demo"
    assert value["findings"][0]["code"] == "never-ending-flows"
    shown = CliRunner().invoke(app, ["inspect", str(bad), "--for", "demo", "--sensor", "suricata"])
    assert "error  never-ending-flows" in shown.output and "verdict: not fit" in shown.output
    # Without --for, inspect is what it was.
    assert "would be dropped" in CliRunner().invoke(app, ["inspect", str(bad)]).output


def test_every_code_has_its_section() -> None:
    from harness.lint.check import CHECKS

    text = (Path(__file__).parents[2] / "docs" / "linting.md").read_text()
    assert re.findall(r"^## ([a-z-]+)$", text, re.MULTILINE) == list(CHECKS)
