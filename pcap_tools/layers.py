"""Where the next header is: link layers, what stands between them and IP, and tunnels.

Link layers: Ethernet, Linux cooked (both), raw IP, BSD loopback. Between: VLAN tags (IEEE 802.1Q,
802.1ad), MPLS labels (RFC 3032), PPPoE sessions (RFC 2516). Tunnels: IP in IP (RFC 2003, RFC 4213,
RFC 2473), GRE (RFC 2784, RFC 2890) with IP, MPLS, Ethernet or ERSPAN (I, II and III,
draft-foschiano-erspan) inside, VXLAN (RFC 7348), Geneve (RFC 8926), GTP-U (3GPP TS 29.281) and
Teredo (RFC 4380). UDP tunnels are known by their ports, and believed when an IP header with
matching checksum and length follows (`analyse`).

All places are offsets from the frame's first byte; kinds are EtherTypes.
"""

from __future__ import annotations

from pcap_tools.kernels import as_int, inner, load16, load_u8, swap16

__all__ = [
    "ARP",
    "BRIDGED",
    "COOKED",
    "COOKED2",
    "ETHERNET",
    "IP4",
    "IP6",
    "RARP",
    "big16",
    "inside",
    "link_layer",
    "may_hold_more",
    "past_tags",
    "upper6",
]

NULL, ETHERNET, RAW12, RAW, LOOP = 0, 1, 12, 101, 108
RAW4, RAW6, COOKED, COOKED2 = 228, 229, 113, 276

IP4, IP6, ARP, RARP = 0x0800, 0x86DD, 0x0806, 0x8035
BRIDGED = 0x6558  # a whole Ethernet frame (RFC 1701)
_MPLS, _MPLS_UPSTREAM, _PPPOE = 0x8847, 0x8848, 0x8864
_ERSPAN, _ERSPAN3 = 0x88BE, 0x22EB

_ICMP, _IP_IN_IP, _UDP, _SIX_IN_IP, _GRE, _ICMP6 = 1, 4, 17, 41, 47, 58
_VXLAN, _VXLAN_LINUX, _GENEVE, _GTP_U, _TEREDO = 4789, 8472, 6081, 2152, 3544


@inner
def big16(address: int) -> int:
    """The 16-bit number in network order at a memory address."""
    return as_int(swap16(load16(address)))


@inner
def _by_version(frame: int, size: int, offset: int) -> int:
    if offset >= size:
        return 0
    version = as_int(load_u8(frame + offset)) >> 4
    return IP4 if version == 4 else (IP6 if version == 6 else 0)


@inner
def past_tags(frame: int, size: int, kind: int, offset: int) -> tuple[int, int]:
    """EtherType and offset behind VLAN tags, MPLS labels and a PPPoE session header."""
    for _ in range(16):
        if kind == 0x8100 or kind == 0x88A8 or kind == 0x9100 or kind == 0x9200:
            if offset + 4 > size:
                return 0, offset
            kind = big16(frame + offset + 2)
            offset += 4
        elif kind in (_MPLS, _MPLS_UPSTREAM):
            if offset + 4 > size:
                return 0, offset
            last = load_u8(frame + offset + 2) & 1
            offset += 4
            if last:
                return _by_version(frame, size, offset), offset
        elif kind == _PPPOE:
            if offset + 8 > size:
                return 0, offset
            protocol = big16(frame + offset + 6)
            kind = IP4 if protocol == 0x0021 else (IP6 if protocol == 0x0057 else 0)
            return kind, offset + 8
        else:
            return kind, offset
    return 0, offset


@inner
def link_layer(frame: int, size: int, link: int) -> tuple[int, int]:
    """EtherType (0: none that matters) and offset of what the link layer carries."""
    if link == ETHERNET:
        if size < 14:
            return 0, 0
        return past_tags(frame, size, big16(frame + 12), as_int(14))
    if link == COOKED:
        if size < 16:
            return 0, 0
        return past_tags(frame, size, big16(frame + 14), as_int(16))
    if link == COOKED2:
        if size < 20:
            return 0, 0
        return past_tags(frame, size, big16(frame), as_int(20))
    if link in (NULL, LOOP):  # the address family's number depends on the system: ask the version
        return _by_version(frame, size, as_int(4)), 4
    return _by_version(frame, size, as_int(0)), 0


