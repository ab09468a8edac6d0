"""Wrong use of every command: one line that helps, the right status, and nothing left behind."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "pcap_tools"))
from synth import MS, T0, Talk, interface, merged, section, write_pcap

from harness import cli

REPOSITORY = Path(__file__).resolve().parents[1]
LAB = """name = "x"
[hosts.gen]
connection = "local"
[hosts.gen.interfaces.t0]
test = true
[generator]
host = "gen"
interface = "t0"
[sensor]
host = "gen"
interface = "t0"
"""
PROFILE = 'name = "x"\n[load]\nvalues = [10]\nduration = 1\n'

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with good and bad files of every kind."""
    monkeypatch.chdir(tmp_path)
    talks = [Talk(sport=40000 + i, start=T0 + 50 * i * MS).whole() for i in range(3)]
    frames = merged(*talks)
    good = write_pcap(tmp_path / "good.pcap", frames).read_bytes()
    write_pcap(tmp_path / "other.pcap", [(t, f[14:]) for t, f in frames], link=101)
    write_pcap(tmp_path / "half.pcap", merged(Talk().talk()))
    write_pcap(tmp_path / "zero.pcap", [])
    write_pcap(tmp_path / "wifi.pcap", frames, link=105)
    for name, octets in {
        "empty.pcap": b"",
        "header.pcap": good[:10],
        "garbage.pcap": b"hello, this is no capture" * 9,
        "corrupt.pcap": good[:200] + b"\xff" * 400 + good[200:],
        "zero.pcapng": section() + interface(),
        "latin.toml": 'name = "é"'.encode("latin-1"),
        "no.toml": b"name = \n",
        "lab.toml": LAB.encode(),
        "profile.toml": PROFILE.encode(),
        "lab-key.toml": LAB.replace("connection", "conection").encode(),
        "lab-way.toml": LAB.replace('"local"', '"pigeon"').encode(),
        "lab-host.toml": LAB.replace('host = "gen"', 'host = "nobody"').encode(),
        "lab-home.toml": (LAB + 'home = ["here"]\n').encode(),
        "lab-hosts.toml": b'name = "x"\nhosts = 3\n',
        "profile-key.toml": (PROFILE + "speed = 3\n").encode(),
        "profile-load.toml": PROFILE.replace("[10]", "[-1]").encode(),
        "profile-axis.toml": (PROFILE + 'axis = "bananas"\n').encode(),
        "profile-name.toml": b"[load]\n",
        "plan.json": b"{}",
        "file": b"",
        "dir/keep": b"",
        "run-other/run.json": b'{"schema": 99}',
        "run-list/run.json": b"[]",
        "run-torn/run.json": b'{"schema": 1, ',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(octets)
    return tmp_path


@pytest.fixture
def probebench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the program in this process: status, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["probebench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def contents(directory: Path) -> dict[str, str]:
    return {
        str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest()
        if p.is_file()
        else "directory"
        for p in directory.rglob("*")
    }


def refused(run: Run, desk: Path, words: str, *parts: str, status: int = 2) -> None:
    before = contents(desk)
    code, out, err = run(*words.split())
    assert code == status, err
    assert out == ""
    assert err.startswith("probebench"), err
    assert err.count("\n") == 1 and "Errno" not in err and "defect" not in err, err
    for part in parts:
        assert part in err, err
    assert contents(desk) == before


READERS = {
    "inspect": "corpus inspect {}",
    "flows": "corpus flows {} -o x.csv",
    "clean": "corpus clean {} -o x.pcap",
    "remap": "corpus remap {} -o x.pcap --key k",
    "expand": "corpus expand {} -o x.pcap --key k --iterations 2",
    "mix": "corpus mix {} -o x.pcap",
    "impair": "corpus impair {} -o x.pcap --seed 1 --loss 0.1",
    "label": f"corpus label {{}} -o x.json --rules {REPOSITORY}/profiles/demo.rules",
}


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize(
    ("capture", "part"),
    [
        ("missing.pcap", "No such file"),
        ("dir", "Is a directory"),
        ("empty.pcap", "0 bytes"),
        ("header.pcap", "10 of 24 bytes"),
        ("garbage.pcap", "neither pcap nor pcapng"),
        ("zero.pcap", "no packet"),
        ("zero.pcapng", "no packet"),
        ("wifi.pcap", "link type 105"),
        ("corrupt.pcap", "corrupt at offset"),
    ],
)
def test_captures_that_cannot_be_read(
    probebench: Run, desk: Path, command: str, capture: str, part: str
) -> None:
    refused(probebench, desk, READERS[command].format(capture), capture, part)


WRITERS = {
    "clean": "corpus clean good.pcap -o {}",
    "remap": "corpus remap good.pcap --key k -o {}",
    "expand": "corpus expand good.pcap --key k --iterations 2 -o {}",
    "mix": "corpus mix good.pcap -o {}",
    "impair": "corpus impair good.pcap --seed 1 --loss 0.1 -o {}",
    "label": f"corpus label good.pcap --rules {REPOSITORY}/profiles/demo.rules -o {{}}",
}


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize(
    ("output", "part"),
    [
        ("dir", "it is a directory; give a file name"),
        ("/", "it is a directory; give a file name"),
        ("nowhere/x", "there is no directory nowhere; make it first"),
        ("file/x", "file is not a directory; give another path"),
        ("good.pcap", "is also an input; give another output"),
        ("dir/../good.pcap", "is also an input; give another output"),
    ],
)
def test_outputs_that_cannot_be_written(
    probebench: Run, desk: Path, command: str, output: str, part: str
) -> None:
    refused(probebench, desk, WRITERS[command].format(output), output, part)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("corpus flows good.pcap -o x.txt", "ends in .csv, .jsonl, .parquet"),
        ("corpus flows good.pcap -o nowhere/x.csv", "there is no directory nowhere"),
        ("corpus clean half.pcap -o x.pcap", "nothing is left of 8 packets"),
        ("corpus clean good.pcap other.pcap -o x.pcap", "several link types"),
        ("corpus clean good.pcap dir/../good.pcap -o x.pcap", "is given twice"),
        ("corpus clean good.pcap -o x.pcap --keep everything", "unknown rule 'everything'"),
        ("corpus clean good.pcap -o x.pcap --edge nan", "--edge nan"),
        ("corpus clean good.pcap -o x.pcap --edge -1", "--edge -1"),
        ("corpus clean good.pcap -o x.pcap --idle 0", "--idle 0"),
        ("corpus clean good.pcap -o x.pcap --idle 1e30", "--idle 1e+30"),
        ("corpus clean good.pcap -o x.pcap --report good.pcap", "is also an input"),
        ("corpus clean good.pcap -o x.pcap --report x.pcap", "is asked for twice"),
        ("corpus remap good.pcap -o x.pcap --key=", "--key is empty"),
        ("corpus remap good.pcap -o x.pcap --key k --map x.pcap.plan.json", "asked for twice"),
        ("corpus remap good.pcap -o x.pcap --key k --home nonsense", "'nonsense' is not a net"),
        ("corpus remap good.pcap -o x.pcap --key k --iteration 99999999999", "its pool has"),
        ("corpus remap good.pcap -o x.pcap", "--key is missing"),
        ("corpus remap good.pcap -o x.pcap --key k --home-pool x", "--home-pool: 'x' is not a net"),
        ("corpus remap good.pcap -o x.pcap --key k --external-pool 10.0.0.0/9", "overlaps"),
        ("corpus remap good.pcap -o x.pcap --key k --pools no.toml", "no.toml: not TOML"),
        (
            "corpus remap good.pcap -o x.pcap --key k --pools no.toml --home ::/0",
            "--pools excludes",
        ),
        ("corpus remap good.pcap -o x.pcap --key k --macs swap", "--macs 'swap'"),
        ("corpus remap good.pcap -o x.pcap --key k --hosts many", "--hosts 'many'"),
        ("corpus remap good.pcap -o x.pcap --key k --hosts 9 --prefix-preserving", "excludes"),
        ("corpus remap good.pcap -o x.pcap --plan plan.json", "plan.json: not an address plan"),
        ("corpus remap good.pcap -o x.pcap --plan plan.json --key k", "drop them"),
        ("corpus remap good.pcap -o x.pcap --invert plan.json --macs map", "--invert excludes"),
        ("corpus remap other.pcap -o x.pcap --key k --macs client=02:00:00:00:00:01", "--macs"),
        ("corpus expand good.pcap -o x.pcap --key k --iterations 2 --hosts 0", "--hosts '0'"),
        (
            "corpus expand good.pcap -o x.pcap --key k --iterations 99999 --hosts 1 --every 0.01",
            "tcp five-tuples come back after 21,504 iterations",
        ),
        ("corpus expand good.pcap -o x.pcap --key= --iterations 2", "--key is empty"),
        ("corpus expand good.pcap -o x.pcap --key k --iterations 0", "'--iterations'"),
        ("corpus expand good.pcap -o x.pcap --key k --iterations 99999999999", "its pool has"),
        ("corpus expand good.pcap -o x.pcap --key k --iterations 2 --home 10.1.2.3/8", "host bits"),
        ("corpus expand good.pcap -o x.pcap --key k --iterations 2 --home 10.0.0.0/31", "pool"),
        ("corpus expand good.pcap -o x.pcap --key k --iterations 2 --every 0", "--every 0"),
        ("corpus expand good.pcap -o x.pcap --key k --iterations 2 --every inf", "--every inf"),
        ("corpus expand good.pcap -o x.pcap --key k --iterations 2 --max-gap nan", "--max-gap"),
        ("corpus expand good.pcap -o x.pcap --key k --iterations 2 --flow-rate 0", "above 0"),
        (
            "corpus expand good.pcap -o x.pcap --key k --iterations 2 --every 1 --sequential",
            "exclude each other",
        ),
        ("corpus expand good.pcap -o x.pcap --key k --iterations 2 --plan x.pcap", "asked for twi"),
        ("corpus invert nowhere.json 10.0.0.1", "nowhere.json: No such file"),
        ("corpus invert plan.json 10.0.0.1", "plan.json: not an address plan"),
        ("corpus invert good.pcap 10.0.0.1", "good.pcap: not JSON"),
        ("corpus invert plan.json ten.0.0.1", "'ten.0.0.1' is not an IP address"),
        ("corpus label good.pcap -o x.json --rules nowhere.rules", "nowhere.rules: cannot read"),
        ("corpus label good.pcap -o x.json --rules dir", "dir: cannot read"),
        ("corpus mix good.pcap", "give -o OUT to write the mix, or --dry-run"),
        ("corpus mix good.pcap -o x.pcap --target encrypted", "write NAME=NUMBER"),
        ("corpus mix good.pcap -o x.pcap --target speed=1", "no dimension 'speed'"),
        ("corpus mix good.pcap -o x.pcap --target encrypted=0.5", "flows have 0 to 0"),
        ("corpus mix good.pcap -o x.pcap --rate fast", "rate 'fast'"),
        ("corpus mix good.pcap -o x.pcap --idle 0", "--idle 0"),
        ("corpus mix good.pcap -o x.pcap --mix nowhere.toml", "nowhere.toml: cannot be read: No"),
        ("corpus mix good.pcap -o x.pcap --mix profile.toml", "unknown key 'name'"),
        ("corpus mix good.pcap -o x.pcap --labels nowhere.csv", "nowhere.csv: cannot be read: No"),
        ("corpus mix good.pcap -o x.pcap --labels lab.toml", "lab.toml: wanted are a column flow"),
        ("corpus mix good.pcap -o x.pcap --reference plan.json", "plan.json: reference schema"),
        ("corpus mix good.pcap -o profile.toml --mix profile.toml", "is also an input"),
        ("corpus impair good.pcap -o x.pcap --seed 1", "nothing to do; give one of --loss"),
        ("corpus impair good.pcap -o x.pcap --loss 0.1", "'--seed'"),
        ("corpus impair good.pcap -o x.pcap --seed 1 --loss 2", "the rate 2 is not between"),
        ("corpus impair good.pcap -o x.pcap --seed 1 --loss much", "a probability, as 0.01"),
        ("corpus impair good.pcap -o x.pcap --seed 1 --loss 1", "every packet would be lost"),
        ("corpus impair good.pcap -o x.pcap --seed 1 --reorder 0.1:x", "P:N, as 0.02:3"),
        ("corpus impair good.pcap -o x.pcap --seed 1 --jitter -1", "seconds up to 3600"),
        ("corpus impair good.pcap -o x.pcap --seed 1 --loss-flows 0.1", "needs --loss as well"),
        ("corpus impair good.pcap -o x.pcap --seed 1 --loss 0.1 --loss-flows 7", "share of flows"),
        ("report nowhere", "nowhere: not a run directory"),
        ("report dir", "dir: not a run directory"),
        ("report file", "file: not a run directory"),
        ("report run-other", "run-other/run.json: schema 99"),
        ("report run-list", "run-list/run.json: damaged"),
        ("report run-torn", "run-torn/run.json: damaged"),
        ("lab up --name no/such", "lab name 'no/such'"),
        ("lab up --mtu 20", "'--mtu'"),
        ("demo --profile nowhere.toml", "nowhere.toml: no such profile"),
        ("demo bias --profile profile-key.toml", "load.speed: no such key"),
    ],
)
def test_wrong_arguments(probebench: Run, desk: Path, words: str, part: str) -> None:
    refused(probebench, desk, words, part)


