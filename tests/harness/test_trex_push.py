"""The corpus pushed through TRex's stateless mode: what is refused, and what a load becomes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import Options, run_info

from harness.corpus import describe
from harness.errors import ConfigError, GeneratorFailed
from harness.generators.registry import check_traffic
from harness.generators.trex.push import Push, check_push, plan_push
from harness.generators.trex.stl import TrexStl
from harness.generators.trex.traffic import StlTraffic
from harness.model import Corpus, Load
from harness.profile import load_profile
from harness.session import _same
from lab.fake import Call, FakeHost, Reply
from lab.inventory import GeneratorSpec, load_inventory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pcap_tools"))
from synth import Talk, merged, write_pcap

OPTIONS = {"path": "/opt/trex", "software": True, "low_end": True}
SPEC = GeneratorSpec(
    driver="trex-stl", host="gen", interface="a", server_interface="b", options=OPTIONS
)


def corpus_of(path: Path, payload: int = 500, **more: Any) -> Corpus:
    talks = []
    for n in range(4):
        talk = Talk(sport=1000 + n, client=f"10.0.0.{n + 1}", dport=80)
        talk.open()
        talk.tcp(0, "PA", b"x" * payload)
        talk.close()
        talks.append(talk)
    write_pcap(path / "corpus.pcap", merged(*talks), **more)
    return describe(path / "corpus.pcap", ("10.0.0.0/8",), "k", None)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return corpus_of(tmp_path)


def profile(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "p.toml"
    path.write_text(f'name = "p"\n{text}')
    return load_profile(path)


# -- in the profile -----------------------------------------------------------------------------


def test_a_profile_says_what_is_sent(tmp_path: Path) -> None:
    found = profile(
        tmp_path,
        'generator = "trex-stl"\n[generator_options]\npush = "fresh"\n'
        '[load]\naxis = "flows"\nvalues = [10, 20]\nduration = 5\n',
    )
    spec = found.generator_in(SPEC.model_copy(update={"driver": "tcpreplay"}))
    assert spec.driver == "trex-stl" and spec.options == {**OPTIONS, "push": "fresh"}
    assert found.load.listed == (Load("flows", 10, 5), Load("flows", 20, 5))
    assert profile(tmp_path, "").generator_in(SPEC) == SPEC


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('generator = "trex-stl"\n[generator_options]\npush = "twice"', r"generator_options\.push"),
        ('generator = "trex-stl"\n[generator_options]\nframes = "9"', r"generator_options\.frames"),
        ('generator = "trex-stl"\n[generator_options]\npath = "/x"', r"generator_options\.path"),
        ('generator = "tcpreplay"\n[generator_options]\npush = "fresh"', "tcpreplay has none"),
        ('[generator_options]\npush = "fresh"', "without generator has none"),
        (
            'generator = "trex-stl"\n[generator_options]\npush = "remote"\n[load]\naxis = "flows"',
            "trex-stl cannot set the axis 'flows'; it can set pps, bps",
        ),
        (
            'generator = "trex-astf"\n[load]\naxis = "concurrent"',
            "trex-astf cannot set the axis 'concurrent'; it can set flows, pps, bps",
        ),
    ],
)
def test_what_a_profile_cannot_choose(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        profile(tmp_path, text)
    assert "\n" not in str(caught.value)


# -- limits, before any host is asked -----------------------------------------------------------


def test_push_pcap_takes_a_mebibyte(tmp_path: Path) -> None:
    """A file of exactly its limit passes; TRex compares the file's size too."""
    corpus = corpus_of(tmp_path)
    size = Path(corpus.path).stat().st_size
    assert size == 24 + 16 * corpus.packets + corpus.bytes
    for room, fits in ((0, True), (-1, False)):
        wide = Corpus(**{**fields(corpus), "bytes": corpus.bytes + (1 << 20) - size - room})
        if fits:
            check_push(StlTraffic(push="local"), wide, ())
        else:
            with pytest.raises(ConfigError, match=r"1,048,577 bytes are more than the 1,048,576"):
                check_push(StlTraffic(push="local"), wide, ())
        check_push(StlTraffic(push="remote"), wide, ())


def fields(corpus: Corpus) -> dict[str, Any]:
    return {name: getattr(corpus, name) for name in corpus.__slots__}


@pytest.mark.parametrize(("push", "most"), [("local", 65_535), ("remote", 0x3FFFFFFF)])
def test_loops_are_counted_before_anything_is_touched(corpus: Corpus, push: Any, most: int) -> None:
    spec = SPEC.model_copy(update={"options": {**OPTIONS, "push": push}})
    fits = Load("pps", corpus.packets * 100, most / 100)
    check_traffic(spec, corpus, [fits])
    with pytest.raises(ConfigError, match=rf"{most + 1:,} copies; push = '{push}' sends {most:,}"):
        check_traffic(spec, corpus, [Load("pps", corpus.packets * 100, (most + 1) / 100)])


def test_frames_that_were_cut_are_refused(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, snaplen=100)
    for push in ("fresh", "remote", "local"):
        with pytest.raises(ConfigError, match=r"4 frames were cut .*TRex would fill them"):
            check_push(StlTraffic(push=push), corpus, ())


def test_gaps_of_the_file_need_the_file_s_own(corpus: Corpus) -> None:
    capped = Corpus(**{**fields(corpus), "max_gap": 1.0})
    loop = StlTraffic(push="remote", push_gaps="corpus")
    with pytest.raises(ConfigError, match=r'corpus\.max_gap .*use push = "fresh"'):
        check_push(loop, capped, ())
    check_push(StlTraffic(push="fresh", push_gaps="corpus"), capped, ())


