"""The intake as it runs: a real socket, a real sender (util-linux's logger), real losses."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import SensorFailed
from harness.sensors.intake.listener import Intake
from harness.sensors.intake.options import IntakeOptions
from lab.inventory import HostSpec
from lab.local import LocalHost

pytestmark = pytest.mark.skipif(shutil.which("logger") is None, reason="needs util-linux's logger")

ALERT = "[1:{sid}:1] T [Classification: x] [Priority: 3] {{TCP}} 10.0.0.1:{port} -> 10.0.0.2:80"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalHost]:
    found = LocalHost("probe", HostSpec(connection="local", workdir=str(tmp_path / "work")))
    yield found
    found.close()


def start(host: LocalHost, **options: Any) -> Intake:
    base: dict[str, Any] = {"listen": "127.0.0.1", "port": 0, "quiet": 0.3}
    return Intake.start(host, IntakeOptions.model_validate({**base, **options}))


def log(intake: Intake, *options: str, text: str) -> None:
    argv = ["logger", "-n", "127.0.0.1", "-P", str(intake.port), "-t", "ids", *options, "--", text]
    subprocess.run(argv, check=True, timeout=10)


def wait_for(intake: Intake, messages: int) -> None:
    end = time.monotonic() + 10
    while intake.messages < messages:
        assert time.monotonic() < end, f"{intake.messages} of {messages}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("at", "transport", "options"),
    [
        ("orchestrator", "udp", ("-d", "--rfc3164")),
        ("host", "udp", ("-d", "--rfc5424")),
        ("host", "tcp", ("-T", "--rfc5424")),
        ("orchestrator", "tcp", ("-T", "--rfc3164", "--octet-count")),
    ],
)
def test_what_logger_sends_arrives(
    host: LocalHost, at: str, transport: str, options: tuple[str, ...]
) -> None:
    intake = start(host, at=at, transport=transport)
    try:
        log(intake, *options, text=ALERT.format(sid=1, port=1))
        wait_for(intake, 1)
        intake.mark()  # what came before is not of the trial
        for port in range(5):
            log(intake, *options, text=ALERT.format(sid=77, port=1000 + port))
        log(intake, *options, text="session opened")
        wait_for(intake, 6)
        received, counts = intake.finish()
    finally:
        intake.stop()
    assert [(a.signature_id, a.src_port) for a in received] == [(77, 1000 + n) for n in range(5)]
    assert (counts["intake.messages"], counts["intake.alerts"]) == (6, 5)
    assert (counts["intake.dropped"], counts["intake.torn"]) == (0, 0)
    assert "session opened" in received.example()


def test_late_alerts_until_quiet(host: LocalHost) -> None:
    intake = start(host, quiet=1.0)
    try:
        since = time.monotonic()
        assert not intake.quiet(since)
        end = time.monotonic() + 10
        while not intake.quiet(since):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert intake._last is not None
        silent = intake._last["idle"]
        log(intake, "-d", text="late")
        wait_for(intake, 1)
        assert intake._last["idle"] < silent  # it begins anew
    finally:
        intake.stop()


def test_datagrams_that_had_no_room_are_counted(host: LocalHost) -> None:
    """Every datagram sent is either a message or a drop; the kernel's own count is the measure."""
    intake = start(host, buffer=4096)
    number = 3000
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for at in range(number):
                sender.sendto(b"<13>" + b"x" * 1000 + b"%d" % at, ("127.0.0.1", intake.port))
        _, counts = intake.finish()
    finally:
        intake.stop()
    assert counts["intake.dropped"] > 0
    assert counts["intake.messages"] + counts["intake.dropped"] == number


def test_tcp_frames_of_all_kinds(host: LocalHost) -> None:
    """Cut anywhere, counted or in lines, the last one without its end."""
    one, two = b"<13>counted with\na line end", b"<13>plain"
    data = (
        b"%d %s" % (len(one), one) + two + b"\n\n7 up\n" + b"%d %s" % (len(one), one) + b"<1>last"
    )
    intake = start(host, transport="tcp")
    try:
        with socket.create_connection(("127.0.0.1", intake.port)) as sender:
            for at in range(0, len(data), 3):
                sender.sendall(data[at : at + 3])
                time.sleep(0.001)
        wait_for(intake, 5)
        received, _ = intake.finish()
    finally:
        intake.stop()
    assert [text for _, _, text in received.messages()] == [
        one.decode(), "<13>plain", "7 up", one.decode(), "<1>last",
    ]  # fmt: skip


def test_a_port_that_is_taken(host: LocalHost) -> None:
    first = start(host)
    try:
        with pytest.raises(SensorFailed, match="Address already in use; see"):
            start(host, port=first.port)
    finally:
        first.stop()


def test_an_intake_that_is_killed_has_no_alerts(host: LocalHost) -> None:
    intake = start(host)
    intake._process.stop(0.0)  # as if the host had ended it
    try:
        with pytest.raises(SensorFailed, match="the intake for alerts ended early"):
            intake.quiet(time.monotonic())
    finally:
        intake.stop()
