"""Which of a driver's `ethtool -S` counters mean that the NIC lost packets, and why.

Names are the drivers' own; the table says what each counts. A counter that is not here is not
believed to be loss: `rx_dropped` of a driver, for one, may count packets that nobody asked for.
Queue counters that sum to a device counter are left out, so that nothing is counted twice.

Sources (driver sources in Linux, drivers/net/ethernet/): intel/igb/igb_ethtool.c,
intel/e1000e/ethtool.c, intel/ixgbe/ixgbe_ethtool.c, intel/i40e/i40e_ethtool.c,
intel/ice/ice_ethtool.c, mellanox/mlx5/core/en_stats.c, broadcom/bnxt/bnxt_ethtool.c,
amazon/ena/ena_ethtool.c, virtio_net.c, veth.c. Only veth and virtio_net were run here; the others
are not verified on real hardware.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["CAUSES", "nic_causes"]

_NO_BUFFER = "the ring had no free descriptor: the host did not empty it in time"
_FIFO = "the NIC's own memory was full: bus, IOMMU or ring too slow"
_BAD = "damaged frame"

CAUSES: dict[str, str] = {
    "rx_missed_errors": _FIFO,  # igb, e1000e, ixgbe (MPC): no room in the packet buffer
    "rx_fifo_errors": _FIFO,  # igb, ixgbe
    "rx_no_buffer_count": _NO_BUFFER,  # igb, e1000e (RNBC); retried by the NIC, see below
    "rx_no_dma_resources": _NO_BUFFER,  # ixgbe (QPRDC)
    "port.rx_dropped": _FIFO,  # i40e, ice (GLPRT_RDPC)
    "port.rx_discards": _FIFO,  # i40e
    "rx_dropped.nic": _FIFO,  # ice
    "rx_out_of_buffer": _NO_BUFFER,  # mlx5
    "rx_discards_phy": _FIFO,  # mlx5
    "rx_steer_missed_packets": "no steering rule matched",  # mlx5
    "rx_total_discards": _NO_BUFFER,  # bnxt
    "rx_drops": _NO_BUFFER,  # ena, virtio_net per device
    "rx_alloc_fail": "no memory for a receive buffer",  # i40e
    "alloc_rx_buff_failed": "no memory for a receive buffer",  # e1000e
    "alloc_rx_page_failed": "no memory for a receive buffer",  # ixgbe
    "rx_crc_errors": _BAD,  # igb, e1000e, ixgbe
    "rx_crc_errors_phy": _BAD,  # mlx5
    "port.rx_crc_errors": _BAD,  # i40e
    "rx_length_errors": _BAD,
}
_QUEUE = re.compile(r"^rx_queue_\d+_(?:xdp_)?drops$")
_QUEUE_CAUSE = "a queue's descriptors ran out, or XDP dropped it"

# RNBC counts a lack of descriptors; the packet waits in the FIFO, and is lost only when MPC counts
# it (82576 datasheet, 8.18). Alloc failures are retried. Neither is a packet lost by itself.
NOT_PACKETS = frozenset(
    ("rx_no_buffer_count", "rx_alloc_fail", "alloc_rx_buff_failed", "alloc_rx_page_failed")
)


def nic_causes(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Growth of the drop counters of an interface between two readings, by counter name.

    Readings have the names of `HostReading.interface` ("ethtool.<name>" for the driver's own).
    Counters that did not grow are left out.
    """
    grown: dict[str, int] = {}
    for key, value in after.items():
        if not key.startswith("ethtool."):
            continue
        name = key.removeprefix("ethtool.")
        if name in CAUSES or _QUEUE.match(name):
            more = value - before.get(key, 0)
            if more > 0:
                grown[name] = more
    return grown


def meaning(name: str) -> str:
    """What a counter of `nic_causes` counts."""
    return CAUSES.get(name, _QUEUE_CAUSE)
