"""Checks on how the sensor's NIC spreads, buffers and announces packets, and where it is."""

from __future__ import annotations

from collections.abc import Iterator

from lab.preflight.check import Bad, Fine, Outcome, Unseen, check
from lab.preflight.facts import HostFacts, LinkFacts, Setup

__all__: list[str] = []

_SMALL_RING = 1024


def _ear(setup: Setup) -> tuple[str, LinkFacts | None]:
    link = setup.ear
    name = setup.sensor.name
    return (name if link is None else f"{name}: {link.name}"), link


def _shown(cpus: frozenset[int]) -> str:
    return ",".join(str(cpu) for cpu in sorted(cpus))


@check(
    "rss-queues",
    "warning",
    "The sensor's NIC has fewer receive queues than the sensor has workers",
    fakes="a kernel bottleneck: one CPU's softirq receives for all workers",
    remedy="ethtool -L IF combined N, N the number of workers (or as many as there are).",
)
def _rss_queues(setup: Setup) -> Iterator[Outcome]:
    where, link = _ear(setup)
    if link is None or (link.channels is None and link.rss is None):
        yield Unseen(where, "neither ethtool -l nor -x says how many receive queues there are")
        return
    queues = link.channels.rx if link.channels is not None else 0
    most = link.channels.rx_max if link.channels is not None else 0
    used = len(set(link.rss.table)) if link.rss is not None and link.rss.table else queues
    numbers = {"queues": queues or used, "used": used, "workers": setup.workers, "most": most}
    if used < setup.workers and used < (queues or used):
        yield Bad(where, f"the table uses {used} of {queues} queues", numbers)
    elif used < setup.workers:
        yield Bad(
            where,
            f"{used} receive queue(s) for {setup.workers} workers (at most {most or 'unknown'})",
            numbers,
            "warning" if most == 0 or most > used else "info",
        )
    else:
        yield Fine(where, f"{used} receive queues for {setup.workers} workers")


@check(
    "rss-symmetry",
    "warning",
    "The NIC sends the two directions of a flow to different queues",
    fakes="a slow stream engine: packets on the wrong thread, reassembly gaps, half-seen flows",
    remedy="ethtool -X IF hkey 6d:5a:6d:5a… equal N (or symmetric-xor on), unless the sensor "
    "spreads packets itself (AF_PACKET cluster_flow).",
)
def _rss_symmetry(setup: Setup) -> Iterator[Outcome]:
    where, link = _ear(setup)
    if link is None or link.rss is None:
        yield Unseen(where, "ethtool -x does not tell key and function")
        return
    rss = link.rss
    used = len(set(rss.table)) if rss.table else rss.queues
    if used <= 1:
        yield Fine(where, "one queue: nothing to spread")
    elif rss.symmetric is None:
        yield Unseen(where, f"function {rss.function or 'unknown'}, and the key is not readable")
    elif rss.symmetric:
        how = "symmetric-xor" if rss.symmetric_xor else f"{rss.function or 'toeplitz'}"
        yield Fine(where, f"{how}, {used} queues")
    elif not any(rss.key or b""):
        yield Bad(where, "the key is all zeros", {"queues": used})
    else:
        head = (rss.key or b"")[:4].hex(":")
        yield Bad(where, f"the key {head}… does not repeat every 16 bits", {"queues": used})


@check(
    "ring-size",
    "warning",
    "The NIC's receive ring is small",
    fakes="a NIC bottleneck: bursts overflow the ring although there is time to spare",
    remedy="ethtool -G IF rx N, up to the maximum; a smaller one is a choice worth a note.",
)
def _ring_size(setup: Setup) -> Iterator[Outcome]:
    where, link = _ear(setup)
    rings = None if link is None else link.rings
    if rings is None or rings.rx is None or rings.rx_max is None:
        yield Unseen(where, "ethtool -g does not say")
    elif rings.rx < min(rings.rx_max, _SMALL_RING):
        numbers = {"rx": rings.rx, "rx_max": rings.rx_max}
        yield Bad(where, f"{rings.rx} of {rings.rx_max} descriptors", numbers)
    else:
        yield Fine(where, f"{rings.rx} of {rings.rx_max} descriptors")