# -- what a load becomes ------------------------------------------------------------------------


def test_a_loop_says_that_it_is_one(corpus: Corpus) -> None:
    load = Load("bps", corpus.bytes * 8 * 50, 3)  # fifty copies a second
    even = plan_push(StlTraffic(push="remote"), corpus, load, 7)
    assert even.iterations == 150 and even.packets == 150 * corpus.packets
    assert even.settings["ipg_usec"] == pytest.approx(1e6 / (50 * corpus.packets))
    assert even.settings["count"] == 150 and even.first_iteration == 0
    assert "150 times under its own addresses" in even.how
    assert "every five-tuple comes back after 0.02 s" in even.how
    own = plan_push(StlTraffic(push="local", push_gaps="corpus"), corpus, load, 7)
    assert own.settings["speedup"] == pytest.approx(corpus.span_s * 50)
    assert own.settings["ipg_usec"] == 0 and own.packets == even.packets
    padded = plan_push(StlTraffic(push="local"), corpus, load, 7, padding=24)
    assert padded.bytes == even.bytes + 24 * 150


@pytest.mark.parametrize("axis", ["pps", "bps", "flows", "concurrent"])
def test_fresh_addresses_take_every_axis(corpus: Corpus, axis: Any) -> None:
    load = Load(axis, corpus.amount(axis) * 20, 3)  # twenty iterations a second
    plan = plan_push(StlTraffic(push="fresh"), corpus, load, 7)
    assert (plan.iterations, plan.first_iteration) == (60, 7)
    assert plan.settings["count"] == 1 and "fresh addresses" in plan.how
    assert "comes back" not in plan.how


# -- on the host --------------------------------------------------------------------------------


def host_with(free_kib: int) -> FakeHost:
    def answer(call: Call) -> Reply:
        if call.argv[0] == "df":
            return Reply(f"Filesystem 1024-blocks Used Available\n/dev/x 9 9 {free_kib} 1% /\n")
        if call.argv[0] == "cat":
            return Reply("1500\n")
        if call.argv[0] == "sha256sum":
            return Reply("", "", 1)
        if call.argv[0] == "test":
            return Reply("", "", 1)
        return Reply("wrapper=yes\nbinary=yes\nstl=yes\nastf=yes\ncores=2\n")

    return FakeHost(answer, name="gen")


def test_a_disk_that_is_too_small_is_named(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.generators.trex.push.ship_expander", lambda host: {})
    monkeypatch.setattr("harness.generators.trex.push.ship_capture", lambda *words: "/c.pcap")
    push = Push(host_with(100), SPEC, StlTraffic(push="fresh"))
    push.prepare(corpus)
    plan = push.plan(Load("pps", 5000, 1), 0)
    with pytest.raises(GeneratorFailed, match=r"do not fit into .* \(0\.0 GB are free\)"):
        push.expand(plan)


@pytest.mark.parametrize(
    ("options", "payload", "message"),
    [
        ({"frames": "64,9000"}, 10, "a has MTU 1500, the streams have frames of 8996 bytes"),
        ({"push": "remote"}, 3000, "a has MTU 1500, the corpus has frames of 3054 bytes"),
    ],
)
def test_frames_that_do_not_fit_the_mtu(
    tmp_path: Path, options: dict[str, Any], payload: int, message: str
) -> None:
    spec = SPEC.model_copy(update={"options": {**OPTIONS, **options}})
    with pytest.raises(GeneratorFailed, match=message):
        TrexStl(host_with(1), spec).prepare(corpus_of(tmp_path, payload))


def test_blanks_that_trex_s_scripts_cannot_take(corpus: Corpus) -> None:
    spec = SPEC.model_copy(update={"options": {**OPTIONS, "path": "/opt/my trex"}})
    with pytest.raises(ConfigError, match=r"options\.?: path: '/opt/my trex' has a blank in it"):
        TrexStl(host_with(1), spec)
    host = host_with(1)
    host.workdir = "/var/tmp/my bench"
    with pytest.raises(ConfigError, match=r"gen\.workdir: '/var/tmp/my bench' has a blank"):
        TrexStl(host, SPEC).prepare(corpus)


def test_a_run_is_not_resumed_with_other_traffic(tmp_path: Path, corpus: Corpus) -> None:
    """A run of before profiles had such options is resumed as it was."""
    text = 'generator = "trex-stl"\n[generator_options]\npush = "fresh"\n'
    pushed, plain = profile(tmp_path, text), profile(tmp_path, 'generator = "trex-stl"\n')
    lab = Path(__file__).resolve().parents[2] / "lab" / "example-trex.toml"
    inventory = load_inventory(lab)
    for was, now, same in ((pushed, pushed, True), (plain, plain, True), (pushed, plain, False)):
        for old in (False, True) if was is plain else (False,):
            stored = was.model_dump(mode="json")
            if old:
                stored.pop("generator_options")
            info = replace(
                run_info(Options()),
                profile=stored,
                corpus={"digest": corpus.digest},
                inventory=inventory.model_dump(mode="json"),
            )
            if same:
                _same(info, now, inventory, corpus, tmp_path)
            else:
                with pytest.raises(ConfigError, match=r"has changed since \(generator_options\)"):
                    _same(info, now, inventory, corpus, tmp_path)
