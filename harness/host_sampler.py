"""The `HostWatch` that runs: one sampler a trial on the sensor's host.

A trial never fails because of it: what goes wrong becomes `HostTrial.failure`, and the trial goes
on without readings. Samples are written to the run's `host.jsonl` while they come.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from harness.host_peaks import peaks
from harness.host_samples import FILE, SampleWriter, to_reading
from harness.model_host import HostReading, HostTrial
from harness.sensors.base import Footprint
from lab.errors import LabError
from lab.host import Host
from lab.sampler import Raw, Sampler, Subject

__all__ = ["SampledHost"]

# How often samples are fetched from the connection's buffer; nothing depends on it.
_FETCH_S = 2.0


class SampledHost:
    """`harness.hostwatch.HostWatch` by `lab.sampler`; `interval` is in seconds, at most 2."""

    def __init__(
        self, host: Host, interface: str | None, directory: Path, interval: float = 1.0
    ) -> None:
        self._host = host
        self._interface = interface
        self._directory = directory
        self._interval = interval
        self._sampler: Sampler | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._writer: SampleWriter | None = None
        self._readings: list[HostReading] = []
        self._failure: str | None = None

    def begin(self, footprint: Footprint, trial: str) -> None:
        """Start the sampler and wait for its first reading."""
        self.close()
        self._readings, self._failure = [], None
        if self._interface is None and not footprint.pids:
            # Figures of a machine that is not the probe would look like the probe's.
            self._failure = (
                f"{self._host.name}: neither an interface nor a process of the sensor is known "
                "here, so its host is not observable"
            )
            return
        subject = Subject(self._interface, footprint.pids, footprint.logs, self._interval)
        try:
            self._writer = SampleWriter(self._directory, trial)
            self._sampler = Sampler(self._host, subject)
            self._sampler.first()
        except (LabError, OSError, ValueError) as error:
            self._failure = str(error)
            self.close()
            return
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._fetch, name="sampler", daemon=True)
        self._thread.start()

    def end(self) -> HostTrial:
        """The last reading, and what lies between it and the first."""
        sampler = self._sampler
        self._join()
        if sampler is not None:
            self._sampler = None
            try:
                self._keep(sampler.take())  # apart from `stop`, which may fail
                self._keep(sampler.stop())
            except (LabError, ValueError) as error:
                self._failure = self._failure or str(error)
        self.close()
        return self._trial()

    def close(self) -> None:
        """End the sampler, whatever it has read; idempotent, raises nothing."""
        self._join()
        sampler, self._sampler = self._sampler, None
        if sampler is not None:
            with suppress(LabError):
                sampler.discard()
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                writer.close()

    def _trial(self) -> HostTrial:
        readings = self._readings
        whole = self._failure is None and len(readings) > 1
        before = readings[0] if readings else None
        after = readings[-1] if whole else None
        return HostTrial(
            before=before,
            after=after,
            samples=len(readings),
            interval_s=self._interval,
            peaks=peaks(readings),
            sampler_cpu_s=None
            if before is None or after is None
            else round(after.cost - before.cost, 6),
            failure=self._failure,
        )

    def _join(self) -> None:
        thread, self._thread = self._thread, None
        self._ending.set()
        if thread is not None:
            thread.join()

    def _fetch(self) -> None:
        while not self._ending.wait(_FETCH_S):
            assert self._sampler is not None  # `_join` comes before it is let go
            try:
                self._keep(self._sampler.take())
            except ValueError as error:
                self._failure = f"{self._host.name}: the sampler's words make no sense: {error}"
                return

    def _keep(self, raws: list[Raw]) -> None:
        for raw in raws:
            self._readings.append(to_reading(raw))
            if self._writer is None:
                continue
            try:
                self._writer.write(raw)
            except OSError as error:
                self._writer = None
                self._failure = (
                    f"{self._directory / FILE}: {error.strerror}; samples are missing there"
                )
