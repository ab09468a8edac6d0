"""Parsers of the preflight, on output of real drivers; each text says where it is from."""

from __future__ import annotations

import pytest

from lab.preflight import parse_ethtool as ethtool
from lab.preflight import parse_system as system
from lab.preflight.facts import Channels, Rings, Rss

# Intel 10GE with its defaults; ESnet, fasterdata.es.net/host-tuning/nic-tuning.
RINGS_IXGBE = """\
Ring parameters for eth2:
Pre-set maximums:
RX:         4096
RX Mini:    0
RX Jumbo:    0
TX:         4096
Current hardware settings:
RX:        256
RX Mini:     0
RX Jumbo:    0
TX:        256
"""

# virtio_net on Linux 6.18, ethtool 6.1 by netlink: what a driver does not have is "n/a".
RINGS_VIRTIO = """\
Ring parameters for eth0:
Pre-set maximums:
RX:\t\t256
RX Mini:\tn/a
RX Jumbo:\tn/a
TX:\t\t256
Current hardware settings:
RX:\t\t256
RX Mini:\tn/a
RX Jumbo:\tn/a
TX:\t\t256
RX Buf Len:\t\tn/a
CQE Size:\t\tn/a
TX Push:\toff
TCP data split:\tn/a
"""

# sfc, Solarflare X2; github.com/Xilinx-CNS/onload issue 208 (there the key reads as zeros).
CHANNELS_SFC = """\
Channel parameters for enp2s0f0:
Pre-set maximums:
RX:             n/a
TX:             n/a
Other:          1
Combined:       31
Current hardware settings:
RX:             n/a
TX:             n/a
Other:          1
Combined:       4
"""
RSS_SFC = """\
RX flow hash indirection table for enp2s0f0 with 4 RX ring(s):
    0:      0     0     0     0     0     0     0     0
    8:      0     0     0     0     0     0     0     0
RSS hash key:
00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00
RSS hash function:
    toeplitz: on
    xor: off
    crc32: off
"""

# veth on Linux 6.18: queues of one direction each.
CHANNELS_VETH = """\
Channel parameters for va:
Pre-set maximums:
RX:\t\t2
TX:\t\t2
Other:\t\tn/a
Combined:\tn/a
Current hardware settings:
RX:\t\t1
TX:\t\t1
Other:\t\tn/a
Combined:\tn/a
"""

# Intel 82599ES (ixgbe): 63 rings, of which RSS can use 16; intel-wired-lan, January 2025.
RSS_82599 = """\
RX flow hash indirection table for eno5 with 63 RX ring(s):
    0:      0     1     2     3     4     5     6     7
    8:      8     9    10    11    12    13    14    15
   16:      0     1     2     3     4     5     6     7
   24:      8     9    10    11    12    13    14    15
RSS hash key:
Operation not supported
RSS hash function:
    toeplitz: on
    xor: off
    crc32: off
"""

# Linux, Documentation/admin-guide/sysctl/net.rst: a random key as most drivers draw one.
RSS_RANDOM = """\
RX flow hash indirection table for eth0 with 8 RX ring(s):
    0:      0     1     2     3     4     5     6     7
RSS hash key:
84:50:f4:00:a8:15:d1:a7:e9:7f:1d:60:35:c7:47:25:42:97:74:ca:56:bb:b6:a1:d8:43:e3:c9:0c:fd:17:55:c2:3a:4d:69:ed:f1:42:89
RSS hash function:
    toeplitz: on
    xor: off
    crc32: off
"""

# virtio_net: no table, no key.
RSS_VIRTIO = """\
RX flow hash indirection table for eth0 with 1 RX ring(s):
Operation not supported
RSS hash key:
Operation not supported
RSS hash function:
    toeplitz: on
    xor: off
    crc32: off
"""

# i40e; github.com/ntop/PF_RING issue 780.
DRIVER_I40E = """\
driver: i40e
version: 2.17.4
firmware-version: 7.00 0x80005028 0.385.144
expansion-rom-version:
bus-info: 0000:19:00.0
supports-statistics: yes
"""

# mlx5; github.com/isc-projects/ethq issue 8.
DRIVER_MLX5 = """\
driver: mlx5_core
version: 5.0-0
firmware-version: 14.23.1020 (MT_2420110034)
expansion-rom-version:
bus-info: 0000:af:00.0
supports-statistics: yes
"""

# A router's driver on Linux 3.18; github.com/tohojo/sqm-scripts issue 11 (excerpt).
FEATURES_OLD = """\
Features for eth1:
rx-checksumming: off [fixed]
tx-checksumming: off
\ttx-checksum-ipv4: off [fixed]
generic-segmentation-offload: off [requested on]
generic-receive-offload: on
large-receive-offload: off [fixed]
rx-vlan-offload: off [fixed]
"""


