"""A Zeek cluster that zeekctl runs: read by `zeekctl netstats`, notices out of the current log.

Not run live here, see `zeek`. netstats asks each worker (zeekctl.py: `worker_group`; the only node
of a standalone Zeek) for its counters at once; they are cumulative: recvd (processed), dropped, and
link (drops included: tp_packets of AF_PACKET, ps_recv of libpcap on Linux). Some packet sources do
not know link and say 0 for ever (zeek, scripts/base/init-bare.zeek, NetStats): then it is recvd +
dropped. The cluster is only read; `restart` (["/opt/zeek/bin/zeekctl", "restart"]) brings it to a
known state before each trial.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from harness.errors import SensorFailed
from harness.model import Alert, Capabilities, Counters
from harness.sensors.appliance.options import Strict
from harness.sensors.appliance.options import read as read_options
from harness.sensors.appliance.readings import Reading
from harness.sensors.appliance.sensor import ApplianceSensor
from harness.sensors.zeek_logs import notices, records
from lab.errors import MissingTool
from lab.host import Host
from lab.inventory import SensorSpec

__all__ = ["ClusterOptions", "NetstatsSource", "ZeekCluster", "make_zeek_cluster"]

# "   worker-1: 1361132271.857447 recvd=123 dropped=4 link=127": a node's name is put in front by
# zeekctl (bin/zeekctl.in, do_netstats), the rest is Zeek's (scripts/policy/frameworks/control/
# controllee.zeek, net_stats_request); testing/Baseline/command.netstats/all.out of zeekctl has it.
# A node that does not answer is on standard error, "   worker-2: <error: …>", and the status is 1.
_LINE = re.compile(r"^\s*(\S+?):\s+[\d.]+\s+recvd=(\d+)\s+dropped=(\d+)\s+link=(\d+)", re.M)


class ClusterOptions(Strict):
    """`zeekctl` and `notice` are paths on `sensor.host`. Times are in s."""

    zeekctl: str = "/opt/zeek/bin/zeekctl"
    notice: str = "/opt/zeek/logs/current/notice.log"
    restart: tuple[str, ...] = ()
    refresh: float = 2.0
    ready_timeout: float = 120.0
    timeout: float = 60.0


class NetstatsSource:
    """`harness.sensors.appliance.source.Source` by `zeekctl netstats`."""

    def __init__(self, host: Host, options: ClusterOptions) -> None:
        self._host = host
        self._options = options
        self.where = f"{host.name}: zeekctl"

    def _run(self, *words: str) -> str:
        argv = [self._options.zeekctl, *words]
        try:
            done = self._host.run(argv, check=False, timeout=self._options.timeout, sudo=True)
        except MissingTool:
            raise SensorFailed(
                f"{self._host.name}: {argv[0]} is not there; see sensor.options.zeekctl"
            ) from None
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
            raise SensorFailed(f"{self.where} {words[0]}: {said[0][:200]}")
        return done.stdout

    def describe(self) -> str:
        """The version of zeekctl (it is released with Zeek)."""
        found = re.search(r"\d+\.\d+(\.\d+)?\S*", self._run("--version"))
        return f"cluster (zeekctl {found[0]})" if found else "cluster"

    def read(self) -> Reading:
        """Counters of every worker now."""
        begun = time.monotonic()
        text = self._run("netstats")
        rows = _LINE.findall(text)
        if not rows:
            last = text.strip().splitlines()[-1:] or ["no answer"]
            raise SensorFailed(
                f"{self.where} netstats names no worker ({last[0][:120]}); is the cluster running? "
                "see zeekctl status"
            )
        values: dict[str, dict[str, float]] = {
            "received": {
                name: int(link) or int(received) + int(dropped)
                for name, received, dropped, link in rows
            },
            "dropped": {name: int(dropped) for name, _, dropped, _ in rows},
            "decoded": {name: int(received) for name, received, _, _ in rows},
            "workers": {name: int(received) for name, received, _, _ in rows},
        }
        return Reading(values, seconds=time.monotonic() - begun)

    def close(self) -> None:
        """Nothing stays open."""


class ZeekCluster(ApplianceSensor):
    """The cluster's counters, and notices that its log gained since `prepare`."""

    def __init__(self, host: Host, options: ClusterOptions) -> None:
        from harness.sensors.appliance.command import CommandOptions

        shared = read_options(
            CommandOptions,
            {
                "command": [options.zeekctl],
                "received_includes_drops": True,
                "counters": {name: {"regex": name} for name in ("received", "dropped", "decoded")},
                "restart": list(options.restart),
                "refresh": options.refresh,
                "ready_timeout": options.ready_timeout,
                "live_interval": 0,
            },
        )
        super().__init__("zeek", host, shared, NetstatsSource(host, options))
        self.capabilities = Capabilities(
            kernel_drops=True,
            software_drops=True,
            per_worker=True,
            flows=False,
            alerts=True,
            exact_totals=False,
        )
        self._notice = options.notice
        self._mark: tuple[str, int] = ("", 0)
        self._gained: list[Alert] = []

    def _where(self) -> tuple[str, int]:
        """(inode, size) of the notice log; the cluster makes it with its first notice."""
        done = self._host.run(["stat", "-L", "-c", "%i %s", self._notice], check=False, sudo=True)
        words = done.stdout.split()
        return (words[0], int(words[1])) if done.returncode == 0 and len(words) == 2 else ("", 0)

    def prepare(self) -> None:
        """See `ApplianceSensor`; the log's end is remembered."""
        super().prepare()
        self._gained = []
        self._mark = self._where()

    def finish(self) -> Counters:
        """Last counters; notices since `prepare`. Raises SensorFailed when the log was rotated."""
        counters = super().finish()
        inode, start = self._mark
        now, size = self._where()
        if (inode and now != inode) or size < start:
            raise SensorFailed(
                f"{self._host.name}: {self._notice} was rotated in mid-trial, so notices are "
                "missing; set Log::default_rotation_interval = 0secs in local.zeek"
            )
        if now:
            text = self._tail(start)
            head = self._head()
            self._gained = list(notices(records([*head, *text], self._notice)))
        return counters

    def _head(self) -> list[str]:
        """The header of a TSV log; none of a JSON log."""
        done = self._host.run(["head", "-n", "12", self._notice], check=False, sudo=True)
        return [line for line in done.stdout.splitlines() if line.startswith("#")]

    def _tail(self, start: int) -> list[str]:
        argv = ["tail", "-c", f"+{start + 1}", self._notice]
        done = self._host.run(argv, timeout=600, sudo=True)
        return [line for line in done.stdout.splitlines() if not line.startswith("#")]

    def alerts(self) -> Iterator[Alert]:
        """Notices between `prepare` and `finish`."""
        yield from self._gained


def make_zeek_cluster(host: Host, spec: SensorSpec) -> ZeekCluster:
    """The `zeek-cluster` driver."""
    return ZeekCluster(host, read_options(ClusterOptions, spec.options))
