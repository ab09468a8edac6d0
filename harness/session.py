"""A lab made ready for trials: connections, guards, corpus, reference, generator and sensor.

Everything that can be refused is refused here, before the first packet is sent.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import harness
from harness.balancing import Predict, predictor
from harness.corpus import CorpusFiles, read_corpus
from harness.errors import ConfigError
from harness.generators.registry import check_traffic, make_generator
from harness.host_sampler import SampledHost
from harness.lint.rules import rate_rules
from harness.model import Corpus, Reference
from harness.preflight import RunPreflight
from harness.profile import Profile
from harness.progress import Progress
from harness.reference import find_due, sends_reference
from harness.results import RunDir, RunInfo
from harness.sensors.base import Sensor
from harness.sensors.registry import make_sensor
from harness.trial import Port, Rig, stop_quietly
from lab.connect import connect_lab
from lab.facts import facts
from lab.guards import check_transmit, is_pci
from lab.host import Host
from lab.inventory import Inventory
from pcap_tools.plan import AddressPlan, invert_many

__all__ = ["Session", "open_session", "run_name"]


@dataclass(frozen=True, slots=True)
class Session:
    """An open lab with everything prepared; `rig` is what trials use."""

    rig: Rig
    corpus: Corpus
    plan: AddressPlan
    run: RunDir
    info: RunInfo
    inventory: Inventory
    first_iteration: int = 0  # earlier ones were sent for the reference


def run_name(profile: Profile, inventory: Inventory) -> str:
    """`<UTC time>-<profile>-<sensor>`, the name of a run's directory."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{stamp}-{profile.name}-{inventory.sensor.driver}"


@contextmanager
def open_session(
    profile: Profile,
    inventory: Inventory,
    files: CorpusFiles,
    run: RunDir,
    progress: Progress,
    command: tuple[str, ...] = (),
) -> Iterator[Session]:
    """Connect, check, ship, label; close everything at the end, whatever happened.

    A run directory that already has a `run.json` is continued: its key and loads are used again,
    and a different corpus, profile, sensor or rule set is refused. `command` is what repeats the
    run, for its report. Raises ConfigError, PcapError, GuardError, LabError, GeneratorFailed,
    SensorFailed.
    """
    earlier = run.info() if (run.path / "run.json").exists() else None
    key = profile.corpus.key or secrets.token_hex(16)
    if earlier is not None:
        key = earlier.seeds["permutation_key"]
    progress.say("corpus: dimensions of one iteration")
    home, max_gap = inventory.sensor.home, profile.corpus.max_gap
    corpus, plan = read_corpus(files.capture, home, key, max_gap)
    if earlier is not None:
        _same(earlier, profile, inventory, corpus, run.path)
    spec = profile.generator_in(inventory.generator)
    check_traffic(spec, corpus, profile.load.listed)
    with ExitStack() as stack:
        hosts = stack.enter_context(connect_lab(inventory))
        source, target = hosts[spec.host], hosts[inventory.sensor.host]
        for interface in spec.interfaces:
            check_transmit(source, inventory.hosts[spec.host], interface)
        listens = inventory.sensor.interface
        generator, sensor = (
            make_generator(source, spec),
            make_sensor(target, inventory.sensor),
        )
        stack.callback(stop_quietly, generator, sensor)
        if profile.load.axis not in generator.axes:
            raise ConfigError(
                f"profile {profile.name}: generator {generator.name} cannot set the axis "
                f"{profile.load.axis!r}; it can set {', '.join(generator.axes)}"
            )
        _must_tell_loss(profile, sensor)
        # Begun before anything of ours runs there, ended when the rest is ready: the link is
        # watched while nothing is sent.
        preflight = RunPreflight(inventory, hosts, profile, corpus, progress)
        progress.say("sensor: checking that it runs and that its rules load")
        sensor.check()
        progress.say("corpus: to the generator host, by digest")
        generator.prepare(corpus)
        named = f"{sensor.name} {sensor.version}".strip()
        sends = sends_reference(profile, inventory.sensor.driver, sensor, run.path)
        if sends:  # it is traffic: the link has to have been watched before
            run.path.mkdir(parents=True, exist_ok=True)
            preflight.finish(run.path)
        due = find_due(profile, inventory, files, corpus, plan, run.path, generator, sensor,
                       target, progress)  # fmt: skip
        reference, notes = due.reference, due.notes
        if earlier is not None:
            _same_reference(earlier, reference, named, run.path)
        for note in notes:
            progress.say(f"warning: {note}")
        info = earlier or RunInfo(
            profile=profile.model_dump(mode="json"),
            inventory=inventory.model_dump(mode="json"),
            corpus={**asdict(corpus), "path": files.capture.name, "clean": files.clean_report()},
            reference=asdict(reference),
            hosts={name: facts(host) for name, host in hosts.items()},
            tools={"probebench": harness.__version__, "python": platform.python_version()},
            seeds={"permutation_key": key},
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            sensor=named,
            notes=notes,
            extra={
                **({"command": list(command)} if command else {}),
                "reference": {"source": due.source, "iterations": due.iterations},
            },
        )
        run.write_info(info)
        if not sends:
            preflight.finish(run.path)
        plan.save(run.path / "plan.json")
        rig = Rig(
            generator=generator,
            sensor=sensor,
            transmit=tuple(Port(source, name) for name in spec.interfaces if not is_pci(name)),
            receive=None if listens is None else Port(target, listens),
            reference=reference,
            invert=lambda addresses: invert_many(plan, addresses),
            directory=run.path,
            progress=progress,
            settle_timeout=profile.settle_timeout,
            co_located=listens is not None and _boot_id(source) == _boot_id(target),
            predict=_predictor(sensor, files.capture, plan),
            max_frame=corpus.max_frame or None,
            limited=_limited(inventory, reference),
            watch=SampledHost(target, listens, run.path),
        )
        yield Session(rig, corpus, plan, run, info, inventory, due.iterations)


