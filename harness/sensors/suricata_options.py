"""`[sensor.options]` of a Suricata: read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from harness.errors import ConfigError

__all__ = ["AlertsVia", "Capture", "Control", "Options", "RunMode", "read_options"]

Capture = Literal["af-packet", "pcap", "dpdk", "af-xdp", "netmap"]
Control = Literal["own", "systemd", "observed"]
RunMode = Literal["workers", "autofp"]
AlertsVia = Literal["file", "unix_dgram", "unix_stream"]

_KNOWN = (
    "alerts-via",
    "capture",
    "config",
    "control",
    "device",
    "eal.<parameter>",
    "eve",
    "flow-events",
    "log",
    "ready-timeout",
    "receive-threads",
    "runmode",
    "sample-interval",
    "set.<key>",
    "socket",
    "stats-interval",
    "unit",
)
SOCKET = "/run/suricata/suricata-command.socket"  # as distributions configure it
_PREFIXES = ("set.", "eal.")


@dataclass(frozen=True, slots=True)
class Options:
    """`[sensor.options]` of a Suricata.

    `config` is an own suricata.yaml on the sensor host (its outputs and capture settings are kept;
    alerts, statistics and the command socket are added). `settings` are `--set` overrides.
    `flow_events` writes flow records too. Times are in seconds.

    `capture` is how packets reach it; `device` is the name that capture method knows the interface
    by where that is not `sensor.interface` (DPDK: a PCI address or a virtual device), `eal` are
    DPDK's EAL parameters. `runmode` "autofp" has `receive_threads` that capture and decode, and
    `sensor.workers` that do the rest.

    `control` says whose process it is: "own" (ours), "systemd" (`unit`, restarted for each trial)
    or "observed" (running already, only read). The latter two need its command `socket` and its
    `eve` output on the host: a file, or a name with strftime's fields where it rotates by time;
    `log` is its suricata.log where there is one. `alerts_via` says how eve is delivered: as files,
    or to a unix socket, on which the harness then listens.
    """

    config: str | None = None
    settings: tuple[tuple[str, str], ...] = ()
    flow_events: bool = False
    ready_timeout: float = 60.0
    sample_interval: float = 0.25
    stats_interval: int = 1
    capture: Capture = "af-packet"
    runmode: RunMode = "workers"
    receive_threads: int = 1
    device: str | None = None
    eal: tuple[tuple[str, str], ...] = ()
    control: Control = "own"
    unit: str | None = None
    socket: str = SOCKET
    eve: str | None = None
    log: str | None = None
    alerts_via: AlertsVia = "file"


class _Reader:
    """Typed access to a table of options; every complaint names the key."""

    def __init__(self, values: Mapping[str, str | int | float | bool]) -> None:
        self.values = values

    def fail(self, key: str, want: str) -> ConfigError:
        value = self.values.get(key)
        return ConfigError(f"inventory: sensor.options.{key} = {value!r}: give {want}")

    def number(self, key: str, default: float, low: float) -> float:
        value = self.values.get(key, default)
        if isinstance(value, (bool, str)) or value < low:
            raise self.fail(key, f"a number >= {low:g}")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return value

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is not None and (not isinstance(value, str) or not value):
            raise self.fail(key, "a text")
        return value

    def path(self, key: str) -> str | None:
        value = self.text(key)
        if value is not None and not value.startswith("/"):
            raise self.fail(key, "an absolute path on the sensor")
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.values.get(key, choices[0])
        if value not in choices:
            raise self.fail(key, f"one of {', '.join(choices)}")
        return str(value)


def read_options(values: Mapping[str, str | int | float | bool]) -> Options:
    """Check `[sensor.options]`. Raises ConfigError naming the key."""
    free: dict[str, list[tuple[str, str]]] = {prefix: [] for prefix in _PREFIXES}
    plain: dict[str, str | int | float | bool] = {}
    for key, value in values.items():
        prefix = key[:4]
        if prefix in free and len(key) > len(prefix):
            text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
            free[prefix].append((key[len(prefix) :], text))
        elif key in _KNOWN:
            plain[key] = value
        else:
            raise ConfigError(
                f"inventory: sensor.options.{key}: unknown option; known: {', '.join(_KNOWN)}"
            )
    read = _Reader(plain)
    options = Options(
        config=read.path("config"),
        settings=tuple(free["set."]),
        flow_events=read.flag("flow-events"),
        ready_timeout=read.number("ready-timeout", 60.0, 0.1),
        sample_interval=read.number("sample-interval", 0.25, 0.05),
        stats_interval=int(read.number("stats-interval", 1, 1)),
        capture=read.choice("capture", get_args(Capture)),  # type: ignore[arg-type]
        runmode=read.choice("runmode", get_args(RunMode)),  # type: ignore[arg-type]
        receive_threads=int(read.number("receive-threads", 1, 1)),
        device=read.text("device"),
        eal=tuple(free["eal."]),
        control=read.choice("control", get_args(Control)),  # type: ignore[arg-type]
        unit=read.text("unit"),
        socket=read.path("socket") or SOCKET,
        eve=read.path("eve"),
        log=read.path("log"),
        alerts_via=read.choice("alerts-via", get_args(AlertsVia)),  # type: ignore[arg-type]
    )
    _must_fit(options)
    return options


def _must_fit(options: Options) -> None:
    """Refuse combinations that would measure something else."""
    where = "inventory: sensor.options"
    if options.control != "own" and options.eve is None:
        raise ConfigError(
            f"{where}.eve is missing: with control = {options.control!r} say where its eve output "
            "with alerts and stats is, such as /var/log/suricata/eve.json"
        )
    if options.control == "systemd" and options.unit is None:
        raise ConfigError(f"{where}.unit is missing: which unit to restart, suricata.service?")
    if options.control != "own" and options.alerts_via != "file":
        raise ConfigError(
            f"{where}.alerts-via = {options.alerts_via!r} needs control = 'own': a Suricata that "
            "is not ours to start cannot be made to write to a socket of ours; give its eve file"
        )
    if options.capture == "dpdk":
        if options.device is None:
            raise ConfigError(
                f"{where}.device is missing: DPDK captures on a PCI address (0000:3b:00.0) or a "
                "virtual device, not on a kernel interface"
            )
        if options.runmode == "autofp":
            raise ConfigError(f"{where}.runmode = 'autofp': DPDK has only workers")
    if options.capture in ("af-xdp", "netmap") and options.runmode == "autofp":
        raise ConfigError(
            f"{where}.runmode = 'autofp' is not supported here with capture = "
            f"{options.capture!r}; use workers"
        )
