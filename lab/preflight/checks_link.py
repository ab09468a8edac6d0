"""Checks on the test link: state, speed, frame size, offloads, and what else is on it."""

from __future__ import annotations

from collections.abc import Iterator

from lab.preflight.check import Bad, Fine, Outcome, Unseen, check
from lab.preflight.facts import HostFacts, LinkFacts, Setup

__all__: list[str] = []

# Features that make fewer packets of what arrives, or take their tags off.
_MERGING = {
    "generic-receive-offload": "gro",
    "large-receive-offload": "lro",
    "rx-gro-hw": "rx-gro-hw",
    "rx-gro-list": "rx-gro-list",
    "rx-udp-gro-forwarding": "rx-udp-gro-forwarding",
}
_SPLITTING = {"tcp-segmentation-offload": "tso", "generic-segmentation-offload": "gso"}
_VIRTUAL = {"veth", "virtio_net", "vmxnet3", "e1000", "xen-netfront", "hv_netvsc", "bridge", "tun"}
_SHAPERS = {"tbf", "netem", "htb", "hfsc", "cbs", "etf", "taprio", "police", "sfb", "red"}
_ETHERNET = 18  # header and one VLAN tag, which the MTU does not count
# What a quiet link may carry a second: one LLDP or STP frame.
_QUIET_PPS = 1.0


def _at(host: HostFacts, link: LinkFacts) -> str:
    return f"{host.name}: {link.name}"


def _ends(setup: Setup) -> Iterator[tuple[HostFacts, LinkFacts]]:
    """Every end of the test link that can be read."""
    yield from setup.ports
    if setup.ear is not None:
        yield setup.sensor, setup.ear


def _no_ear(setup: Setup) -> Unseen:
    return Unseen(setup.sensor.name, "the sensor's interface cannot be read")


@check(
    "link-down",
    "invalid",
    "The test link is not up",
    fakes="a NIC or a generator that loses everything",
    remedy="Bring both ends up (ip link set IF up) and look at the cable or transceiver.",
)
def _link_down(setup: Setup) -> Iterator[Outcome]:
    for host, link in _ends(setup):
        if not link.exists:
            yield Bad(_at(host, link), "there is no such interface; correct the inventory")
        elif link.up is None:
            yield Unseen(_at(host, link), "the state of the link is not readable")
        elif not link.up:
            yield Bad(_at(host, link), "the link is down", {"up": 0})
        else:
            yield Fine(_at(host, link), "up")
    for name in setup.transmit:
        if name not in setup.generator.links:
            yield Unseen(f"{setup.generator.name}: {name}", "not an interface of the kernel")


@check(
    "link-speed",
    "warning",
    "The link is slower than the load, or its ends differ",
    fakes="a generator that is too slow, or loss before the NIC",
    remedy="Use a faster link, lower the loads, or set one speed and full duplex on both ends.",
)
def _link_speed(setup: Setup) -> Iterator[Outcome]:
    speeds = {}
    for host, link in _ends(setup):
        if link.duplex == "half":
            yield Bad(_at(host, link), "half duplex: collisions lose packets", severity="invalid")
        if link.speed is None:
            yield Unseen(_at(host, link), "the speed is not readable")
            continue
        speeds[_at(host, link)] = link.speed
        load = setup.peak_bps
        if load is not None and load > link.speed * 1e6:
            yield Bad(
                _at(host, link),
                f"{link.speed} Mb/s; the highest load asked for takes {load / 1e6:,.0f} Mb/s",
                {"speed_mbps": link.speed, "load_mbps": load / 1e6},
                "invalid",
            )
        else:
            yield Fine(_at(host, link), f"{link.speed} Mb/s")
    if len(set(speeds.values())) > 1:
        listed = ", ".join(f"{where} {speed} Mb/s" for where, speed in speeds.items())
        yield Bad("link", f"the ends differ: {listed}", {w: float(s) for w, s in speeds.items()})


