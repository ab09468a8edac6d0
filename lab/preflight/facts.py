"""What the preflight knows about a lab: values that the checks judge.

A field that is None could not be read (or the host has no such thing to tell): a check that needs
it says "not observable". Sizes are bytes, speeds Mb/s, times seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Channels", "HostFacts", "Irq", "LinkFacts", "Offset", "Quiet", "Rings", "Rss", "Setup",
           "Volume"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rings:
    """`ethtool -g`: descriptors now and at most; None where the driver does not say."""

    rx: int | None
    rx_max: int | None
    tx: int | None
    tx_max: int | None


@dataclass(frozen=True, slots=True)
class Channels:
    """`ethtool -l`: receive queues (combined ones included) now and at most."""

    rx: int
    rx_max: int


@dataclass(frozen=True, slots=True)
class Rss:
    """`ethtool -x`: receive queues, where the table sends packets, the key, and the function."""

    queues: int
    table: tuple[int, ...]
    key: bytes | None
    function: str | None
    symmetric_xor: bool = False

    @property
    def symmetric(self) -> bool | None:
        """Whether both directions of a flow hash alike; None when the key is unknown.

        Toeplitz does when its key repeats every 16 bits (Woo and Park 2012: 6D5A…), whatever those
        are; newer drivers can XOR source and destination first.
        """
        if self.symmetric_xor or self.function == "xor":
            return True
        if self.key is None or self.function not in (None, "toeplitz"):
            return None
        pairs = {self.key[i : i + 2] for i in range(0, len(self.key) - 1, 2)}
        return len(pairs) == 1


@dataclass(frozen=True, slots=True)
class Irq:
    """One interrupt vector: its name, and the CPUs that it goes to."""

    name: str
    cpus: frozenset[int]


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """An interface. `features` maps ethtool's long names to whether they are on.

    `promiscuous` is the flag now; `captures` the AF_PACKET sockets bound to it; `iommu` the type of
    its IOMMU domain ("DMA", "DMA-FQ", "identity") or "" where its device is behind none; `numa` -1
    where the machine does not say; `qdiscs` the kinds on it; `xdp` whether a program is attached.
    """

    name: str
    exists: bool = True
    up: bool | None = None
    mtu: int | None = None
    speed: int | None = None
    duplex: str | None = None
    promiscuous: bool | None = None
    captures: int | None = None
    driver: str | None = None
    driver_version: str | None = None
    firmware: str | None = None
    features: dict[str, bool] | None = None
    rings: Rings | None = None
    channels: Channels | None = None
    rss: Rss | None = None
    pause: tuple[bool, bool] | None = None  # (receive, transmit)
    numa: int | None = None
    iommu: str | None = None
    irqs: tuple[Irq, ...] = ()
    qdiscs: tuple[str, ...] | None = None
    xdp: bool | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """Size and free bytes of the volume a path is on."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class HostFacts:
    """A machine. `siblings` maps a CPU to the CPUs of its core (itself included), `nodes` a NUMA
    node to its CPUs, `governors` a CPU to its frequency governor (empty: no frequency scaling).

    `vulnerabilities` are the kernel's words on each; `netem` is whether the qdisc can be had;
    `conntrack` the connections tracked now, `conntrack_loaded` whether the module is there;
    `missing` the programs that a run needs and that are not there; `tools` are `lab.facts.facts`.
    """

    name: str
    boot_id: str | None = None
    cmdline: str | None = None
    cpus: frozenset[int] | None = None
    siblings: dict[int, frozenset[int]] = field(default_factory=dict)
    nodes: dict[int, frozenset[int]] = field(default_factory=dict)
    governors: dict[int, str] | None = None
    throttled: int | None = None
    vulnerabilities: dict[str, str] | None = None
    hypervisor: bool | None = None
    clocksource: str | None = None
    iommus: tuple[str, ...] | None = None
    netem: bool | None = None
    conntrack: int | None = None
    conntrack_loaded: bool | None = None
    processes: frozenset[str] | None = None
    swap_used: int | None = None
    swap_total: int | None = None
    volumes: dict[str, Volume] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] | None = None
    links: dict[str, LinkFacts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Offset:
    """Another clock minus ours lies between `low` and `high` (the bounds of a round trip)."""

    low: float
    high: float

    def minus(self, other: Offset) -> Offset:
        """One host's clock against another's."""
        return Offset(self.low - other.high, self.high - other.low)


@dataclass(frozen=True, slots=True)
class Quiet:
    """What happened on a host over `seconds` while nothing was sent.

    `received` and `sent` are packets by interface; `busy` is the share of all its CPUs' time that
    was used, None where something of ours ran meanwhile.
    """

    seconds: float
    received: dict[str, int]
    sent: dict[str, int]
    busy: float | None = None


@dataclass(frozen=True, slots=True)
class Setup:
    """A lab as the checks see it.

    `bypass` says that the sensor takes packets ahead of the kernel's stack (DPDK, AF_XDP, netmap),
    `observed` that it may run already. The `cpus` are those the inventory gives to the role, None
    where it gives none. `max_frame` is the corpus's largest frame and `peak_bps` what the highest
    load takes of the link, where known.
    """

    generator: HostFacts
    sensor: HostFacts
    transmit: tuple[str, ...]
    receive: str | None
    generator_cpus: frozenset[int] | None = None
    sensor_cpus: frozenset[int] | None = None
    workers: int = 1
    bypass: bool = False
    observed: bool = False
    max_frame: int | None = None
    peak_bps: float | None = None
    clocks: dict[str, Offset] = field(default_factory=dict)
    quiet: dict[str, Quiet] = field(default_factory=dict)

    @property
    def co_located(self) -> bool | None:
        """Whether both roles are on one machine; None where a host does not say.

        Of a closed sensor (no interface) nobody knows the machine: its host is the one that asks.
        """
        if self.receive is None:
            return None
        ours, theirs = self.generator.boot_id, self.sensor.boot_id
        return None if ours is None or theirs is None else ours == theirs

    @property
    def hosts(self) -> tuple[HostFacts, ...]:
        """Each host once; not the one that only asks a closed sensor."""
        if self.receive is None:
            return (self.generator,)
        if self.generator.name == self.sensor.name:
            return (self.sensor,)
        return (self.generator, self.sensor)

    @property
    def ports(self) -> tuple[tuple[HostFacts, LinkFacts], ...]:
        """The generator's interfaces."""
        found = ((self.generator, self.generator.links.get(name)) for name in self.transmit)
        return tuple((host, link) for host, link in found if link is not None)

    @property
    def ear(self) -> LinkFacts | None:
        """The sensor's interface; None where nobody can read it."""
        return None if self.receive is None else self.sensor.links.get(self.receive)