@check(
    "irq-affinity",
    "warning",
    "Interrupts of the sensor's NIC are badly placed",
    fakes="a kernel bottleneck: few CPUs, or far ones, do the receiving",
    remedy="Write one CPU of the NIC's NUMA node each to /proc/irq/N/smp_affinity_list, and stop "
    "irqbalance.",
)
def _irq_affinity(setup: Setup) -> Iterator[Outcome]:
    where, link = _ear(setup)
    if link is None or not link.irqs:
        yield Unseen(where, "the interface has no interrupt vectors that can be read")
        return
    used = frozenset[int]().union(*(irq.cpus for irq in link.irqs))
    queues = link.channels.rx if link.channels is not None else len(link.irqs)
    numbers = {"vectors": len(link.irqs), "cpus": len(used), "queues": queues}
    near = setup.sensor.nodes.get(link.numa) if link.numa is not None else None
    if queues > 1 and len(used) == 1:
        yield Bad(where, f"all {len(link.irqs)} vectors go to CPU {_shown(used)}", numbers)
    elif near is not None and not used <= near and len(setup.sensor.nodes) > 1:
        far = used - near
        yield Bad(
            where,
            f"vectors go to CPU {_shown(far)}, which are not on the NIC's NUMA node {link.numa}",
            {**numbers, "far": len(far)},
        )
    else:
        yield Fine(where, f"{len(link.irqs)} vectors on CPU {_shown(used)}")


@check(
    "iommu",
    "warning",
    "The NIC's memory accesses are translated",
    fakes="a NIC or kernel bottleneck: each packet pays for mapping its buffer",
    remedy="Boot with iommu=pt (intel_iommu=on iommu=pt), or without an IOMMU.",
)
def _iommu(setup: Setup) -> Iterator[Outcome]:
    ends = list(setup.ports)
    if setup.ear is not None:
        ends.append((setup.sensor, setup.ear))
    for host, link in ends:
        where = f"{host.name}: {link.name}"
        if link.iommu is not None and link.iommu.startswith("DMA"):
            yield Bad(where, f"its IOMMU domain is {link.iommu}", {"translated": 1})
        elif link.iommu:
            yield Fine(where, f"its IOMMU domain is {link.iommu}")
        elif host.iommus is None:
            yield Unseen(where, "/sys/class/iommu is not readable")
        elif not host.iommus:
            yield Fine(where, "no IOMMU is in use")
        elif "iommu=pt" in (host.cmdline or ""):
            yield Fine(where, "iommu=pt")
        else:
            yield Unseen(where, "there are IOMMUs, and the interface's domain is not readable")


def _placed(
    host: HostFacts, link: LinkFacts, cpus: frozenset[int] | None, role: str
) -> Iterator[Outcome]:
    where = f"{host.name}: {link.name}"
    if len(host.nodes) == 1:
        yield Fine(where, "one NUMA node")
    elif link.numa is None or link.numa < 0 or not host.nodes:
        yield Unseen(where, "the machine does not say which NUMA node the interface is on")
    elif cpus is None:
        yield Unseen(where, f"{role}.cpus is not given, so the {role} may run on any node")
    else:
        far = cpus - host.nodes.get(link.numa, frozenset())
        numbers = {"node": link.numa, "far": len(far), "cpus": len(cpus)}
        if far:
            yield Bad(
                where,
                f"on NUMA node {link.numa}; {len(far)} of the {role}'s {len(cpus)} CPUs are not "
                f"({_shown(far)})",
                numbers,
            )
        else:
            yield Fine(where, f"NUMA node {link.numa}, as the {role}'s CPUs")


@check(
    "numa",
    "warning",
    "CPUs are on another NUMA node than their NIC",
    fakes="slow software: every packet crosses the interconnect",
    remedy="Give the role CPUs of the NIC's node (sensor.cpus, generator.cpus), or move the card.",
)
def _numa(setup: Setup) -> Iterator[Outcome]:
    for host, link in setup.ports:
        yield from _placed(host, link, setup.generator_cpus, "generator")
    if setup.ear is None:
        yield Unseen(setup.sensor.name, "the sensor's interface cannot be read")
    else:
        yield from _placed(setup.sensor, setup.ear, setup.sensor_cpus, "sensor")
