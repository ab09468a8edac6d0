"""Suricata's configuration, from the inventory: file, rules, command line."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from harness.errors import ConfigError, SensorFailed
from harness.sensors.suricata_capture import capture_yaml
from harness.sensors.suricata_options import Options, read_options
from lab.host import Host
from lab.inventory import SensorSpec
from lab.shipping import ship_bytes

__all__ = [
    "Options",
    "Paths",
    "digest_of",
    "own_config_argv",
    "read_options",
    "render",
    "settings_argv",
    "ship",
    "ship_rules",
]

# A TPACKET_V3 block must hold a whole reassembled datagram (64 KiB and headers), or Suricata
# warns and truncates it; a ring of fewer than four such blocks would be no ring at all.
_LARGE_BLOCK = 131072
_SMALL_BLOCK = 32768
_PENDING = 1024  # upstream's max-pending-packets
_LEAST_PENDING = 32
_FRAME = 1600  # bytes of ring that Suricata reckons for a packet of a 1500-byte MTU


class _Yaml(Template):
    delimiter = "@"


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things are on the sensor host. `run` is emptied before each trial."""

    base: str

    @property
    def run(self) -> str:
        """Logs, pid file and socket of the running Suricata."""
        return f"{self.base}/run"

    @property
    def socket(self) -> str:
        """The unix command socket."""
        return f"{self.run}/command.sock"

    @property
    def pidfile(self) -> str:
        """Suricata's pid file."""
        return f"{self.run}/suricata.pid"

    def log(self, name: str) -> str:
        """A file of the log directory."""
        return f"{self.run}/{name}"

    def stored(self, name: str) -> str:
        """A shipped file, named by its digest."""
        return f"{self.base}/store/{name}"

    def check(self) -> None:
        """Raises ConfigError when the socket's path is longer than sockaddr_un allows (107)."""
        if len(self.socket.encode()) > 107:
            raise ConfigError(
                f"inventory: workdir of the sensor host: {self.socket} is too long for a unix "
                "socket (107 bytes); choose a shorter workdir"
            )