@check(
    "mtu",
    "invalid",
    "Frames are larger than an end of the link takes",
    fakes="loss at the NIC, or a generator that fails packets",
    remedy="ip link set IF mtu N on both ends, N at least the corpus's largest frame less 14.",
)
def _mtu(setup: Setup) -> Iterator[Outcome]:
    largest = setup.max_frame
    for host, link in _ends(setup):
        if link.mtu is None:
            yield Unseen(_at(host, link), "the MTU is not readable")
        elif largest is not None and largest > link.mtu + _ETHERNET:
            yield Bad(
                _at(host, link),
                f"MTU {link.mtu}; the corpus has frames of {largest} bytes",
                {"mtu": link.mtu, "max_frame": largest},
            )
        elif link is setup.ear and any(
            p.mtu is not None and p.mtu > link.mtu for _, p in setup.ports
        ):
            most = max(p.mtu for _, p in setup.ports if p.mtu is not None)
            yield Bad(
                _at(host, link),
                f"MTU {link.mtu}; the generator's is {most}",
                {"mtu": link.mtu, "generator_mtu": most},
                "warning",
            )
        else:
            yield Fine(_at(host, link), f"MTU {link.mtu}")


@check(
    "receive-offloads",
    "invalid",
    "The sensor's interface merges packets before the sensor sees them",
    fakes="packets lost in the NIC or the kernel, and a sensor that is faster than it is",
    remedy="ethtool -K IF gro off lro off (and rx-gro-hw off, rx-gro-list off).",
)
def _receive_offloads(setup: Setup) -> Iterator[Outcome]:
    link = setup.ear
    if link is None:
        yield _no_ear(setup)
    elif link.features is None or not _MERGING.keys() & link.features.keys():
        yield Unseen(_at(setup.sensor, link), "ethtool -k does not answer")
    else:
        on = [short for name, short in _MERGING.items() if link.features.get(name)]
        if on:
            remedy = f"ethtool -K {link.name} {' '.join(f'{short} off' for short in on)}"
            ahead = "; the sensor takes packets ahead of it" if setup.bypass else ""
            yield Bad(
                _at(setup.sensor, link),
                f"on: {', '.join(on)}{ahead}",
                {"on": len(on)},
                "info" if setup.bypass else None,
                remedy,
            )
        else:
            yield Fine(_at(setup.sensor, link), "nothing merges packets")


@check(
    "vlan-offload",
    "warning",
    "The sensor's interface takes VLAN tags off",
    fakes="nothing by itself; a sensor that ignores the tag's side channel sees other flows",
    remedy="ethtool -K IF rxvlan off, if the corpus has VLAN tags.",
)
def _vlan_offload(setup: Setup) -> Iterator[Outcome]:
    link = setup.ear
    if link is None:
        yield _no_ear(setup)
    elif link.features is None or "rx-vlan-offload" not in link.features:
        yield Unseen(_at(setup.sensor, link), "ethtool -k does not answer")
    elif link.features["rx-vlan-offload"]:
        yield Bad(_at(setup.sensor, link), "rx-vlan-offload is on", {"on": 1})
    else:
        yield Fine(_at(setup.sensor, link), "tags stay on")


@check(
    "transmit-offloads",
    "warning",
    "The generator's interface may cut or finish packets",
    fakes="a corpus that is not what was sent: more packets, other checksums",
    remedy="ethtool -K IF tso off gso off.",
)
def _transmit_offloads(setup: Setup) -> Iterator[Outcome]:
    for host, link in setup.ports:
        if link.features is None or not _SPLITTING.keys() & link.features.keys():
            yield Unseen(_at(host, link), "ethtool -k does not answer")
            continue
        on = [short for name, short in _SPLITTING.items() if link.features.get(name)]
        if on:
            yield Bad(_at(host, link), f"on: {', '.join(on)}", {"on": len(on)})
        else:
            yield Fine(_at(host, link), "packets leave as they are")


@check(
    "pause-frames",
    "warning",
    "Pause frames are on",
    fakes="a generator that is too slow: the sensor holds it back, and its own loss is hidden",
    remedy="ethtool -A IF rx off tx off on both ends.",
)
def _pause_frames(setup: Setup) -> Iterator[Outcome]:
    for host, link in _ends(setup):
        if link.pause is None:
            yield Unseen(_at(host, link), "ethtool -a does not answer")
        elif any(link.pause):
            obeyed, sent = ("on" if x else "off" for x in link.pause)
            yield Bad(
                _at(host, link),
                f"receive {obeyed}, transmit {sent}",
                {"rx": int(link.pause[0]), "tx": int(link.pause[1])},
            )
        else:
            yield Fine(_at(host, link), "off")


@check(
    "shaper",
    "invalid",
    "A traffic shaper is on the test link",
    fakes="a generator that is too slow, or loss before the NIC",
    remedy="tc qdisc del dev IF root, unless the impairment is on purpose.",
)
def _shaper(setup: Setup) -> Iterator[Outcome]:
    for host, link in _ends(setup):
        if link.qdiscs is None:
            yield Unseen(_at(host, link), "tc does not answer")
            continue
        found = sorted({kind for kind in link.qdiscs if kind in _SHAPERS})
        if found:
            yield Bad(_at(host, link), f"there is {', '.join(found)}", {"shapers": len(found)})
        else:
            yield Fine(_at(host, link), ", ".join(link.qdiscs) or "no queueing discipline")


