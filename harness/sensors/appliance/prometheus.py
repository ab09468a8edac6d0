"""Counters from a Prometheus endpoint, in its text exposition format or OpenMetrics."""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field

from harness.errors import ConfigError, SensorFailed
from harness.sensors.appliance.options import ApplianceOptions, CounterSpec, read
from harness.sensors.appliance.readings import Reading, reading
from harness.sensors.appliance.sensor import ApplianceSensor
from harness.sensors.appliance.web import Answer, Web, WebOptions, check_url
from lab.host import Host
from lab.inventory import SensorSpec

__all__ = ["PrometheusOptions", "PrometheusSource", "make_prometheus"]

_START = "process_start_time_seconds"
_ACCEPT = "application/openmetrics-text;q=0.9,text/plain;version=0.0.4;q=0.8,*/*;q=0.1"


class MetricCounter(CounterSpec):
    """A metric, and the labels its samples must have; all samples that have them are summed."""

    metric: str = Field(min_length=1)
    labels: dict[str, str] = Field(default_factory=dict)

    def takes(self, sample: Any) -> bool:
        """True for a sample of this metric; a counter's `_total` may be left out."""
        if sample.name not in (self.metric, f"{self.metric}_total"):
            return False
        return all(sample.labels.get(key) == value for key, value in self.labels.items())

    @property
    def words(self) -> str:
        """The selector as Prometheus writes it."""
        return self.metric + "{" + ",".join(f'{k}="{v}"' for k, v in self.labels.items()) + "}"


class PrometheusOptions(ApplianceOptions[MetricCounter], WebOptions):
    """`url` is the endpoint (…/metrics). Without `uptime`, process_start_time_seconds tells a
    restart where the sensor has it."""

    url: str = Field(min_length=1)


def parse(answer: Answer, where: str) -> list[Any]:
    """All samples. Raises SensorFailed for what is no exposition, ConfigError without a parser."""
    try:
        from prometheus_client.openmetrics import parser as openmetrics
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        raise ConfigError(
            'inventory: sensor.driver = "prometheus" needs the package prometheus-client: '
            "pip install 'probebench[prometheus]'"
        ) from None
    is_open = answer.content_type.startswith("application/openmetrics-text")
    of = openmetrics.text_string_to_metric_families if is_open else text_string_to_metric_families
    try:
        return [sample for family in of(answer.text) for sample in family.samples]
    except (ValueError, KeyError, IndexError) as error:
        raise SensorFailed(f"{where}: not Prometheus's text format: {error}") from None


class PrometheusSource:
    """`harness.sensors.appliance.source.Source` by scraping, from the orchestrator."""

    def __init__(self, options: PrometheusOptions) -> None:
        self._options = options
        self.where = check_url(options.url, "url")
        self._web = Web(options)
        self._counters = options.everything()

    def describe(self) -> str:
        """The labels of a metric `…_build_info` or `…_info`, where there is a version in one."""
        for sample in parse(self._web.get(self.where, _ACCEPT), self.where):
            if not sample.name.endswith("_info") or sample.name.startswith(("go_", "python_")):
                continue
            if "version" in sample.labels:
                return str(sample.labels["version"])
        return ""

    def read(self) -> Reading:
        """One scrape for all counters."""
        begun = time.monotonic()
        samples = parse(self._web.get(self.where, _ACCEPT), self.where)
        values = {name: self._find(samples, name, spec) for name, spec in self._counters.items()}
        if "uptime" not in values:
            # Started later is up for less; only the order matters.
            started = [s.value for s in samples if s.name == _START]
            values["uptime"] = {"start": -started[0]} if started else {}
        bits = {name: spec.bits for name, spec in self._counters.items()}
        return reading(values, bits, begun)

    def _find(self, samples: list[Any], name: str, spec: MetricCounter) -> dict[str, float]:
        found = {
            ",".join(f"{k}={v}" for k, v in sorted(s.labels.items())) or s.name: float(s.value)
            for s in samples
            if spec.takes(s)
        }
        if not found and spec.absent == "error":
            raise SensorFailed(
                f"{self.where}: counter {name}: there is no {spec.words}; correct it, or set "
                'absent = "zero" for one that appears with its first event'
            )
        return found

    def close(self) -> None:
        """Nothing stays open."""


def make_prometheus(host: Host, spec: SensorSpec) -> ApplianceSensor:
    """The `prometheus` driver."""
    options = read(PrometheusOptions, spec.options)
    return ApplianceSensor("prometheus", host, options, PrometheusSource(options))