@pytest.mark.parametrize(
    ("profile", "lab", "part"),
    [
        ("nowhere.toml", "lab.toml", "nowhere.toml: no such profile"),
        ("dir", "lab.toml", "dir: cannot be read: Is a directory"),
        ("no.toml", "lab.toml", "no.toml: not TOML: Invalid value (at line 1"),
        ("latin.toml", "lab.toml", "latin.toml: not a TOML file (not UTF-8 text at offset 8)"),
        ("profile-key.toml", "lab.toml", "profile-key.toml: load.speed: no such key"),
        ("profile-load.toml", "lab.toml", "profile-load.toml: load: values must be positive"),
        ("profile-axis.toml", "lab.toml", "profile-axis.toml: load.axis: "),
        ("profile-name.toml", "lab.toml", "profile-name.toml: name: this key is missing"),
        ("profile.toml", "nowhere.toml", "nowhere.toml: no such inventory"),
        ("profile.toml", "dir", "dir: cannot be read: Is a directory"),
        ("profile.toml", "no.toml", "no.toml: not TOML"),
        ("profile.toml", "good.pcap", "good.pcap: not a TOML file"),
        ("profile.toml", "lab-key.toml", "lab-key.toml: hosts.gen.con"),
        ("profile.toml", "lab-way.toml", "hosts.gen.connection: Input should be 'local'"),
        ("profile.toml", "lab-host.toml", "generator.host = 'nobody' is not among [hosts]"),
        ("profile.toml", "lab-home.toml", "sensor.home: 'here' is not a network"),
        ("profile.toml", "lab-hosts.toml", "lab-hosts.toml: "),
        ("profile.toml", "lab.toml", "no corpus: give --corpus FILE"),
        ("profile.toml", "lab.toml --corpus nowhere.pcap", "nowhere.pcap: no such capture"),
        ("profile.toml", "lab.toml --corpus dir", "dir/corpus.pcap: no such capture"),
        ("profile.toml", "lab.toml --corpus good.pcap -o file", "file: "),
        ("profile.toml", "lab.toml --corpus good.pcap --resume dir", "nothing to resume"),
    ],
)
def test_sweeps_that_cannot_be(
    probebench: Run, desk: Path, profile: str, lab: str, part: str
) -> None:
    refused(probebench, desk, f"sweep {profile} --lab {lab}", part)


