"""The sampler on this machine: what it reads, how that travels, and that it ends."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import _sampler, _sampler_machine, sampler
from lab.errors import LabError
from lab.fake import Call, FakeHost, FakeProcess, Reply
from lab.host import Exit
from lab.inventory import HostSpec
from lab.local import LocalHost
from lab.sampler import Merger, Sampler, Subject

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sampler reads /proc and /sys")

LAB = Path(__file__).parents[2] / "lab"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalHost]:
    with LocalHost("here", HostSpec(connection="local", workdir=str(tmp_path / "work"))) as found:
        yield found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestSoftnet:
    """/proc/net/softnet_stat of three ages of kernel (net/core/net-procfs.c, softnet_seq_show)."""

    def test_the_row_says_its_cpu(self) -> None:
        # Linux 6.18: CPU 1 is offline, so the second row is of CPU 2.
        text = (
            "006c8052 00000003 0000000a 0 0 0 0 0 0 0000000b 0000000c 0 00000000 0 0\n"
            "00015f63 00000000 00000000 0 0 0 0 0 0 00000000 00000000 0 00000002 0 0\n"
        )
        found = _sampler_machine.softnet(text, [0, 2])
        assert found == {
            "0": {"processed": 7110738, "dropped": 3, "time_squeeze": 10,
                  "received_rps": 11, "flow_limit": 12},
            "2": {"processed": 89955, "dropped": 0, "time_squeeze": 0,
                  "received_rps": 0, "flow_limit": 0},
        }  # fmt: skip

    def test_an_older_kernel_leaves_it_to_the_order(self) -> None:
        # Linux 3.11 to 5.9: eleven columns; Linux 2.6: nine.
        eleven = "00000010 00000001 00000002 0 0 0 0 0 0 00000000 00000000\n" * 2
        nine = "00000010 00000001 00000002 0 0 0 0 0 0\n" * 2
        assert list(_sampler_machine.softnet(eleven, [0, 3])) == ["0", "3"]
        assert _sampler_machine.softnet(nine, [0, 3])["3"] == {
            "processed": 16, "dropped": 1, "time_squeeze": 2,
        }  # fmt: skip


Tree = dict[str, Any]
NUMBERS = st.integers(0, 5)
NAMES = st.sampled_from("abc/")
TREES = st.dictionaries(
    NAMES, NUMBERS | st.dictionaries(NAMES, NUMBERS | st.dictionaries(NAMES, NUMBERS))
)


def said(readings: list[Tree], capsys: pytest.CaptureFixture[str]) -> list[str]:
    before: Tree = {}
    for number, reading in enumerate(readings):
        _sampler.say(number, _sampler.changes(before, reading))
        before = reading
    return capsys.readouterr().out.splitlines()


class TestOnTheWay:
    """Readings travel as changes, in pieces that no leash cuts."""

    @given(st.lists(TREES, min_size=1, max_size=6))
    def test_what_arrives_is_what_was_read(self, readings: list[Tree]) -> None:
        before: Tree = {}
        lines = []
        for number, reading in enumerate(readings):
            lines.append(f"{number} 0 1 {json.dumps(_sampler.changes(before, reading))}")
            before = reading
        assert Merger().feed(lines) == readings

    def test_a_long_reading_comes_in_pieces(self, capsys: pytest.CaptureFixture[str]) -> None:
        reading = {"interface": {f"rx{i}_some_counter_of_the_driver": i for i in range(3000)}}
        lines = said([reading, reading], capsys)
        assert len(lines) > 20 and max(map(len, lines)) < 8192
        merger = Merger()
        one_by_one = [found for line in lines for found in merger.feed([line])]
        assert one_by_one == [reading, reading]

    def test_nothing_is_believed_after_a_lost_line(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lines = said([{"t": n} for n in range(5)], capsys)
        del lines[2]
        merger = Merger()
        assert merger.feed(lines) == [{"t": 0}, {"t": 1}]
        assert merger.torn and merger.count == 2

    def test_other_words_are_kept(self) -> None:
        merger = Merger()
        assert merger.feed(["ImportError: no module", ""]) == []
        assert merger.other == "ImportError: no module"


def test_it_is_python_3_7_and_imports_nothing_of_ours_but_itself() -> None:
    for path in LAB.glob("_sampler*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 7))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("lab"):
                assert f"{str(node.module).removeprefix('lab.')}.py" in sampler._MODULES
            elif isinstance(node, ast.Import):
                assert all(a.name in sys.stdlib_module_names for a in node.names)


def test_dear_samples_become_rarer() -> None:
    assert _sampler.spaced(1.0, 0.02, 10.0) == 1.0
    assert _sampler.spaced(1.0, 0.09, 10.0) == 2.0
    assert _sampler.spaced(1.0, 0.09, 1.0) == 1.0  # too soon to tell
    assert _sampler.spaced(2.0, 0.5, 10.0) == 2.0


def test_the_same_source_is_the_same_file() -> None:
    assert sampler.archive() == sampler.archive()


def test_it_reads_the_machine(host: LocalHost, tmp_path: Path) -> None:
    busy = subprocess.Popen(
        ["sh", "-c", f'"{sys.executable}" -c "while True: pass" & wait'], start_new_session=True
    )
    try:
        child = 0
        while not child:
            text = Path(f"/proc/{busy.pid}/task/{busy.pid}/children").read_text()
            child = int(text.split()[0]) if text else 0
        one = Sampler(host, Subject(None, (busy.pid,), str(tmp_path / "not-yet" / "eve.json"), 0.2))
        one.first()
        ticks = cpu_ticks(child)
        while cpu_ticks(child) < ticks + 30:
            time.sleep(0.02)
        (tmp_path / "big").write_bytes(bytes(1 << 20))
        readings = one.stop()
        after = cpu_ticks(child)
    finally:
        os.killpg(busy.pid, 9)
        busy.wait()
    first, last = readings[0], readings[-1]
    assert len(readings) >= 2 and last["t"] > first["t"] and abs(last["wall"] - time.time()) < 60
    # The child's thread, though only its parent was named; /proc/<pid>/stat agrees.
    name = next(n for n in last["threads"] if n.startswith("python"))
    used = last["threads"][name] - first["threads"][name]
    assert 0.25 < used <= (after - ticks) / 100 + 1.0
    assert last["memory"]["rss"] > 1 << 20
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert last["memory"]["total"] == total > last["memory"]["available"] > 0
    assert {"0"} <= set(last["cpus"]) == set(last["softnet"])
    system = Path("/proc/stat").read_text().splitlines()[1].split()
    assert 0 < last["cpus"]["0"]["system"] <= int(system[3]) / 100
    volume = os.statvfs(tmp_path)
    assert abs(last["disk"]["free_bytes"] - volume.f_bavail * volume.f_frsize) < 1 << 30
    assert "interface" not in last and last["cost"] > first["cost"] > 0


def cpu_ticks(pid: int) -> int:
    cell = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(cell[11]) + int(cell[12])


def test_a_process_that_ends_is_gone_from_the_readings(host: LocalHost) -> None:
    short = subprocess.Popen(["sleep", "60"])
    one = Sampler(host, Subject(None, (short.pid,), None, 0.1))
    assert list(one.first()["threads"]) == ["sleep"]
    short.kill()
    short.wait()
    last = one.stop()[-1]
    assert last["threads"] == {} and "rss" not in last["memory"]


def test_it_ends_when_nobody_holds_the_leash(host: LocalHost) -> None:
    one = Sampler(host, Subject("lo", (), None, 0.1))
    one.first()
    process: Any = one._process
    assert alive(process.pid)
    process.abandon()
    end = time.monotonic() + 10
    while alive(process.pid):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_interface_that_is_not_there_has_no_counters(host: LocalHost) -> None:
    one = Sampler(host, Subject("none0", (), None, 0.1))
    assert one.first()["interface"] == {} and one.first()["cpus"]
    one.stop()


def fake(process: FakeProcess) -> FakeHost:
    return FakeHost(lambda call: process if call.leashed else Reply(), name="probe")


class TestWhatGoesWrong:
    """Each is one line that names the host."""

    def test_a_python_that_cannot(self) -> None:
        process = FakeProcess(["SyntaxError: invalid syntax"], Exit(1, None, "exited"))
        with pytest.raises(LabError, match=r"probe: the sampler ended \(exited\): SyntaxError"):
            Sampler(fake(process), Subject("rx0")).first()

    def test_one_that_dies(self) -> None:
        process = FakeProcess(['0 0 1 {"t":1}'])
        one = Sampler(fake(process), Subject("rx0"))
        one.first()
        process.finish(Exit(None, 9, "killed"))
        with pytest.raises(LabError, match=r"probe: the sampler ended before it was told to"):
            one.stop()

    def test_lines_that_were_lost(self) -> None:
        process = FakeProcess(['0 0 1 {"t":1}', '2 0 1 {"t":3}'])
        one = Sampler(fake(process), Subject("rx0"))
        one.first()
        process.finish(Exit(0, None, "stopped"))
        with pytest.raises(LabError, match=r"probe: readings of the sampler were lost after 1"):
            one.stop()

    def test_it_is_shipped_once(self) -> None:
        host = fake(FakeProcess(['0 0 1 {"t":1}']))
        Sampler(host, Subject("rx0"))
        (path,) = host.files
        host.handler = lambda call: (
            FakeProcess() if call.leashed else Reply(f"{digest(host, path)}  {path}\n")
        )
        host.files[path] += b""
        host.put = None  # type: ignore[assignment, method-assign]
        Sampler(host, Subject("rx0"))
        calls = [c for c in host.calls if isinstance(c, Call) and c.leashed]
        assert all(path in c.argv for c in calls) and len(calls) == 2


def digest(host: FakeHost, path: str) -> str:
    import hashlib

    return hashlib.sha256(host.files[path]).hexdigest()