class TestEthtool:
    """Each option's output as values."""

    def test_rings(self) -> None:
        assert ethtool.rings(RINGS_IXGBE) == Rings(256, 4096, 256, 4096)
        assert ethtool.rings(RINGS_VIRTIO) == Rings(256, 256, 256, 256)
        assert ethtool.rings("netlink error: Operation not supported\n") is None

    def test_channels(self) -> None:
        assert ethtool.channels(CHANNELS_SFC) == Channels(4, 31)
        assert ethtool.channels(CHANNELS_VETH) == Channels(1, 2)
        assert ethtool.channels("netlink error: Operation not supported\n") is None

    def test_rss_of_an_82599(self) -> None:
        found = ethtool.rss(RSS_82599)
        assert found is not None and (found.queues, found.function) == (63, "toeplitz")
        assert found.table == tuple(range(16)) * 2
        assert found.key is None and found.symmetric is None

    def test_rss_keys(self) -> None:
        random, zero = ethtool.rss(RSS_RANDOM), ethtool.rss(RSS_SFC)
        assert random is not None and random.key is not None and len(random.key) == 40
        assert random.key[:2] == b"\x84\x50" and random.symmetric is False
        assert zero is not None and zero.key == bytes(40) and set(zero.table) == {0}
        nothing = ethtool.rss(RSS_VIRTIO)
        assert nothing == Rss(1, (), None, "toeplitz")
        assert ethtool.rss("Cannot get RX ring count: Operation not supported\n") is None

    def test_symmetry_is_a_period_of_16_bits(self) -> None:
        symmetric = RSS_RANDOM.replace(RSS_RANDOM.splitlines()[3], ":".join(["6d:5a"] * 20))
        found = ethtool.rss(symmetric)
        assert found is not None and found.symmetric is True
        newer = RSS_RANDOM + "RSS input transformation:\n    symmetric-xor: on\n"
        other = ethtool.rss(newer)
        assert other is not None and other.symmetric is True
        assert Rss(4, (), bytes(40), "crc32").symmetric is None

    def test_driver(self) -> None:
        assert ethtool.driver(DRIVER_I40E)["firmware-version"] == "7.00 0x80005028 0.385.144"
        assert ethtool.driver(DRIVER_MLX5)["driver"] == "mlx5_core"
        assert "expansion-rom-version" not in ethtool.driver(DRIVER_MLX5)

    def test_features(self) -> None:
        found = ethtool.features(FEATURES_OLD)
        assert found is not None
        assert found["generic-receive-offload"] and not found["large-receive-offload"]
        assert not found["generic-segmentation-offload"] and not found["tx-checksum-ipv4"]
        assert ethtool.features("") is None

    def test_pause(self) -> None:
        text = "Pause parameters for eth0:\nAutonegotiate:\toff\nRX:\t\ton\nTX:\t\toff\n"
        assert ethtool.pause(text) == (True, False)
        assert ethtool.pause("netlink error: Operation not supported\n") is None


class TestSystem:
    """/proc, /sys, ip and tc."""

    @pytest.mark.parametrize(
        ("text", "cpus"),
        [("0-3,8", {0, 1, 2, 3, 8}), ("0-10:4", {0, 4, 8}), ("5\n", {5}), ("", set())],
    )
    def test_cpu_lists(self, text: str, cpus: set[int]) -> None:
        assert system.cpu_list(text) == cpus

    def test_capture_sockets(self) -> None:
        # Of Linux 6.18 with a Suricata of two threads on interface 3 and a DHCP client on 2.
        text = (
            "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"
            "0000000000000000 3      3    0003   3     1 0      0      94021\n"
            "0000000000000000 3      3    0003   3     1 0      0      94022\n"
            "0000000000000000 3      3    0003   3     0 0      0      94023\n"
            "0000000000000000 3      2    0800   2     1 0      0      18023\n"
        )
        assert (system.captures(text, 3), system.captures(text, 2)) == (2, 1)
        assert system.captures(text, 9) == 0

    def test_flags(self) -> None:
        assert system.link_flags("0x1103\n") is True
        assert system.link_flags("0x1003\n") is False
        assert system.link_flags("") is None

    def test_qdiscs(self) -> None:
        assert system.qdiscs('[{"kind":"tbf","handle":"8001:","root":true}]') == ("tbf",)
        assert system.qdiscs("[]") == ()
        assert system.qdiscs("not json") is None

    def test_xdp(self) -> None:
        attached = '[{"ifname":"x","xdp":{"mode":2,"prog":{"id":41}}}]'
        assert system.xdp(attached) is True
        assert system.xdp('[{"ifname":"x"}]') is False
        assert system.xdp("") is None

    def test_swap(self) -> None:
        assert system.swap("SwapTotal: 100 kB\nSwapFree: 40 kB\n") == (61440, 102400)
        assert system.swap("MemTotal: 1 kB\n") is None

    def test_busy_is_what_was_neither_idle_nor_waiting(self) -> None:
        before = "cpu  100 0 100 1000 50 0 0 0 0 0\ncpu0 1 1\n"
        after = "cpu  130 0 110 1050 60 0 0 0 0 0\n"
        assert system.cpu_busy(before, after) == pytest.approx(0.4)
        assert system.cpu_busy("", after) is None
        assert system.cpu_busy(before, before) is None
