"""Counters from a sensor's HTTP interface that answers in JSON (or in a text)."""

from __future__ import annotations

import time

from pydantic import Field

from harness.sensors.appliance.extract import Document, TextCounter
from harness.sensors.appliance.options import ApplianceOptions, read
from harness.sensors.appliance.readings import Reading, reading
from harness.sensors.appliance.sensor import ApplianceSensor
from harness.sensors.appliance.web import Web, WebOptions, check_url
from lab.host import Host
from lab.inventory import SensorSpec

__all__ = ["RestOptions", "RestSource", "make_rest"]


class RestCounter(TextCounter):
    """`url` where the counter is at another address than the rest."""

    url: str | None = None


class RestOptions(ApplianceOptions[RestCounter], WebOptions):
    """`url` gives the counters; `version_url` and `version_path` (JSON) what the sensor is."""

    url: str = Field(min_length=1)
    version_url: str | None = None
    version_path: str | None = None


class RestSource:
    """`harness.sensors.appliance.source.Source` by HTTP GET, from the orchestrator."""

    def __init__(self, options: RestOptions) -> None:
        self._options = options
        self.where = check_url(options.url, "url")
        self._web = Web(options)
        self._counters = options.everything()
        for name, spec in self._counters.items():
            if spec.url is not None:
                check_url(spec.url, f"counters.{name}.url")

    def describe(self) -> str:
        """What `version_path` says."""
        options = self._options
        if options.version_path is None:
            return ""
        url = check_url(options.version_url or options.url, "version_url")
        return Document(self._web.get(url, "application/json").text, url).text_at(
            options.version_path
        )

    def read(self) -> Reading:
        """Each address is asked once."""
        begun = time.monotonic()
        answers: dict[str, Document] = {}

        def answer(spec: RestCounter) -> Document:
            url = spec.url or self._options.url
            if url not in answers:
                answers[url] = Document(self._web.get(url, "application/json").text, url)
            return answers[url]

        values = {name: answer(spec).find(name, spec) for name, spec in self._counters.items()}
        bits = {name: spec.bits for name, spec in self._counters.items()}
        return reading(values, bits, begun)

    def close(self) -> None:
        """Nothing stays open."""


def make_rest(host: Host, spec: SensorSpec) -> ApplianceSensor:
    """The `rest` driver."""
    options = read(RestOptions, spec.options)
    return ApplianceSensor("rest", host, options, RestSource(options))
