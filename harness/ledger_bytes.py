"""The ledger in bytes: what of the missing bytes the packets known to be lost can account for."""

from __future__ import annotations

from harness.model import InterfaceCounters, Sent
from harness.model_ledger import ByteLedger

__all__ = ["in_bytes"]

_LEAST = 14  # an Ethernet header; a veth pair pads nothing
_MOST = 65_549  # the largest IP packet and its header, where the corpus's largest is not known


def in_bytes(
    sent: Sent,
    nic: InterfaceCounters | None,
    port: InterfaceCounters | None,
    decoded: int | None,
    lost: int,
    tolerance: int,
    max_frame: int | None,
) -> ByteLedger:
    """The byte ledger of a trial.

    `decoded` are the bytes the sensor's decoder counted, `lost` the packets lost before it,
    `tolerance` the packets that may stay unexplained. Not observable without `decoded`.
    """
    most = max_frame or _MOST
    found: int | None = None
    rest: int | None = None
    if decoded is not None:
        missing = sent.bytes - decoded
        found = min(max(missing, lost * _LEAST), lost * most)
        rest = missing - found
    return ByteLedger(
        offered=sent.bytes,
        sent=port.tx_bytes if port is not None else sent.wire_bytes,
        received=nic.rx_bytes if nic is not None else None,
        analysed=decoded,
        lost=found,
        unexplained=rest,
        tolerance=tolerance * most,
    )
