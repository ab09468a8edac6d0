"""How Suricata gets its packets: arguments and configuration of each capture mode.

| mode | argument | section of suricata.yaml | source (Suricata 7.0, 8.0) |
| --- | --- | --- | --- |
| af-packet | --af-packet=IF | af-packet | src/runmode-af-packet.c |
| pcap | --pcap=IF | pcap | src/runmode-pcap.c |
| dpdk | --dpdk | dpdk, and CPU sets for its threads | src/runmode-dpdk.c |
| af-xdp | --af-xdp=IF | af-xdp | src/runmode-af-xdp.c |
| netmap | --netmap=IF | netmap | src/runmode-netmap.c |

In the run mode `workers` a thread captures, decodes and analyses; in `autofp` the threads `RX#..`
capture and decode, and the threads `W#..` analyse.
"""

from __future__ import annotations

import json

from harness.errors import ConfigError
from harness.sensors.suricata_options import Options
from lab.inventory import SensorSpec

__all__ = ["capture_argv", "capture_yaml", "check_capture", "device_of", "support_line"]

_FRAME = 1600  # bytes that Suricata reckons for a packet of a 1500-byte MTU
_BUILD_LINE = {
    "af-packet": "AF_PACKET support",
    "dpdk": "DPDK support",
    "af-xdp": "AF_XDP support",
    "netmap": "Netmap support",
}


def device_of(spec: SensorSpec, options: Options) -> str:
    """The name that Suricata's iface-stat and log use. Raises ConfigError when none is given."""
    device = options.device if options.device is not None else spec.interface
    if device is None:
        raise ConfigError("inventory: sensor.interface is missing: Suricata captures on one")
    return device


def check_capture(spec: SensorSpec, options: Options) -> None:
    """Refuse what cannot work. Raises ConfigError naming the key."""
    device_of(spec, options)
    if options.capture == "pcap" and options.runmode == "workers" and spec.workers > 1:
        raise ConfigError(
            f"inventory: sensor.workers = {spec.workers}: in capture mode pcap every thread gets "
            "every packet; set workers = 1, or runmode = 'autofp' in sensor.options"
        )
    if options.capture == "dpdk" and options.config is None and spec.cpus is None:
        raise ConfigError(
            "inventory: sensor.cpus is missing: DPDK pins its workers; name their CPUs, as '2-5'"
        )


def support_line(options: Options, build_info: str) -> bool | None:
    """Whether `suricata --build-info` lists the mode; None where it has no line for it."""
    wanted = _BUILD_LINE.get(options.capture)
    for line in build_info.splitlines():
        key, colon, value = line.partition(":")
        if wanted is not None and colon and key.strip() == wanted:
            return value.split()[:1] == ["yes"]
    return None


def capture_argv(spec: SensorSpec, options: Options) -> list[str]:
    """Words that choose the mode on the command line; the run mode is the configuration's."""
    if options.capture == "dpdk":
        return ["--dpdk"]
    argv = [f"--{options.capture}={device_of(spec, options)}"]
    if options.config is not None and options.runmode == "autofp":
        argv += ["--runmode", "autofp"]
    return argv


def capture_yaml(spec: SensorSpec, options: Options, processors: int) -> str:
    """What our suricata.yaml says beyond af-packet in `workers`; empty for that one.

    `processors` is the number of CPUs online, which Suricata derives its `autofp` workers from.
    """
    parts = []
    if options.capture != "af-packet":
        parts.append(_SECTIONS[options.capture](spec, options))
    if options.runmode == "autofp":
        # threads = int(processors * ratio) (src/util-runmodes.c): a little more than the quotient.
        ratio = (spec.workers + 0.01) / processors
        parts.append(f"threading:\n  set-cpu-affinity: no\n  detect-thread-ratio: {ratio:.6f}\n")
    return "".join(f"\n{part}" for part in parts)


def _pcap(spec: SensorSpec, options: Options) -> str:
    return (
        f"pcap:\n  - interface: {json.dumps(device_of(spec, options))}\n    threads: 1\n"
        f"    buffer-size: {spec.ring_size * _FRAME}\n    checksum-checks: yes\n"
    )


def _af_xdp(spec: SensorSpec, options: Options) -> str:
    return (
        f"af-xdp:\n  - interface: {json.dumps(device_of(spec, options))}\n"
        f"    threads: {spec.workers}\n    checksum-checks: yes\n"
    )


def _netmap(spec: SensorSpec, options: Options) -> str:
    return (
        f"netmap:\n  - interface: {json.dumps(device_of(spec, options))}\n"
        f"    threads: {spec.workers}\n    checksum-checks: yes\n"
    )


def _dpdk(spec: SensorSpec, options: Options) -> str:
    eal = "".join(
        f"    {name}: {json.dumps(value)}\n"
        for name, value in (("proc-type", "primary"), *options.eal)
    )
    interface = "\n".join(
        f"      {line}"
        for line in (
            f"threads: {spec.workers}",
            "promisc: true",
            "multicast: false",
            "checksum-checks: true",
            "checksum-checks-offload: false",
            "mtu: 1500",
            "rss-hash-functions: auto",
            "mempool-size: 65535",
            "mempool-cache-size: 257",
            f"rx-descriptors: {spec.ring_size}",
            "tx-descriptors: 1024",
            "copy-mode: none",
            "copy-iface: none",
        )
    )
    cpus = spec.cpus or ""
    return (
        f"dpdk:\n  eal-params:\n{eal}  interfaces:\n"
        f"    - interface: {json.dumps(device_of(spec, options))}\n{interface}\n"
        f"    - interface: default\n{interface}\n"
        "threading:\n  set-cpu-affinity: yes\n  cpu-affinity:\n"
        "    - management-cpu-set: {cpu: [ 0 ]}\n"
        f'    - worker-cpu-set: {{cpu: [ "{cpus}" ], mode: exclusive}}\n'
    )


_SECTIONS = {"pcap": _pcap, "af-xdp": _af_xdp, "netmap": _netmap, "dpdk": _dpdk}
