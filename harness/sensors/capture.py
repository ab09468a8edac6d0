"""A bare capture (tcpdump or dumpcap) in the sensor's place: what the path itself loses.

It analyses nothing. What it loses at a load, no sensor behind the same NIC and kernel would have
seen; what it does not lose, a sensor lost by itself. And it is the way captures are made that later
become corpora: one that drops makes gaps that look like evasion.

The counters (tcpdump(1), pcap_stats(3PCAP); Wireshark, dumpcap.c, report_packet_drops):

| program | words | holds |
| --- | --- | --- |
| tcpdump | received by filter | reached the capture socket, drops included (on Linux) |
| tcpdump | dropped by kernel | of those, for want of room in the buffer |
| tcpdump | captured | taken from the buffer |
| tcpdump | dropped by interface | what the NIC's driver says; kept in `raw` alone, the NIC is read itself |
| dumpcap | received | taken from the buffer, without drops |
| dumpcap | pcap: | dropped by the kernel |
| dumpcap | dumpcap:, flushed: | dropped by dumpcap itself |
"""  # noqa: E501

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from harness.errors import ConfigError, SensorFailed
from harness.model import Alert, Capabilities, Counters
from harness.sensors.appliance.options import Strict, read
from harness.sensors.base import Footprint, Live
from lab.errors import MissingTool
from lab.host import Host, Process
from lab.inventory import SensorSpec

__all__ = ["BareCapture", "dumpcap_counters", "tcpdump_counters"]

_MAX_SECONDS = 24 * 3600.0
_STOP_S = 15.0
_POLL_S = 0.3
# A block of the ring is handed over at the latest after tcpdump's read timeout of 1 s.
_QUIET_S = 1.3
_QUIET_PPS = 10.0


class CaptureOptions(Strict):
    """`snaplen` in bytes (0: whole frames), `buffer` in KiB (tcpdump -B) or MiB (dumpcap -B).

    `write` is a file on the sensor's host, or "discard". `filter` is a pcap filter.
    """

    program: Literal["tcpdump", "dumpcap"] = "tcpdump"
    snaplen: int = Field(default=96, ge=0, le=262144)
    buffer: int | None = Field(default=None, ge=1)
    write: str = "discard"
    filter: str | None = None


def _number(text: str, pattern: str) -> int | None:
    found = re.findall(pattern, text, re.MULTILINE)
    return int(found[-1]) if found else None


def _counters(received: int, dropped: int, taken: int, raw: dict[str, float]) -> Counters:
    return Counters(
        received=received,
        dropped=dropped,
        decoded=taken,
        decoded_bytes=None,
        invalid=None,
        flows=None,
        alerts=None,
        raw=raw,
        exact=True,
    )


def tcpdump_counters(text: str) -> Counters | None:
    """The last report in what tcpdump printed (at its end, or when asked); None without one."""
    words = {
        "captured": _number(text, r"(\d+) packets? captured"),
        "received": _number(text, r"(\d+) packets? received by filter"),
        "dropped": _number(text, r"(\d+) packets? dropped by kernel"),
        "ifdropped": _number(text, r"(\d+) packets? dropped by interface"),
    }
    captured, received, dropped = words["captured"], words["received"], words["dropped"]
    if captured is None or received is None or dropped is None:
        return None
    raw = {f"tcpdump.{name}": float(value) for name, value in words.items() if value is not None}
    return _counters(received, dropped, captured, raw)


_DUMPCAP = re.compile(
    r"received/dropped on interface .*?: (\d+)/(\d+) "
    r"\(pcap:(\d+)/dumpcap:(\d+)/flushed:(\d+)/ps_ifdrop:(\d+)\)"
)


