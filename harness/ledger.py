"""Where the offered packets went, stage by stage, and what nobody accounts for.

    offered ─transmit─wire─▶ NIC ─nic─backlog─▶ ring ─ring─▶ software ─undecoded─▶
    decoder ─decoder─▶ flow engine ─flow─▶ stream engine ─stream─▶ analysed (detection)

Sources and their traps:

- `tx_packets` of the generator's interface: what it took from the generator. On a veth pair the
  peer's backlog drops before either end counts the packet; drivers/net/veth.c counts it as the
  sender's tx_dropped, so such packets show at `transmit`.
- `rx_packets` of the sensor's interface is what its driver passed up. `rx_missed_errors` is the NIC
  without buffers. `rx_dropped` is ambiguous: some drivers count missing buffers there, and the
  kernel adds packets that no protocol wanted, which `rx_packets` has counted already (libpcap issue
  828). It, and the driver's own counters (`nic_names`), are therefore believed only for packets
  that are missing from `rx_packets`.
- /proc/net/softnet_stat counts drops of the whole machine's backlog: they are believed only for
  packets that the interface received and the capture method did not (receive packet steering).
- `received` of AF_PACKET includes its drops; the kernel's reassembly of fragments (`defrag: yes`)
  makes it smaller than `rx_packets`, which shows as `unexplained`.
- Behind the decoder a packet of a tunnel is counted once more for each inner packet: a stage there
  is never given more packets than came to it.
- Packets on the wire that the generator did not send make `unexplained` negative. It is shown.
"""

from __future__ import annotations

from harness.ledger_bytes import in_bytes
from harness.ledger_software import decoded_stages, events, grown
from harness.model import Capabilities, Counters, InterfaceCounters, Ledger, Sent
from harness.model_host import HostTrial
from harness.model_ledger import Stage
from harness.nic_names import nic_causes, packets_lost

__all__ = [
    "UNCOUNTED",
    "build",
    "capture_loss",
    "drop_rate",
    "softnet_dropped",
    "tolerance",
]

UNCOUNTED = "sent - received by the sensor's own count: on the wire, or in its NIC"

# RFC 9411 section 7 accepts failures up to 0.001 % (1 in 100,000). A ledger from totals read at
# shutdown has no reason to be worse, and on a quiet link of fewer packets it must close to the
# packet. Counters read from a running sensor may be seconds old.
_EXACT = 1e-5
_STALE = 1e-3


def tolerance(offered: int, exact: bool) -> int:
    """Packets that may stay unexplained: 1e-5 of offered for exact totals, 1e-3 otherwise."""
    return int(offered * (_EXACT if exact else _STALE))


