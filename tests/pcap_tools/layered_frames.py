"""Frames with addresses beyond one IP header: tunnels, ARP, neighbour discovery, other links."""

from __future__ import annotations

from rewrite_frames import HOME, HOME6, OUTSIDE, OUTSIDE6, eth
from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptRedirectedHdr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

INNER, INNER_OUTSIDE = "192.168.7.9", "8.8.4.4"
INNER6, INNER6_OUTSIDE = "fd00:9::7", "2001:470::9"


def layered() -> dict[str, Packet]:
    """One Ethernet frame a kind."""
    ip, back = IP(src=HOME, dst=OUTSIDE), IP(src=OUTSIDE, dst=HOME)
    ip6 = IPv6(src=HOME6, dst=OUTSIDE6)
    tcp = TCP(sport=40000, dport=80, flags="PA", seq=7, ack=9) / Raw(b"inside")
    inner = IP(src=INNER, dst=INNER_OUTSIDE) / tcp
    inner6 = IPv6(src=INNER6, dst=INNER6_OUTSIDE) / UDP(sport=9, dport=10) / Raw(b"odd")
    bridged = Ether(src="02:00:00:00:00:03", dst="00:11:22:33:44:55")
    gtp = GTP_U_Header(teid=7, gtp_type=255)
    lladdr = ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:01")
    echo = bytes(IPv6(src=OUTSIDE6, dst=HOME6) / UDP(sport=1, dport=2) / Raw(b"redirected pkt.."))
    redirected = ICMPv6NDOptRedirectedHdr(pkt=IPv6(echo))
    return {
        "ipip": eth() / ip / inner,
        "6in4": eth() / IP(src=HOME, dst=OUTSIDE, proto=41) / inner6,
        "4in6": eth() / IPv6(src=HOME6, dst=OUTSIDE6, nh=4) / inner,
        "gre": eth() / ip / GRE() / inner,
        "gre-sum": eth() / ip / GRE(chksum_present=1, key_present=1, key=3) / inner6,
        "gre-bridged": eth() / ip / GRE(proto=0x6558) / bridged / inner,
        "erspan": eth()
        / ip
        / GRE(seqnum_present=1, proto=0x88BE)
        / Raw(bytes(8))
        / bridged
        / inner,
        "vxlan": eth() / ip / UDP(sport=4000, dport=4789) / VXLAN(vni=3) / bridged / inner,
        "vxlan-no-sum": eth()
        / ip
        / UDP(sport=4000, dport=4789, chksum=0)
        / VXLAN(vni=3)
        / bridged
        / Dot1Q(vlan=5)
        / inner6,
        "vxlan6": eth() / ip6 / UDP(sport=4000, dport=4789) / VXLAN(vni=3) / bridged / inner,
        "vxlan-arp": eth()
        / ip
        / UDP(sport=4000, dport=4789)
        / VXLAN(vni=3)
        / bridged
        / ARP(hwsrc="02:00:00:00:00:03", psrc=INNER, pdst="192.168.7.1"),
        "geneve": eth() / ip / UDP(sport=4000, dport=6081) / GENEVE(vni=3) / bridged / inner,
        "gtp-u": eth() / ip / UDP(sport=2152, dport=2152) / gtp / inner,
        "teredo": eth() / ip / UDP(sport=3000, dport=3544) / inner6,
        "deep": eth()
        / ip
        / UDP(sport=4000, dport=4789)
        / VXLAN(vni=3)
        / bridged
        / IP(src=INNER, dst=INNER_OUTSIDE)
        / GRE(chksum_present=1)
        / IP(src="10.44.0.1", dst="10.44.0.2")
        / tcp,
        "tunnel-icmp": eth()
        / back
        / GRE()
        / IP(src=INNER_OUTSIDE, dst=INNER)
        / ICMP(type=3, code=3)
        / Raw(bytes(IP(src=INNER, dst=INNER_OUTSIDE) / UDP(sport=5, dport=6) / Raw(b"x" * 9))),
        "redirect": eth()
        / back
        / ICMP(type=5, code=1, gw="10.1.2.254")
        / Raw(bytes(IP(src=HOME, dst=OUTSIDE) / UDP(sport=5, dport=6) / Raw(b"x" * 9))),
        "arp": eth() / ARP(hwsrc="02:00:00:00:00:01", psrc=HOME, pdst="10.1.2.1"),
        "arp-reply": eth()
        / ARP(
            op=2,
            hwsrc="02:00:00:00:00:02",
            psrc="10.1.2.1",
            hwdst="02:00:00:00:00:01",
            pdst=HOME,
        ),
        "rarp": Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff", type=0x8035)
        / ARP(op=4, psrc=OUTSIDE, pdst=HOME),
        "solicitation": eth()
        / IPv6(src=HOME6, dst="ff02::1:ff00:9", hlim=255)
        / ICMPv6ND_NS(tgt="fd00:1::9")
        / lladdr,
        "advertisement": eth()
        / IPv6(src="fd00:1::9", dst=HOME6, hlim=255)
        / ICMPv6ND_NA(tgt="fd00:1::9")
        / ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:02"),
        "router": eth() / IPv6(src="fe80::1", dst="ff02::1", hlim=255) / ICMPv6ND_RA() / lladdr,
        "redirect6": eth()
        / IPv6(src="fe80::1", dst=HOME6, hlim=255)
        / ICMPv6ND_Redirect(tgt="fd00:1::fe", dst=OUTSIDE6)
        / ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:02")
        / redirected,
        "mpls": eth() / MPLS(label=16, s=0) / MPLS(label=17, s=1) / ip / tcp,
        "pppoe": eth() / PPPoE(sessionid=5) / PPP(proto=0x0057) / ip6 / tcp,
        "qinq-mpls": eth() / Dot1Q(vlan=3) / MPLS(label=17, s=1) / ip6 / tcp,
    }
