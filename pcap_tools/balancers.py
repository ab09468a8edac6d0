"""Who chooses a packet's worker, and how: the load balancers whose effect on a replay is predicted.

A balancer turns `Tuples` into worker numbers. Those with a random key (drawn when the machine or
the sensor starts) are asked for one key after the other: about them only a distribution is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from pcap_tools import hashes
from pcap_tools.errors import PcapError
from pcap_tools.hashes import Tuples
from pcap_tools.kernels import I64, U32, U64

__all__ = ["BALANCERS", "Balancer", "Chooser", "pick"]

Chooser = Callable[[int], I64]
"""Worker of each row, for the key of this number (0 for those without a random key)."""

XDP_SEED = 15485863  # INITVAL of Suricata's ebpf/xdp_lb.c


@dataclass(frozen=True, slots=True)
class Balancer:
    """A way to spread packets over workers.

    `prepare(tuples, workers)` does what does not depend on the key and gives a Chooser. `keyed`:
    the key is random, so results are statistical. `symmetric`: both directions of a flow go to one
    worker. `per_packet`: the choice ignores flows, and `prepare` is None.
    """

    name: str
    used_by: str
    source: str
    prepare: Callable[[Tuples, int], Chooser] | None
    keyed: bool = False
    symmetric: bool = True

    @property
    def per_packet(self) -> bool:
        """Whether each packet is sent to a worker of its own, whatever flow it is of."""
        return self.prepare is None


def _modulo(value: U32, workers: int) -> Chooser:
    chosen = (value % np.uint32(workers)).astype(np.int64)
    return lambda _: chosen


def _pf_ring(ports: bool, proto: bool) -> Callable[[Tuples, int], Chooser]:
    return lambda tuples, workers: _modulo(hashes.pf_ring_sum(tuples, ports, proto), workers)


def _ippair(tuples: Tuples, workers: int) -> Chooser:
    return _modulo(hashes.network_sum(tuples), workers)


def _ebpf_lb(tuples: Tuples, workers: int) -> Chooser:
    return _modulo(hashes.ebpf_sum(tuples), workers)


def _xdp_lb(tuples: Tuples, workers: int) -> Chooser:
    return _modulo(hashes.super_fast_hash(hashes.network_sum(tuples), XDP_SEED), workers)


def _rss(key: bytes, size: int) -> Callable[[Tuples, int], Chooser]:
    table = hashes.toeplitz_table(key)

    def prepare(tuples: Tuples, workers: int) -> Chooser:
        # `ethtool -X IF equal n` fills the indirection table in turn.
        entry = hashes.toeplitz(tuples, table) & np.uint32(size - 1)
        return _modulo(entry, workers)

    return prepare


@cache
def _keys(number: int) -> U64:
    return np.random.default_rng((0x5EED, number)).integers(0, 1 << 63, 2, dtype=np.uint64)


def _fanout(tuples: Tuples, workers: int) -> Chooser:
    words = hashes.flow_keys(tuples)
    value = np.empty(len(tuples), np.uint64)

    def choose(number: int) -> I64:
        key0, key1 = _keys(number)
        hashes.siphash(words, key0, key1, 2, 4, value)
        # The hash is the lower half; 0 becomes 1; reciprocal_scale, not modulo.
        lower = np.maximum(value & np.uint64(0xFFFFFFFF), np.uint64(1))
        return np.asarray((lower * np.uint64(workers)) >> np.uint64(32), np.int64)

    return choose


def _autofp(tuples: Tuples, workers: int) -> Chooser:
    words = hashes.suricata_key(tuples)
    value = np.empty(len(tuples), np.uint32)

    def choose(number: int) -> I64:
        hashes.hashword(words, int(_keys(number)[0]) & 0xFFFFFFFF, value)
        return (value % np.uint32(workers)).astype(np.int64)

    return choose


_PF_RING = "PF_RING kernel/pf_ring.c: hash_pkt, hash_pkt_cluster; % workers"
_RSS = "Microsoft NDIS, RSS hashing functions; indirection table of {}"

BALANCERS: dict[str, Balancer] = {
    balancer.name: balancer
    for balancer in (
        Balancer(
            "af_packet-hash",
            "Suricata cluster_flow, Zeek AF_Packet, Snort (libdaq fanout hash)",
            "Linux net/packet/af_packet.c: fanout_demux_hash; net/core/flow_dissector.c: "
            "__skb_get_hash_symmetric",
            _fanout,
            keyed=True,
        ),
        Balancer(
            "autofp-hash",
            "Suricata runmode autofp (default scheduler)",
            "Suricata src/tmqh-flow.c: TmqhOutputFlowHash; src/flow-hash.c: FlowGetHash",
            _autofp,
            keyed=True,
        ),
        Balancer(
            "autofp-ippair",
            "Suricata runmode autofp, autofp-scheduler: ippair",
            "Suricata src/tmqh-flow.c: TmqhOutputFlowIPPair",
            _ippair,
        ),
        Balancer(
            "pf_ring-2tuple", "PF_RING cluster_per_flow_2_tuple", _PF_RING, _pf_ring(False, False)
        ),
        Balancer(
            "pf_ring-4tuple",
            "PF_RING cluster_per_flow_4_tuple (Zeek's default)",
            _PF_RING,
            _pf_ring(True, False),
        ),
        Balancer(
            "pf_ring-5tuple",
            "PF_RING cluster_per_flow, _5_tuple (Suricata cluster_flow)",
            _PF_RING,
            _pf_ring(True, True),
        ),
        Balancer(
            "ebpf-lb",
            "Suricata AF_PACKET, cluster_ebpf with lb.bpf",
            "Suricata ebpf/lb.c: ipv4_hash, ipv6_hash; % workers in the kernel",
            _ebpf_lb,
        ),
        Balancer(
            "xdp-lb",
            "Suricata AF_PACKET, xdp_lb.bpf and cluster_cpu",
            "Suricata ebpf/xdp_lb.c: hash_ipv4, hash_ipv6; ebpf/hash_func01.h: SuperFastHash",
            _xdp_lb,
        ),
        *(
            Balancer(
                f"rss-{label}-{size}",
                f"cluster_qm, DPDK, fanout cpu/qm; {text}, table {size}",
                _RSS.format(size),
                _rss(key, size),
                symmetric=symmetric,
            )
            for label, text, key, symmetric in (
                ("microsoft", "Microsoft's key", hashes.MICROSOFT_KEY, False),
                ("6d5a", "key 6D:5A:…", hashes.SYMMETRIC_KEY, True),
            )
            for size in (128, 512)
        ),
        Balancer(
            "af_packet-lb",
            "Snort libdaq fanout_type lb or rnd; AF_PACKET round-robin",
            "Linux net/packet/af_packet.c: fanout_demux_lb, fanout_demux_rnd",
            None,
        ),
    )
}
"""Every balancer by its name."""


def pick(names: list[str] | None) -> tuple[Balancer, ...]:
    """The balancers of these names, or all. Raises PcapError for an unknown name."""
    for name in names or ():
        if name not in BALANCERS:
            raise PcapError(f"unknown balancer {name!r}; the balancers are {', '.join(BALANCERS)}")
    return tuple(BALANCERS[name] for name in names) if names else tuple(BALANCERS.values())