@inner
def upper6(frame: int, offset: int, end: int) -> tuple[int, int, int, int, int]:
    """Walk the extension headers of the IPv6 packet at `offset` (RFC 8200).

    Returns (protocol or −1, its offset, fragment: 0 none, 1 first, 2 later, routed, offset of the
    fragment's identification or 0). `routed`: a routing header has segments left, so that the
    pseudo-header takes the last hop and not the header's destination.
    """
    protocol = as_int(load_u8(frame + offset + 6))
    place = offset + 40
    fragment = 0
    routed = 0
    train = 0
    for _ in range(16):
        if protocol not in (0, 43, 44, 51, 60, 135):
            break
        if place + 8 > end:
            return -1, place, fragment, routed, train
        if protocol == 44:
            train = place + 4
            field = big16(frame + place + 2)
            if field & 0xFFF8:
                return -1, place, 2, routed, train
            if field & 1:
                fragment = 1
            step = 8
        else:
            length = as_int(load_u8(frame + place + 1))
            if protocol == 43 and load_u8(frame + place + 3) != 0:
                routed = 1
            step = (length + 2) * 4 if protocol == 51 else (length + 1) * 8
        protocol = as_int(load_u8(frame + place))
        place += step
    return protocol, place, fragment, routed, train


@inner
def inside(frame: int, protocol: int, place: int, end: int) -> tuple[int, int, int]:
    """What a transport header at `place` carries, when it is a tunnel's.

    Returns (EtherType, 0 for no tunnel; offset of the inner header; offset of GRE's own checksum,
    0 for none).
    """
    if protocol == _IP_IN_IP:
        return IP4, place, 0
    if protocol == _SIX_IN_IP:
        return IP6, place, 0
    if protocol == _GRE:
        return _gre(frame, place, end)
    if protocol == _UDP and place + 16 <= end:
        source, target = big16(frame + place), big16(frame + place + 2)
        body = place + 8
        if target in (_VXLAN, _VXLAN_LINUX):
            if load_u8(frame + body) & 0x08 and body + 8 <= end:
                return BRIDGED, body + 8, 0
        elif target == _GENEVE:
            header = 8 + (as_int(load_u8(frame + body)) & 0x3F) * 4
            if as_int(load_u8(frame + body)) >> 6 == 0:
                return big16(frame + body + 2), body + header, 0
        elif target == _GTP_U or source == _GTP_U:
            offset = _gtp(frame, body, end)
            if offset:
                return _by_version(frame, end, offset), offset, 0
        elif target == _TEREDO or source == _TEREDO:
            offset = body
            if big16(frame + offset) == 1 and offset + 4 <= end:  # authentication
                offset += 13
                offset += as_int(load_u8(frame + body + 2)) + as_int(load_u8(frame + body + 3))
            if offset + 8 <= end and big16(frame + offset) == 0:  # origin indication
                offset += 8
            if not (offset - place) & 1:  # an odd one would shift the checksum's words
                kind = _by_version(frame, end, offset)
                return (kind if kind == IP6 else 0), offset, 0
    return 0, 0, 0


@inner
def may_hold_more(frame: int, protocol: int, place: int, end: int) -> bool:
    """True when a packet may have addresses behind its IP header: ICMP, or a tunnel's ports."""
    if protocol in (_ICMP, _ICMP6, _GRE):
        return True
    if protocol in (_IP_IN_IP, _SIX_IN_IP):
        return True
    if protocol != _UDP or place + 16 > end:
        return False
    source, target = big16(frame + place), big16(frame + place + 2)
    if source in (_GTP_U, _TEREDO) or target in (_GTP_U, _TEREDO):
        return True
    return target in (_VXLAN, _VXLAN_LINUX, _GENEVE)


@inner
def _gre(frame: int, place: int, end: int) -> tuple[int, int, int]:
    if place + 4 > end:
        return 0, 0, 0
    flags, kind = big16(frame + place), big16(frame + place + 2)
    if flags & 0x4007:  # routing (deprecated), or another version
        return 0, 0, 0
    offset = place + 4
    checksum = 0
    if flags & 0x8000:
        checksum = offset
        offset += 4
    if flags & 0x2000:
        offset += 4
    if flags & 0x1000:
        offset += 4
    if kind == _ERSPAN:
        return BRIDGED, offset + (8 if flags & 0x1000 else 0), checksum
    if kind == _ERSPAN3:
        if offset + 12 > end:
            return 0, 0, 0
        return BRIDGED, offset + (20 if load_u8(frame + offset + 11) & 1 else 12), checksum
    kind, offset = past_tags(frame, end, kind, offset)
    return kind, offset, checksum


@inner
def _gtp(frame: int, body: int, end: int) -> int:
    """Offset of the user packet in GTP-U, 0 for other messages."""
    flags = as_int(load_u8(frame + body))
    if flags & 0xF0 != 0x30 or load_u8(frame + body + 1) != 255:
        return 0
    offset = body + 8
    if flags & 7:
        if offset + 4 > end:
            return 0
        following = as_int(load_u8(frame + offset + 3)) if flags & 4 else 0
        offset += 4
        for _ in range(8):
            if not following:
                break
            if offset + 4 > end:
                return 0
            step = as_int(load_u8(frame + offset)) * 4
            if step == 0 or offset + step > end:
                return 0
            following = as_int(load_u8(frame + offset + step - 1))
            offset += step
    return offset
