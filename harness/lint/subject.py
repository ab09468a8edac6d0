"""What the checks look at: a capture read twice, the profile's loads, the sensor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness import planning
from harness.corpus import describe
from harness.errors import ConfigError
from harness.lint.sensor import SensorFacts
from harness.model import Corpus, Load, Schedule
from harness.profile import Profile, load_profile
from pcap_tools.capture import open_capture
from pcap_tools.errors import PcapError
from pcap_tools.flows import FlowTable
from pcap_tools.plan import AddressPlan
from pcap_tools.policy import Policy, judge
from pcap_tools.strategies import flow_groups, plan_of
from pcap_tools.survey import Survey, Surveyor
from pcap_tools.traits import read_traits

__all__ = ["Subject", "find_profile", "read_subject"]

Progress = Callable[[str, int, int], None]

_PROFILES = Path(__file__).resolve().parents[2] / "profiles"


@dataclass(frozen=True)
class Subject:
    """A capture to be judged for a profile and a sensor.

    `reasons` names, flow by flow, the cleaning rule that applies ("" for none). `rules` are the
    sensor's rule files and those given beside.
    """

    captures: tuple[str, ...]
    table: FlowTable
    survey: Survey
    encrypted: npt.NDArray[np.bool_]
    reasons: npt.NDArray[np.str_]
    profile: Profile
    sensor: SensorFacts
    rules: tuple[Path, ...]

    @cached_property
    def packets(self) -> npt.NDArray[np.int64]:
        """Packets of each flow, both directions."""
        return np.asarray(self.table.rows["packets"].sum(axis=1), np.int64)

    @cached_property
    def octets(self) -> npt.NDArray[np.int64]:
        """Bytes of each flow, both directions."""
        return np.asarray(self.table.rows["bytes"].sum(axis=1), np.int64)

    @property
    def assumed(self) -> bool:
        """Whether the profile leaves its loads to a calibration: its probe stands for them."""
        return self.profile.load.values == "auto"

    @cached_property
    def loads(self) -> tuple[Load, ...]:
        """The profile's loads; for "auto" only the probe, in packets/s, which no load exceeds by
        more than `highest`."""
        load = self.profile.load
        if load.values == "auto":
            return (Load("pps", load.auto.probe, load.duration),)
        return tuple(Load(load.axis, value, load.duration) for value in sorted(load.values))

    @cached_property
    def corpus(self) -> Corpus:
        """One iteration: the capture's dimensions, silences inside flows capped as asked.

        Where the capture cannot be expanded (several files, not Ethernet), the effect of capping is
        estimated from above, by the flows' packets: at most `max_gap` between two.
        """
        if self.profile.corpus.max_gap is not None and len(self.captures) == 1:
            path = Path(self.captures[0])
            with contextlib.suppress(PcapError, OSError):
                return describe(path, self.sensor.home, "lint", self.profile.corpus.max_gap)
        return self._estimated()

    def _estimated(self) -> Corpus:
        rows = self.table.rows
        seconds = (rows["last_ns"] - rows["first_ns"]) / 1e9
        span = (self.table.last_ns - self.table.first_ns) / 1e9
        gap = self.profile.corpus.max_gap
        if gap is not None and len(seconds):
            seconds = np.minimum(seconds, gap * (self.packets - 1))
            span = min(span, 2 * float(seconds.max()))
        return Corpus(
            path="",
            digest="",
            packets=self.table.packets,
            bytes=self.table.bytes,
            flows=len(self.table),
            span_s=span,
            home=self.sensor.home,
            key="",
            max_gap=gap,
            flow_seconds=float(seconds.sum()),
            max_frame=self.survey.largest,
        )

    def schedule(self, load: Load) -> Schedule | None:
        """What a load makes of the capture; None when it is less than one iteration."""
        try:
            return planning.plan(self.corpus, load, 0)
        except ConfigError:
            return None

    @cached_property
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules of the loads that are at least one iteration, lowest first."""
        return tuple(s for load in self.loads if (s := self.schedule(load)) is not None)

    @cached_property
    def plan(self) -> AddressPlan:
        """The addresses that iterations would get."""
        return plan_of(flow_groups(self.table), "lint", self.sensor.home)


def find_profile(text: str) -> Profile:
    """The profile at a path, or of this name among the ready ones. Raises ConfigError."""
    path = Path(text)
    if not path.suffix and not path.exists():
        path = _PROFILES / f"{text}.toml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in _PROFILES.glob("*.toml")))
            raise ConfigError(f"--for {text}: no such file or profile; ready profiles: {known}")
    return load_profile(path)


def read_subject(
    captures: Sequence[str],
    profile: Profile,
    sensor: SensorFacts,
    rules: Sequence[Path] = (),
    policy: Policy | None = None,
    progress: Progress | None = None,
) -> Subject:
    """Read a capture, twice. Raises CaptureError."""
    policy = policy or Policy()
    surveyor = Surveyor(sensor.mtu)
    with open_capture(captures) as capture:
        traits = read_traits(surveyor.watch(capture), policy.idle_s, progress)
    table = traits.table
    names, codes = judge(table, policy)
    return Subject(
        captures=tuple(captures),
        table=table,
        survey=surveyor.finish(),
        encrypted=traits.encrypted,
        reasons=np.array(names)[codes],
        profile=profile,
        sensor=sensor,
        rules=tuple(dict.fromkeys([*sensor.rules, *rules])),
    )