def _delta(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def softnet_dropped(host: HostTrial | None) -> int | None:
    """Packets that the backlogs of all CPUs dropped in the trial; None where not read."""
    if host is None or host.before is None or host.after is None or not host.after.softnet:
        return None
    first = host.before.softnet
    return sum(
        max(0, row.get("dropped", 0) - first.get(cpu, {}).get("dropped", 0))
        for cpu, row in host.after.softnet.items()
    )


def _causes(host: HostTrial | None) -> dict[str, int]:
    if host is None or host.before is None or host.after is None:
        return {}
    return nic_causes(host.before.interface, host.after.interface)


def _before_the_ring(
    sent: Sent, nic: InterfaceCounters, port: InterfaceCounters | None, host: HostTrial | None
) -> tuple[Stage, Stage, Stage]:
    """Stages transmit, wire and nic; no part is ever negative."""
    missing = max(0, sent.packets - nic.rx_packets)
    causes = _causes(host)
    named = packets_lost(causes)
    in_nic = min(missing, max(nic.rx_missed + nic.rx_errors, named))
    in_nic += min(missing - in_nic, nic.rx_dropped)
    own = {"rx_missed_errors": nic.rx_missed, "rx_errors": nic.rx_errors}
    own["rx_dropped"] = nic.rx_dropped
    known = {**{name: n for name, n in own.items() if n > 0}, **causes} if in_nic else {}
    transmit: int | None = None
    dropped: dict[str, int] = {}
    taken = port.tx_packets if port is not None else sent.wire_packets
    if taken is not None:
        transmit = min(missing - in_nic, max(0, sent.packets - taken))
    if port is not None and transmit and port.tx_dropped > 0:
        dropped = {"tx_dropped": port.tx_dropped}
    return (
        Stage("transmit", transmit, "sent - tx_packets of the transmitting interface", dropped),
        Stage(
            "wire", missing - in_nic - (transmit or 0), "tx_packets - rx_packets, less the NIC's"
        ),
        Stage("nic", in_nic, "rx_missed_errors, rx_errors, rx_dropped; ethtool -S", known),
    )


def _before_the_count(
    sent: Sent, received: int, port: InterfaceCounters | None
) -> tuple[Stage, Stage, Stage]:
    """The same where nobody can read the sensor's interface, but it tells what it received."""
    missing = max(0, sent.packets - received)
    transmit: int | None = None
    if port is not None:
        transmit = min(missing, max(0, sent.packets - port.tx_packets))
    dropped = {"tx_dropped": port.tx_dropped} if port and transmit and port.tx_dropped > 0 else {}
    return (
        Stage("transmit", transmit, "sent - tx_packets of the transmitting interface", dropped),
        Stage("wire", missing - (transmit or 0), UNCOUNTED),
        Stage("nic", None, "counters of the sensor's interface"),
    )


def _in_the_kernel(
    nic: InterfaceCounters | None,
    received: int | None,
    ring: int | None,
    host: HostTrial | None,
) -> tuple[Stage, Stage]:
    """Stages backlog and ring."""
    lost = softnet_dropped(host)
    backlog: int | None = None
    if lost is not None and nic is not None and received is not None:
        backlog = min(lost, max(0, nic.rx_packets - received))
    return (
        Stage("backlog", backlog, "dropped of /proc/net/softnet_stat"),
        Stage("ring", ring, "drop counter of the capture method"),
    )


def _sum(*parts: int | None) -> int | None:
    """Sum of what is known; None when nothing is."""
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def build(
    sent: Sent,
    nic: InterfaceCounters | None,
    before: Counters,
    after: Counters,
    capabilities: Capabilities,
    *,
    port: InterfaceCounters | None = None,
    host: HostTrial | None = None,
    max_frame: int | None = None,
) -> Ledger:
    """The ledger of one trial.

    `nic` is the difference of the sensor's interface counters over the trial (None when they could
    not be read), `port` that of the transmitting interfaces, `host` what the sampler read on the
    sensor's host, `before` and `after` the sensor's own counters, `max_frame` the corpus's largest
    frame in bytes. Where the sensor cannot tell what it analysed, the account ends at the packets
    it says it received, or where it does not tell that either, at its interface: `unexplained` is
    then offered minus everything known up to there.
    """
    offered = sent.packets
    unseen = "counters of the sensor's interface"
    front = (
        Stage("transmit", None, unseen),
        Stage("wire", None, unseen),
        Stage("nic", None, unseen),
    )
    received = _delta(after.received, before.received)
    if nic is not None:
        front = _before_the_ring(sent, nic, port, host)
    elif received is not None:
        front = _before_the_count(sent, received, port)
    decoded = _delta(after.decoded, before.decoded)
    ring = _delta(after.dropped, before.dropped) if capabilities.kernel_drops else None
    middle = _in_the_kernel(nic, received, ring, host)
    undecoded: int | None = None
    if capabilities.software_drops and received is not None and decoded is not None:
        undecoded = received - (ring or 0) - decoded
    behind = decoded_stages(before, after, decoded)
    refused = sum(stage.packets or 0 for stage in behind)
    software = None if undecoded is None else undecoded + refused
    analysed = None if decoded is None else decoded - refused
    if undecoded is None and decoded is not None and refused:
        software = refused
    before_nic = _sum(front[0].packets, front[1].packets)
    backlog = middle[0].packets or None
    kernel = _sum(backlog, ring)
    known = sum(part or 0 for part in (before_nic, front[2].packets, kernel, software))
    if analysed is not None:
        known += analysed
    elif received is not None:  # its own count goes further than the interface's
        known += received - (ring or 0)
    elif nic is not None:
        known += nic.rx_packets - (kernel or 0) - (software or 0)
    else:
        known = offered
    gone = [*front, *middle, Stage("undecoded", undecoded, "received - dropped - decoded")]
    allowed = tolerance(offered, after.exact)
    return Ledger(
        offered=offered,
        before_nic=before_nic,
        nic=front[2].packets,
        kernel=kernel,
        software=software,
        analysed=analysed,
        unexplained=offered - known,
        tolerance=allowed,
        stages=(*gone, *behind),
        events=events(grown(before, after)),
        bytes=in_bytes(
            sent,
            nic,
            port,
            _delta(after.decoded_bytes, before.decoded_bytes),
            sum(max(0, stage.packets or 0) for stage in gone),
            allowed,
            max_frame,
        ),
    )


def drop_rate(ledger: Ledger) -> float | None:
    """1 - analysed / offered; None where analysed is not observable. Never clamped."""
    if ledger.analysed is None or ledger.offered == 0:
        return None
    return 1 - ledger.analysed / ledger.offered


def capture_loss(ledger: Ledger, before: Counters, after: Counters) -> float | None:
    """(Lost before the capture + dropped by it) / offered, for a sensor that does not tell what it
    analysed; None where its counters do not give that. Never clamped.

    With a count of packets received (drops included) it is all that did not leave the capture;
    with drops alone, those and what the interfaces miss.
    """
    if ledger.offered == 0:
        return None
    received = _delta(after.received, before.received)
    dropped = _delta(after.dropped, before.dropped)
    if received is not None:
        return 1 - (received - (dropped or 0)) / ledger.offered
    if dropped is None:
        return None
    return (_sum(ledger.before_nic, ledger.nic, ledger.kernel) or 0) / ledger.offered
