"""Which of a driver's `ethtool -S` counters mean that the NIC lost packets, and why.

Names are the drivers' own; the table says what each counts. A counter that is not here is not
believed to be loss: `rx_dropped` of a driver, for one, may count packets that nobody asked for.
One packet may be in several counters (igb's `rx_fifo_errors` is `rx_missed_errors` and all
`rx_queue_N_drops` together); `packets_lost` counts it once.

Sources (Linux, drivers/net/; the tables of names as they stood in the kernels named):
ethernet/intel/igb/igb_ethtool.c and igb_main.c (igb_update_stats), ethernet/intel/igc/igc_main.c,
ethernet/intel/e1000e/ethtool.c, ethernet/intel/ixgbe/ixgbe_ethtool.c,
ethernet/intel/i40e/i40e_ethtool.c (port.rx_discards; before "Add rx_missed_errors for buffer
exhaustion", 5337d2949733: port.rx_dropped), ethernet/intel/ice/ice_ethtool.c,
ethernet/mellanox/mlx5/core/en_stats.c (q_stats_desc, vnic_env_stats_*, pport_2863_stats_desc,
sw_stats_desc), ethernet/broadcom/bnxt/bnxt_ethtool.c (bnxt_ring_err_stats_arr; before it,
bnxt_sw_func_stats), ethernet/amazon/ena/ena_ethtool.c (ena_stats_eni_strings), virtio_net.c
(virtnet_rq_stats_desc; its "rx_queue_0_drops" is "rx0_drops" in 6.18, with "rx_drops" for all),
veth.c. The names of veth and virtio_net were read on 6.18 here; the others are not verified on real
hardware.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["CAUSES", "NOT_PACKETS", "meaning", "nic_causes", "packets_lost"]

_NO_BUFFER = "the ring had no free descriptor: the host did not empty it in time"
_FIFO = "the NIC's own memory was full: bus, IOMMU or ring too slow"
_BAD = "damaged frame"
_LENGTH = "frame too long or too short"
_MEMORY = "no memory for a receive buffer"
_ALLOWANCE = "the cloud instance's allowance was used up: packets were queued or dropped"

CAUSES: dict[str, str] = {
    "rx_missed_errors": _FIFO,  # igb, igc, e1000e, ixgbe (MPC); i40e: port.rx_discards again
    "rx_fifo_errors": "the NIC's memory or a ring was full",  # igb, igc: all of them again
    "rx_no_buffer_count": _NO_BUFFER,  # igb, e1000e, ixgbe (RNBC); retried by the NIC, see below
    "rx_no_dma_resources": _NO_BUFFER,  # ixgbe (QPRDC)
    "port.rx_dropped": _FIFO,  # i40e, earlier (GLPRT_RDPC)
    "port.rx_discards": _FIFO,  # i40e
    "rx_dropped.nic": _FIFO,  # ice
    "rx_out_of_buffer": _NO_BUFFER,  # mlx5
    "rx_discards_phy": _FIFO,  # mlx5
    "rx_steer_missed_packets": "no steering rule matched",  # mlx5
    "rx_if_down_packets": "the interface was down",  # mlx5
    "rx_oversize_pkts_buffer": "frame larger than its receive buffer",  # mlx5
    "rx_oversize_pkts_sw_drop": "frame larger than its receive buffer",  # mlx5
    "rx_total_ring_discards": _NO_BUFFER,  # bnxt
    "rx_total_discard_pkts": _NO_BUFFER,  # bnxt, earlier
    "rx_total_oom_discards": _MEMORY,  # bnxt
    "rx_drops": _NO_BUFFER,  # virtio_net: all rxN_drops again; ena where it tells
    "rx_xdp_drops": "XDP dropped it",  # virtio_net: all rxN_xdp_drops again
    "rx_hw_drops": _NO_BUFFER,  # virtio_net, told by the device
    "rx_alloc_fail": _MEMORY,  # i40e, ice
    "rx_pg_alloc_fail": _MEMORY,  # i40e, ice
    "rx_buff_alloc_err": _MEMORY,  # mlx5
    "alloc_rx_buff_failed": _MEMORY,  # e1000e, ixgbe
    "alloc_rx_page_failed": _MEMORY,  # ixgbe
    "bw_in_allowance_exceeded": _ALLOWANCE,  # ena
    "pps_allowance_exceeded": _ALLOWANCE,  # ena; of both directions
    "rx_crc_errors": _BAD,  # igb, e1000e, ixgbe, i40e
    "rx_crc_errors_phy": _BAD,  # mlx5
    "port.rx_crc_errors": _BAD,  # i40e: rx_crc_errors again
    "rx_crc_errors.nic": _BAD,  # ice
    "rx_fcs_err_frames": _BAD,  # bnxt
    "rx_length_errors": _LENGTH,
    "rx_long_length_errors": _LENGTH,  # igb, ixgbe: parts of rx_length_errors
    "rx_short_length_errors": _LENGTH,
    "port.rx_length_errors": _LENGTH,  # i40e: rx_length_errors again
    "rx_length_errors.nic": _LENGTH,  # ice
}
_QUEUE = re.compile(r"^rx(?:_queue_)?\d+_(?:xdp_)?drops$")  # igb, veth, virtio_net
_QUEUE_CAUSE = "a queue's descriptors ran out, or XDP dropped it"

# RNBC counts a lack of descriptors; the packet waits in the FIFO, and is lost only when MPC counts
# it (82576 datasheet, 8.18). Alloc failures are retried. An allowance also delays. None of them is
# a packet lost by itself.
NOT_PACKETS = frozenset(
    (
        *("rx_no_buffer_count", "rx_alloc_fail", "rx_pg_alloc_fail", "rx_buff_alloc_err"),
        *("alloc_rx_buff_failed", "alloc_rx_page_failed"),
        *("bw_in_allowance_exceeded", "pps_allowance_exceeded"),
    )
)

# The same packets by several names: of each group the largest alternative counts. "queues" are all
# queue counters together.
_SAME: tuple[tuple[tuple[str, ...], ...], ...] = (
    (
        ("rx_missed_errors", "queues"),
        ("rx_fifo_errors",),
        ("port.rx_discards",),
        ("rx_drops", "rx_xdp_drops"),
    ),
    (("rx_crc_errors",), ("port.rx_crc_errors",)),
    (
        ("rx_long_length_errors", "rx_short_length_errors"),
        ("rx_length_errors",),
        ("port.rx_length_errors",),
    ),
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


def packets_lost(causes: Mapping[str, int]) -> int:
    """Packets that the counters of `nic_causes` say were lost, each counted once."""
    left = {name: n for name, n in causes.items() if name not in NOT_PACKETS}
    queues = [name for name in left if _QUEUE.match(name)]
    if queues:
        left["queues"] = sum(left.pop(name) for name in queues)
    total = 0
    for group in _SAME:
        total += max(sum(left.get(name, 0) for name in names) for names in group)
        for names in group:
            for name in names:
                left.pop(name, None)
    return total + sum(left.values())


def meaning(name: str) -> str:
    """What a counter of `nic_causes` counts."""
    return CAUSES.get(name, _QUEUE_CAUSE)