def dumpcap_counters(text: str) -> Counters | None:
    """The report in what dumpcap printed at its end; None without one."""
    found = _DUMPCAP.findall(text)
    written = _number(text, r"Packets captured: (\d+)")
    if not found or written is None:
        return None
    received, _, pcap, own, flushed, ifdropped = map(int, found[-1])
    raw = {
        "dumpcap.received": received,
        "dumpcap.pcap": pcap,
        "dumpcap.dumpcap": own,
        "dumpcap.flushed": flushed,
        "dumpcap.ps_ifdrop": ifdropped,
        "dumpcap.captured": written,
    }
    return _counters(received + pcap, pcap, written, {k: float(v) for k, v in raw.items()})


class BareCapture:
    """`harness.sensors.base.Sensor` that only captures."""

    state = "restarted"

    def __init__(self, host: Host, spec: SensorSpec) -> None:
        self._options = read(CaptureOptions, spec.options)
        if spec.interface is None:
            raise ConfigError("inventory: sensor.interface is missing: a capture listens on one")
        self.name: str = self._options.program
        self.version = ""
        self.capabilities = Capabilities(
            kernel_drops=True,
            software_drops=True,
            per_worker=False,
            flows=False,
            alerts=False,
            exact_totals=True,
        )
        self.cpu_seconds: float | None = None
        self.rules_digest = ""
        self._host = host
        self._spec = spec
        self._interface = spec.interface
        self._process: Process | None = None
        self._said: list[str] = []
        self._live: Counters | None = None

    # -- before a trial ---------------------------------------------------------------------

    def check(self) -> None:
        """Program and interface. Raises SensorFailed."""
        host, name = self._host, self.name
        try:
            done = host.run([name, "--version"], check=False)
        except MissingTool:
            done = None
        if done is None or done.returncode in (126, 127):
            package = "tcpdump" if name == "tcpdump" else "wireshark-common"
            raise SensorFailed(f"{host.name}: {name} is not there; install {package}")
        said = done.stdout + done.stderr
        words = re.search(r"(?:version|Dumpcap \(Wireshark\)) v?(\d[\w.]*)", said)
        self.version = words[1] if words else "unknown"
        if host.run(["ip", "link", "show", "dev", self._interface], check=False).returncode != 0:
            raise SensorFailed(
                f"{host.name}: there is no interface {self._interface}; see sensor.interface in "
                "the inventory"
            )

    def _command(self) -> list[str]:
        options = self._options
        target = "/dev/null" if options.write == "discard" else options.write
        if self.name == "tcpdump":
            argv = ["tcpdump", "-i", self._interface, "-n", "-s", str(options.snaplen)]
            argv += ["-Z", "root", "-w", target]
        else:
            argv = ["dumpcap", "-i", self._interface, "-q", "-s", str(options.snaplen)]
            argv += ["-w", target]
        if options.buffer is not None:
            argv += ["-B", str(options.buffer)]
        if options.filter is not None:
            argv += [options.filter] if self.name == "tcpdump" else ["-f", options.filter]
        if self._spec.cpus:
            argv = ["taskset", "-c", self._spec.cpus, *argv]
        return argv

    def prepare(self) -> None:
        """A new capture, listening. Raises SensorFailed with what it said when it ends at once."""
        self.stop()
        self._said, self._live = [], None
        self._process = self._host.start(self._command(), max_seconds=_MAX_SECONDS, sudo=True)
        ready = "listening on" if self.name == "tcpdump" else "File: "
        end = time.monotonic() + 15.0
        while ready not in self._listen():
            if self._process.poll() is not None or time.monotonic() > end:
                last = self._listen().strip().splitlines()[-1:]
                raise SensorFailed(
                    f"{self._host.name}: {self.name} does not capture on {self._interface}: "
                    f"{last[0] if last else 'no word'}"
                )
            time.sleep(0.01)

    def _listen(self) -> str:
        """Everything it has said so far."""
        if self._process is not None:
            self._said += self._process.lines()
        return "\n".join(self._said)

    # -- while it runs ----------------------------------------------------------------------

    def footprint(self) -> Footprint:
        """The process, and where it writes."""
        pids = () if self._process is None else (self._process.pid,)
        write = self._options.write
        return Footprint(pids, None if write == "discard" else write.rpartition("/")[0] or None)

    def snapshot(self) -> Counters:
        """Nothing was sent yet: zero. Packets of others show as unexplained."""
        self._must_live("before the trial")
        return _counters(0, 0, 0, {})

    def _must_live(self, when: str) -> Process:
        process = self._process
        if process is None or process.poll() is not None:
            last = self._listen().strip().splitlines()[-1:]
            raise SensorFailed(
                f"{self._host.name}: {self.name} ended {when}: {last[0] if last else 'no word'}"
            )
        return process

    def live(self) -> Live:
        """Nothing: asking would cost what is measured."""
        self._must_live("during the trial")
        return Live(None, None, None)

    def _reading(self) -> tuple[float, int, int]:
        """(s, packets on the interface, clock ticks of CPU of the capture)."""
        process = self._must_live("while it settled")
        rx = f"/sys/class/net/{self._interface}/statistics/rx_packets"
        done = self._host.run(["cat", rx, f"/proc/{process.pid}/stat"], check=False, sudo=True)
        try:
            packets, stat = done.stdout.split("\n", 1)
            field = stat.rpartition(")")[2].split()
            return time.monotonic(), int(packets), int(field[11]) + int(field[12])
        except (ValueError, IndexError):
            return time.monotonic(), -1, -1

    def _asked(self) -> Counters | None:
        """tcpdump's report on SIGUSR1; dumpcap has none."""
        process = self._must_live("while it settled")
        if self.name != "tcpdump":
            return None
        before = len(self._listen())
        self._host.run(["kill", "-USR1", str(process.pid)], check=False, sudo=True)
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            if found := tcpdump_counters(self._listen()[before:]):
                return found
            time.sleep(0.02)
        return None

    def settle(self, timeout: float) -> bool:
        """Wait until the link is quiet, the capture idle, and its buffer read empty."""
        begun = time.monotonic()
        readings: list[tuple[float, int, int]] = []
        while True:
            now = self._reading()
            readings.append(now)
            earlier = next((r for r in reversed(readings) if now[0] - r[0] >= _QUIET_S), None)
            if earlier is not None:
                span = now[0] - earlier[0]
                quiet = now[1] - earlier[1] <= _QUIET_PPS * span
                idle = now[2] - earlier[2] <= 0.05 * 100 * span
                if quiet and idle and self._emptied():
                    return True
            if time.monotonic() - begun + _POLL_S > timeout:
                return False
            time.sleep(_POLL_S)

    def _emptied(self) -> bool:
        found = self._asked()
        if found is None:
            return True
        assert found.received is not None and found.dropped is not None
        left = found.received - found.dropped - (found.decoded or 0)
        return left <= _QUIET_PPS

    # -- after a trial ----------------------------------------------------------------------

    def finish(self) -> Counters:
        """End it and read its report. Raises SensorFailed when it had ended, or says nothing."""
        process = self._must_live("during the trial")
        exit_ = process.stop(_STOP_S)
        text = self._listen()
        self._process = None
        read_ = tcpdump_counters if self.name == "tcpdump" else dumpcap_counters
        found = read_(text[text.find("\n") :])
        if found is None or exit_.reason != "stopped":
            last = (text.strip().splitlines() or ["no word"])[-1]
            raise SensorFailed(
                f"{self._host.name}: {self.name} did not report what it took and lost: {last}"
            )
        return found

    def alerts(self) -> Iterator[Alert]:
        """None: it does not look."""
        return iter(())

    def collect(self, into: Path) -> None:
        """What it said."""
        into.mkdir(parents=True, exist_ok=True)
        (into / f"{self.name}.log").write_text(self._listen() + "\n")

    def stop(self) -> None:
        """End it; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.stop(2.0)
