"""A small capture whose alerts are known, and the rules that raise them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

RULES = """\
alert http any any -> any any (msg:"T traversal"; flow:established,to_server; http.uri.raw; \
content:"../"; sid:9100001; rev:1;)
alert dns any any -> any any (msg:"T name"; dns.query; content:"evil"; sid:9100002; rev:1;)
alert icmp any any -> any any (msg:"T ping"; itype:8; sid:9100003; rev:1;)
alert ip any any -> any any (msg:"T ping6"; ip_proto:58; sid:9100004; rev:1;)
"""

MAC = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def http_flow(client: str, server: str, port: int, path: str) -> Iterator[Packet]:
    """A whole TCP connection with one request and one answer."""
    layer = IPv6 if ":" in client else IP
    out, back = layer(src=client, dst=server), layer(src=server, dst=client)
    request = f"GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    a, b = {"sport": port, "dport": 80}, {"sport": 80, "dport": port}
    n, m = 101, 501
    yield MAC / out / TCP(flags="S", seq=n - 1, **a)
    yield MAC / back / TCP(flags="SA", seq=m - 1, ack=n, **b)
    yield MAC / out / TCP(flags="A", seq=n, ack=m, **a)
    yield MAC / out / TCP(flags="PA", seq=n, ack=m, **a) / Raw(request)
    n += len(request)
    yield MAC / back / TCP(flags="PA", seq=m, ack=n, **b) / Raw(answer)
    m += len(answer)
    yield MAC / out / TCP(flags="FA", seq=n, ack=m, **a)
    yield MAC / back / TCP(flags="FA", seq=m, ack=n + 1, **b)
    yield MAC / out / TCP(flags="A", seq=n + 1, ack=m + 1, **a)


def write_capture(path: Path) -> int:
    """Write the capture; returns its packets. Due: 3 traversals (1 IPv6), 1 name, 2 pings."""
    packets: list[Packet] = []
    for i in range(6):
        uri = "/a/../../etc/passwd" if i < 2 else "/index.html"
        packets += http_flow(f"10.0.0.{i + 1}", "198.51.100.7", 40000 + i, uri)
    packets += http_flow("2001:db8::1", "2001:db8::80", 41000, "/../x")
    query = DNS(id=7, rd=1, qd=DNSQR(qname="evil.example"))
    packets.append(
        MAC / IP(src="10.0.0.9", dst="198.51.100.53") / UDP(sport=5353, dport=53) / query
    )
    packets.append(
        MAC / IP(src="10.0.0.9", dst="198.51.100.1") / ICMP(id=3, seq=1) / Raw(b"x" * 40)
    )
    packets.append(MAC / IPv6(src="2001:db8::1", dst="2001:db8::2") / ICMPv6EchoRequest(id=4))
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000 + number / 1000
    wrpcap(str(path), packets)
    return len(packets)