def test_a_corpus_without_ethernet_is_not_sent(desk: Path) -> None:
    from harness.corpus import describe
    from pcap_tools.errors import UnsupportedLink

    assert describe(desk / "good.pcap", ("10.0.0.0/8",), "k", None).flows == 3
    with pytest.raises(UnsupportedLink, match=r"other\.pcap: raw IP cannot be sent .* tcprewrite"):
        describe(desk / "other.pcap", ("10.0.0.0/8",), "k", None)


def test_packets_that_no_iteration_makes_fresh(probebench: Run, desk: Path) -> None:
    from harness.corpus import describe
    from pcap_tools.errors import EmptyCapture

    lldp = [(t, f[:12] + b"\x88\xcc" + f[14:]) for t, f in Talk().whole().frames]
    write_pcap(desk / "lldp.pcap", lldp)
    expand = "corpus expand {} -o x.pcap --key k --iterations 2 --quiet"
    code, _, err = probebench(*expand.format("lldp.pcap").split())
    assert code == 0 and err.count("\n") == 1
    assert f"{len(lldp)} of {len(lldp)} packets of the corpus keep their addresses" in err
    assert probebench(*expand.format("good.pcap").split())[2] == ""
    with pytest.raises(EmptyCapture, match=r"lldp\.pcap: no packet with an address"):
        describe(desk / "lldp.pcap", ("10.0.0.0/8",), "k", None)


