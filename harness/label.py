"""The zero-load reference: which (flow, signature) of a corpus are due.

Suricata reads the cleaned corpus offline, with the rules, HOME_NET and configuration of the live
sensor and one thread, so that nothing depends on load or timing. Checksums are not judged there,
since `corpus expand` puts right those that were wrong before anything is sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, SensorFailed
from harness.events import canonical_address, event_key
from harness.model import DueEvent, Reference
from harness.sensors.eve import read_alerts
from harness.sensors.suricata_config import (
    Options,
    Paths,
    own_config_argv,
    read_options,
    render,
    settings_argv,
    ship,
    ship_rules,
)
from harness.sensors.suricata_counters import last_record, to_counters
from harness.sensors.suricata_host import first_error, last_log_line, read_version
from lab.host import Host
from lab.inventory import SensorSpec
from lab.shipping import ship_file
from pcap_tools.capture import open_capture

__all__ = [
    "SCHEMA",
    "LoadDependent",
    "file_digest",
    "label",
    "load",
    "load_dependent",
    "save",
]

SCHEMA = 1

_TIMEOUT_S = 3600.0
_RULE_LIMIT = re.compile(r'[;(]\s*(threshold|detection_filter)\s*:\s*([^;"]*);')
_RULE_SID = re.compile(r"[;(]\s*sid\s*:\s*(\d+)\s*;")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True, slots=True)
class LoadDependent:
    """A rule whose number of alerts depends on load: file, line, and what does it."""

    path: Path
    line: int
    signature_id: int
    keyword: str

    def __str__(self) -> str:
        return (
            f"{self.path}:{self.line}: sid {self.signature_id} has {self.keyword}: how often it "
            "alerts depends on load; remove that option for a benchmark"
        )


def load_dependent(rules: Iterable[Path]) -> tuple[LoadDependent, ...]:
    """Rules with `threshold` or `detection_filter`. Raises ConfigError for an unreadable file."""
    found: list[LoadDependent] = []
    for path in rules:
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError as error:
            raise ConfigError(f"{path}: cannot read the rules: {error.strerror}") from None
        for number, line in enumerate(lines, 1):
            text = _QUOTED.sub('""', line.strip())
            if text.startswith("#"):
                continue
            limit, sid = _RULE_LIMIT.search(text), _RULE_SID.search(text)
            if limit is not None:
                found.append(LoadDependent(path, number, int(sid[1]) if sid else 0, limit[1]))
    return tuple(found)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _count_packets(capture: Path) -> int:
    with open_capture(capture) as source:
        return sum(len(batch) for batch in source.batches())


def _arguments(
    host: Host, spec: SensorSpec, options: Options, paths: Paths, rules: Sequence[str]
) -> list[str]:
    if options.config is not None:
        argv = own_config_argv(host, spec, options, paths, rules, live=False)
    else:
        text = render(host, spec, options, paths, rules, live=False)
        argv = ["-c", ship(host, paths, text.encode(), ".yaml")]
    return argv + settings_argv(options)


def label(
    host: Host, spec: SensorSpec, capture: Path, *, home: Sequence[str] | None = None
) -> Reference:
    """Run Suricata offline on `host` over `capture` and return what is due.

    `home` replaces `spec.home`. Raises ConfigError, SensorFailed (also when Suricata did not
    decode every packet: then the reference would be short), CaptureError.
    """
    if home is not None:
        spec = spec.model_copy(update={"home": tuple(home)})
    packets = _count_packets(capture)
    digest = file_digest(capture)
    version = read_version(host, spec)
    options = read_options(spec.options)
    paths = Paths(f"{host.workdir}/reference")
    rules, rules_digest = ship_rules(host, paths, spec.rules)
    argv = [spec.binary, *_arguments(host, spec, options, paths, rules)]
    argv += [
        "-r",
        ship_file(host, capture, paths.stored(f"{digest[:32]}.pcap"), digest),
        "-l",
        paths.run,
    ]
    argv += ["--runmode", "single", "-k", "none"]
    host.run(["rm", "-rf", paths.run], sudo=True)
    host.run(["mkdir", "-p", paths.run])
    try:
        done = host.run(argv, check=False, timeout=_TIMEOUT_S, sudo=True)
        if done.returncode != 0:
            raise SensorFailed(
                f"{host.name}: suricata -r {capture.name} ended with status {done.returncode}: "
                f"{first_error(done.stderr) or _log_tail(host, paths)}"
            )
        stats = _must_have_decoded(host, paths, capture, packets)
        _must_have_rules(stats, spec.rules, done.stderr)
        raised, due, signatures = _read_due(host, paths)
    finally:
        host.run(["rm", "-rf", paths.run], check=False, sudo=True)
    return Reference(
        corpus_digest=digest,
        rules_digest=rules_digest,
        sensor=f"suricata {version}",
        raised=raised,
        due=tuple(sorted(due)),
        signatures=dict(sorted(signatures.items())),
        flows=to_counters(stats, exact=True).flows,
    )


def _log_tail(host: Host, paths: Paths) -> str:
    done = host.run(["tail", "-c", "4096", paths.log("suricata.log")], check=False, sudo=True)
    return last_log_line(done.stdout)


def _must_have_decoded(host: Host, paths: Paths, capture: Path, packets: int) -> dict[str, Any]:
    tail = host.run(["tail", "-c", str(4 << 20), paths.log("stats.json")], check=False, sudo=True)
    stats = last_record(tail.stdout)
    decoded = -1 if stats is None else int(stats.get("decoder", {}).get("pkts", 0))
    if decoded != packets:
        what = "left no statistics" if stats is None else f"decoded {decoded} of {packets} packets"
        raise SensorFailed(
            f"{host.name}: suricata {what} of {capture.name}: the reference would be short; "
            f"last log line: {_log_tail(host, paths)}"
        )
    assert stats is not None
    return stats


def _must_have_rules(stats: dict[str, Any], rules: Sequence[Path], errors: str) -> None:
    engines = stats.get("detect", {}).get("engines", [])
    if rules and engines and not sum(engine.get("rules_loaded", 0) for engine in engines):
        names = ", ".join(str(path) for path in rules)
        raise ConfigError(
            f"{names}: Suricata accepted no rule of it: {first_error(errors) or 'no rule in it'}; "
            f"see suricata -T -S {rules[0]}"
        )


def _read_due(host: Host, paths: Paths) -> tuple[int, set[DueEvent], dict[int, str]]:
    raised = 0
    due: set[DueEvent] = set()
    signatures: dict[int, str] = {}
    with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
        local = Path(scratch) / "alerts.json"
        host.get(paths.log("alerts.json"), local)
        for alert in read_alerts(local):
            raised += 1
            signatures[alert.signature_id] = alert.signature
            due.add(
                DueEvent(
                    *event_key(
                        alert.proto,
                        canonical_address(alert.src),
                        alert.src_port,
                        canonical_address(alert.dst),
                        alert.dst_port,
                        alert.signature_id,
                    )
                )
            )
    return raised, due, signatures


def save(reference: Reference, path: Path) -> None:
    """Write `reference.json`, under a temporary name first."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("w") as out:
            json.dump({"schema": SCHEMA, **asdict(reference)}, out, indent=1)
            out.write("\n")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(f"{path}: cannot write the reference: {error.strerror}") from None


def load(path: Path) -> Reference:
    """Read a `reference.json`. Raises ConfigError naming file and what is wrong."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable reference: {error}") from None
    found = data.get("schema") if isinstance(data, dict) else None
    if found != SCHEMA:
        raise ConfigError(
            f"{path}: reference schema {found!r}, this version reads {SCHEMA}; make it again with "
            "`probebench corpus label`"
        )
    try:
        values = {f.name: data[f.name] for f in fields(Reference) if f.name != "flows"}
        values["flows"] = data.get("flows")
        values["due"] = tuple(DueEvent(**due) for due in values["due"])
        values["signatures"] = {int(k): v for k, v in values["signatures"].items()}
        return Reference(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: damaged reference ({error!r}); make it again") from None