def digest_of(parts: Iterable[bytes]) -> str:
    """SHA-256 over several byte strings, each preceded by its length."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big"))
        total.update(part)
    return total.hexdigest()


def ship(host: Host, paths: Paths, data: bytes, suffix: str) -> str:
    """Put `data` on the host under its digest, unless it is there; returns the remote path."""
    return ship_bytes(host, paths.stored(""), data, suffix)


def ship_rules(host: Host, paths: Paths, rules: Sequence[Path]) -> tuple[tuple[str, ...], str]:
    """Put the rule files on the host; returns their remote paths and their common digest.

    Raises ConfigError when a file cannot be read or there is none.
    """
    if not rules:
        raise ConfigError(
            "inventory: sensor.rules: no rule file given; without rules nothing is due"
        )
    texts = []
    for path in rules:
        try:
            texts.append(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: cannot read the rules: {error.strerror}") from None
    return tuple(ship(host, paths, text, ".rules") for text in texts), digest_of(texts)


def _home(spec: SensorSpec) -> str:
    for cidr in spec.home:
        try:
            ipaddress.ip_network(cidr)
        except ValueError as error:
            raise ConfigError(f"inventory: sensor.home: {error}") from None
    return ",".join(spec.home)


def _side_file(host: Host, key: str, path: str) -> str:
    """`key: path` when the host has the file; classtypes and references of rules need it."""
    there = host.run(["test", "-r", path], check=False).returncode == 0
    return f"{key}: {path}" if there else f"# {path}: not on this host"


def render(
    host: Host, spec: SensorSpec, options: Options, paths: Paths, rules: Sequence[str], live: bool
) -> str:
    """Our suricata.yaml for `spec`; `live` says whether the command socket is opened."""
    threshold = ship(
        host, paths, b"# no thresholds: alert counts must not depend on load\n", ".threshold"
    )
    block = _LARGE_BLOCK if spec.ring_size * _FRAME >= 4 * _LARGE_BLOCK else _SMALL_BLOCK
    values = {
        "home": _home(spec),
        "log_dir": json.dumps(paths.run),
        "rules": ", ".join(json.dumps(r) for r in rules),
        "threshold": json.dumps(threshold),
        "classification": "\n".join(
            (
                _side_file(host, "classification-file", "/etc/suricata/classification.config"),
                _side_file(host, "reference-config-file", "/etc/suricata/reference.config"),
            )
        ),
        "stats_interval": str(options.stats_interval),
        "flow_events": "yes" if options.flow_events else "no",
        "socket_enabled": "yes" if live else "no",
        "socket": json.dumps(paths.socket),
        "interface": json.dumps(spec.interface),
        "workers": str(spec.workers if options.runmode == "workers" else options.receive_threads),
        # Unique per interface is what matters: a fanout group is per namespace and per id.
        "cluster_id": "97",
        "ring_size": str(spec.ring_size),
        "block_size": str(block),
        "runmode": options.runmode if live else "workers",
        "v3": "yes" if options.runmode == "workers" else "no",
        "eve_type": options.alerts_via if live and options.alerts_via != "file" else "regular",
        "eve_name": "alerts.json" if options.alerts_via == "file" or not live else "alerts.sock",
        "pending": str(max(_LEAST_PENDING, min(_PENDING, spec.ring_size))),
    }
    template = files("harness.sensors").joinpath("suricata.yaml").read_text()
    text = _Yaml(template).substitute(values)
    if live and (options.capture, options.runmode) != ("af-packet", "workers"):
        text += capture_yaml(spec, options, _processors(host))
    return text


def _processors(host: Host) -> int:
    """CPUs online, as Suricata counts them (whatever its affinity)."""
    said = host.run(["getconf", "_NPROCESSORS_ONLN"], check=False).stdout.strip()
    return int(said) if said.isdigit() and int(said) > 0 else 1


def settings_argv(options: Options) -> list[str]:
    """The user's `--set` overrides."""
    return [word for key, value in options.settings for word in ("--set", f"{key}={value}")]


def own_config_argv(
    host: Host,
    spec: SensorSpec,
    options: Options,
    paths: Paths,
    rules: Sequence[str],
    *,
    live: bool,
) -> list[str]:
    """Command line for a user's own suricata.yaml: ours is added to it, nothing is taken away."""
    if options.config is None:  # pragma: no cover - callers decide
        raise SensorFailed("no own configuration was given")
    where = options.config
    if host.run(["test", "-r", where], check=False).returncode != 0:
        raise ConfigError(
            f"inventory: sensor.options.config: {where} is not readable on {host.name}"
        )
    added = {
        "vars.address-groups.HOME_NET": f"[{_home(spec)}]",
        "stats.enabled": "yes",
        "stats.interval": str(options.stats_interval),
        "unix-command.enabled": "yes" if live else "no",
        "unix-command.filename": paths.socket,
    }
    # Appended output instances: a sequence node is addressed by its number, its value names the
    # output. Numbers far beyond those of any real file.
    for number, name, kind in ((9001, "alerts.json", "alert"), (9002, "stats.json", "stats")):
        node = f"outputs.{number}"
        added[node] = "eve-log"
        added[f"{node}.eve-log.enabled"] = "yes"
        socket = live and kind == "alert" and options.alerts_via != "file"
        added[f"{node}.eve-log.filetype"] = options.alerts_via if socket else "regular"
        added[f"{node}.eve-log.filename"] = "alerts.sock" if socket else name
        added[f"{node}.eve-log.types.0"] = kind
        if kind == "stats":
            added[f"{node}.eve-log.types.0.stats.threads"] = "yes"
    argv = ["-c", where]
    for key, value in added.items():
        argv += ["--set", f"{key}={value}"]
    for rule in rules:
        argv += ["-S", rule]
    return argv
