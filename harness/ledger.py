"""Where the offered packets went, layer by layer, and what nobody accounts for.

    offered ──before_nic──▶ NIC ──nic──▶ capture ring ──kernel──▶ software ──software──▶ analysed

Sources and their traps:

- `rx_packets` of the sensor's interface is what its driver passed up. On a veth pair the peer's
  backlog drops before that count (drivers/net/veth.c counts them as the *sender's* tx_dropped), so
  such packets show as `before_nic`.
- `rx_missed_errors` is the NIC without buffers. `rx_dropped` is ambiguous: some drivers count
  missing buffers there, and the kernel adds packets that no protocol wanted, which `rx_packets`
  has counted already (libpcap issue 828). It is therefore believed only for packets that are
  missing from `rx_packets`.
- `received` of AF_PACKET includes its drops; the kernel's reassembly of fragments (`defrag: yes`)
  makes it smaller than `rx_packets`, which shows as `unexplained`.
- Packets on the wire that the generator did not send make `unexplained` negative. It is shown.
"""

from __future__ import annotations

from harness.model import Capabilities, Counters, InterfaceCounters, Ledger, Sent

__all__ = ["build", "drop_rate", "tolerance"]

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


def _before_the_ring(offered: int, nic: InterfaceCounters) -> tuple[int, int]:
    """(lost before the NIC, lost in the NIC); neither is ever negative."""
    missing = max(0, offered - nic.rx_packets)
    in_nic = min(missing, nic.rx_missed + nic.rx_errors)
    in_nic += min(missing - in_nic, nic.rx_dropped)
    return missing - in_nic, in_nic


def build(
    sent: Sent,
    nic: InterfaceCounters | None,
    before: Counters,
    after: Counters,
    capabilities: Capabilities,
) -> Ledger:
    """The ledger of one trial.

    `nic` is the difference of the sensor's interface counters over the trial (None when they could
    not be read), `before` and `after` the sensor's own counters. Where the sensor cannot tell what
    it analysed, the account ends at its interface: `unexplained` is then offered minus everything
    known up to there.
    """
    offered = sent.packets
    before_nic: int | None = None
    in_nic: int | None = None
    if nic is not None:
        before_nic, in_nic = _before_the_ring(offered, nic)
    received = _delta(after.received, before.received)
    decoded = _delta(after.decoded, before.decoded)
    invalid = _delta(after.invalid, before.invalid) or 0
    kernel = _delta(after.dropped, before.dropped) if capabilities.kernel_drops else None
    software: int | None = None
    if capabilities.software_drops and received is not None and decoded is not None:
        software = received - (kernel or 0) - decoded + invalid
    analysed = None if decoded is None else decoded - invalid
    known = sum(part or 0 for part in (before_nic, in_nic, kernel, software))
    if analysed is not None:
        known += analysed
    elif nic is not None:
        known += nic.rx_packets - (kernel or 0) - (software or 0)
    else:
        known = offered
    return Ledger(
        offered=offered,
        before_nic=before_nic,
        nic=in_nic,
        kernel=kernel,
        software=software,
        analysed=analysed,
        unexplained=offered - known,
        tolerance=tolerance(offered, after.exact),
    )


def drop_rate(ledger: Ledger) -> float | None:
    """1 - analysed / offered; None where analysed is not observable. Never clamped."""
    if ledger.analysed is None or ledger.offered == 0:
        return None
    return 1 - ledger.analysed / ledger.offered
