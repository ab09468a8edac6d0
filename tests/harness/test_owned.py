"""A sensor process of ours, and the files it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import SensorFailed
from harness.sensors import owned
from harness.sensors.owned import Owned, remote_lines
from lab.inventory import HostSpec
from lab.local import LocalHost


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalHost]:
    found = LocalHost("probe", HostSpec(connection="local", workdir=str(tmp_path)))
    yield found
    found.close()


@pytest.mark.parametrize("large", [1, 1 << 20])
def test_files_large_and_small(
    host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(owned, "_LARGE", large)
    (tmp_path / "x.log").write_text("one\ntwo\ntorn")
    assert list(remote_lines(host, str(tmp_path / "x.log"))) == ["one\n", "two\n", "torn"]
    assert list(remote_lines(host, str(tmp_path / "none.log"))) == []
    assert [path.name for path in tmp_path.glob("x*")] == ["x.log"]


def test_it_runs_where_it_is_told_and_ends_when_it_is_told(host: LocalHost, tmp_path: Path) -> None:
    script = "trap 'echo last; exit 0' TERM; pwd; echo ready; while :; do sleep 0.05; done"
    process = Owned(host, "thing", ["sh", "-c", script], str(tmp_path))
    process.await_words("ready", 10)
    assert process.said().splitlines() == [str(tmp_path), "ready"]
    process.end(10)
    assert process.last_words() == "last"
    with pytest.raises(SensorFailed, match="probe: thing ended during the trial: last"):
        process.end(1)


def test_one_that_dies_at_once(host: LocalHost, tmp_path: Path) -> None:
    process = Owned(
        host, "thing", ["sh", "-c", "echo no such interface >&2; exit 3"], str(tmp_path)
    )
    with pytest.raises(SensorFailed, match="thing ended while it started: no such interface"):
        process.await_words("ready", 10)
    process.stop()