@check(
    "xdp-program",
    "warning",
    "An XDP program is on the sensor's interface",
    fakes="loss in the kernel that no counter of the sensor shows",
    remedy="ip link set IF xdp off, unless the program is the sensor's own.",
)
def _xdp_program(setup: Setup) -> Iterator[Outcome]:
    link = setup.ear
    if link is None:
        yield _no_ear(setup)
    elif link.xdp is None:
        yield Unseen(_at(setup.sensor, link), "ip -d link does not answer")
    elif link.xdp:
        yield Bad(_at(setup.sensor, link), "a program is attached", {"programs": 1})
    else:
        yield Fine(_at(setup.sensor, link), "none")


@check(
    "background-packets",
    "warning",
    "Packets were on the link while nothing was sent",
    fakes="a ledger that closes although packets were lost: strays stand in for them",
    remedy="Quieten both ends (ip link set IF arp off multicast off; disable_ipv6; no LLDP), or "
    "isolate the mirror port.",
)
def _background(setup: Setup) -> Iterator[Outcome]:
    for host, link in _ends(setup):
        quiet = setup.quiet.get(host.name)
        counted = None if quiet is None else (quiet.received, quiet.sent)
        if quiet is None or counted is None or link.name not in counted[0]:
            yield Unseen(_at(host, link), "its counters were not read twice")
            continue
        received, sent = counted[0][link.name], counted[1][link.name]
        numbers = {"received": received, "sent": sent, "seconds": round(quiet.seconds, 2)}
        told = f"{received} packets received and {sent} sent in {quiet.seconds:.1f} s"
        if received + sent > _QUIET_PPS * quiet.seconds:
            yield Bad(_at(host, link), told, numbers)
        elif received + sent:
            yield Bad(_at(host, link), told, numbers, "info")
        else:
            yield Fine(_at(host, link), told)


@check(
    "other-captures",
    "warning",
    "Something captures on the sensor's interface already",
    fakes="a slow sensor: each further socket copies every packet in the same softirq",
    remedy="End the other capture (ss -0 -p names it), unless it is the sensor under observation.",
)
def _other_captures(setup: Setup) -> Iterator[Outcome]:
    link = setup.ear
    if link is None:
        yield _no_ear(setup)
    elif link.captures is None:
        yield Unseen(_at(setup.sensor, link), "/proc/net/packet is not readable")
    elif link.captures:
        yield Bad(
            _at(setup.sensor, link),
            f"{link.captures} capture sockets are open before the sensor was started",
            {"sockets": link.captures},
            "info" if setup.observed else None,
        )
    else:
        yield Fine(_at(setup.sensor, link), "none")


@check(
    "promiscuous",
    "info",
    "The sensor's interface is not promiscuous",
    fakes="loss in the NIC: frames for other MAC addresses are filtered",
    remedy="Nothing, where the sensor switches it on (Suricata, Zeek, Snort do); otherwise "
    "ip link set IF promisc on.",
)
def _promiscuous(setup: Setup) -> Iterator[Outcome]:
    link = setup.ear
    if link is None:
        yield _no_ear(setup)
    elif link.promiscuous is None:
        yield Unseen(_at(setup.sensor, link), "the interface's flags are not readable")
    elif not link.promiscuous:
        yield Bad(_at(setup.sensor, link), "off, before the sensor was started", {"on": 0})
    else:
        yield Fine(_at(setup.sensor, link), "on")


@check(
    "virtual-link",
    "info",
    "The link is not a NIC's",
    fakes="a kernel bottleneck: on a virtual link the sender's CPU does the receiver's work",
    remedy="Good for trying things out; figures for a report come from real interfaces.",
)
def _virtual_link(setup: Setup) -> Iterator[Outcome]:
    for host, link in _ends(setup):
        if link.driver is None:
            yield Unseen(_at(host, link), "ethtool -i does not answer")
        elif link.driver in _VIRTUAL:
            yield Bad(_at(host, link), f"driver {link.driver}")
        else:
            words = [f"driver {link.driver}", link.driver_version, link.firmware]
            yield Fine(_at(host, link), ", ".join(word for word in words if word))