def test_a_directory_without_permission(
    probebench: Run, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everywhere, so that the answer of the kernel is played.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "dir")
    refused(probebench, desk, "corpus clean good.pcap -o dir/x.pcap", "no permission", "in dir;")


def test_a_truncated_tail_is_told_and_the_rest_kept(probebench: Run, desk: Path) -> None:
    whole = (desk / "good.pcap").read_bytes()
    (desk / "cut.pcap").write_bytes(whole[:-20])
    code, _, err = probebench("corpus", "remap", "cut.pcap", "-o", "x.pcap", "--key", "k")
    assert (code, err) == (0, "")
    code, _, err = probebench(
        "corpus", "clean", "cut.pcap", "-o", "y.pcap", "--keep", "unterminated"
    )
    assert code == 0 and "bytes of a truncated tail" in err


def commands() -> Iterator[str]:
    """Every command of the program, by walking its help."""
    import typer

    cli._register()

    def walk(command: object, path: str) -> Iterator[str]:
        children = getattr(command, "commands", None)
        if children:
            for name, child in children.items():
                yield from walk(child, f"{path} {name}".strip())
        if not children or getattr(command, "invoke_without_command", False):
            yield path

    yield from walk(typer.main.get_command(cli.app), "")


@pytest.mark.parametrize("command", [c for c in commands() if c])
def test_every_command_shows_an_example(probebench: Run, command: str) -> None:
    code, out, _ = probebench(*command.split(), "--help")
    assert code == 0
    assert f"Example: probebench {command} " in " ".join(out.replace("`", " ").split()) + " "


def test_every_command_is_walked() -> None:
    assert {"corpus clean", "lab up", "sweep", "report", "demo", "demo bias"} <= set(commands())