def _must_tell_loss(profile: Profile, sensor: Sensor) -> None:
    """Refuse to look for loads that nothing can tell. Raises ConfigError."""
    if profile.load.values == "auto" and sensor.capabilities.loss is None:
        raise ConfigError(
            f'profile {profile.name}: load.values = "auto" needs a loss rate, and sensor '
            f"{sensor.name} has no counter of packets received, dropped or decoded: give "
            "load.values in the profile, or such a counter in sensor.options.counters"
        )


def _predictor(sensor: Sensor, capture: Path, plan: AddressPlan) -> Predict | None:
    """The fanout hash's prediction, for a sensor whose packets that hash divides: for another
    balancer it would be a number about something else."""
    if getattr(sensor, "balancer", None) != "af_packet-hash":
        return None
    return predictor(capture, plan)


def _limited(inventory: Inventory, reference: Reference) -> tuple[int, ...]:
    """Signatures due whose rules count or limit (0: a line for all); of the rule files we know."""
    due = {0, *(event.signature_id for event in reference.due)}
    _, found = rate_rules(inventory.sensor.rules)
    return tuple(sorted({rule.signature for rule in found} & due))


def _boot_id(host: Host) -> str:
    """Two hosts of an inventory are one machine when their kernels were booted as one."""
    return host.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()


def _same(
    earlier: RunInfo, profile: Profile, inventory: Inventory, corpus: Corpus, where: Path
) -> None:
    """Refuse to mix what cannot be compared in one curve. Raises ConfigError.

    How hosts are reached may change; what they send and how the sensor is sized may not. Rules are
    compared by digest, later.
    """
    asked: dict[str, Any] = profile.model_dump(mode="json")
    was_asked = {"generator_options": {}, **earlier.profile}  # older runs have no such key
    if earlier.corpus.get("digest") != corpus.digest:
        raise ConfigError(
            f"{where}: was made with corpus {str(earlier.corpus.get('digest'))[:12]}…, this one is "
            f"{corpus.digest[:12]}…; resume with the same corpus or start a new run"
        )
    if was_asked != asked:
        keys = sorted(k for k in asked if was_asked.get(k) != asked[k])
        raise ConfigError(
            f"{where}: the profile has changed since ({', '.join(keys)}); resume with the same "
            "profile or start a new run"
        )
    lab = inventory.model_dump(mode="json")
    for role in ("generator", "sensor"):
        was, now = dict(earlier.inventory.get(role, {})), dict(lab[role])
        for spec in (was, now):
            spec.pop("rules", None)
        if was != now:
            keys = sorted(f"{role}.{k}" for k in {*was, *now} if was.get(k) != now.get(k))
            raise ConfigError(
                f"{where}: the inventory has changed since ({', '.join(keys)}); resume on the same "
                "lab or start a new run"
            )


def _same_reference(earlier: RunInfo, reference: Reference, sensor: str, where: Path) -> None:
    if earlier.sensor != sensor:
        raise ConfigError(
            f"{where}: was measured on {earlier.sensor}, this is {sensor}; start a new run"
        )
    if earlier.reference.get("rules_digest") != reference.rules_digest:
        raise ConfigError(
            f"{where}: the sensor's rules have changed since; resume with the same rules or start "
            "a new run"
        )
