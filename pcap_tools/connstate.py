"""Zeek's conn_state from the two endpoints' states."""

from __future__ import annotations

from pcap_tools.kernels import U8, inner, kernel
from pcap_tools.packet import Row
from pcap_tools.walk import Word

__all__ = ["MEANINGS", "STATES", "conn_states"]

MEANINGS = {
    "S0": "the client's SYN was never answered",
    "S1": "established, not terminated",
    "SF": "established and terminated by both; UDP: both ends sent",
    "REJ": "the SYN was answered by a reset",
    "S2": "established, closed by the client only",
    "S3": "established, closed by the server only",
    "RSTO": "established, reset by the client",
    "RSTR": "established, reset by the server",
    "RSTOS0": "SYN, then a reset, both by the client",
    "RSTRH": "SYN-ACK, then a reset, both by the server",
    "SH": "SYN, then a FIN, both by the client",
    "SHR": "SYN-ACK, then a FIN, both by the server; UDP: only the server sent",
    "OTH": "anything else: no SYN seen, other protocols",
}
"""conn_state: what it means."""

STATES = tuple(MEANINGS)
"""The names, in the order of the codes that `conn_states` returns."""

_TCP = 6
_UDP = 17
_UDPLITE = 136

_INACTIVE = 0
_SYN_SENT = 1
_SYN_ACK_SENT = 2
_PARTIAL = 3
_ESTABLISHED = 4
_CLOSED = 5
_RESET = 6

(_S0, _S1, _SF, _REJ, _S2, _S3, _RSTO, _RSTR, _RSTOS0, _RSTRH, _SH, _SHR, _OTH) = range(13)


@kernel
def conn_states(flows: Row, codes: U8) -> None:
    """Fill `codes` (one a flow) with indices into STATES.

    The decision function is conn_state() of Zeek's scripts/base/protocols/conn/main.zeek; ICMP
    and others are OTH there too.
    """
    for i in range(len(flows)):
        flow = flows[i]
        if flow.proto == _TCP:
            codes[i] = _tcp_state(flow)
        elif flow.proto == _UDP or flow.proto == _UDPLITE:
            if flow.packets[0] > 0:
                codes[i] = _SF if flow.packets[1] > 0 else _S0
            else:
                codes[i] = _SHR
        else:
            codes[i] = _OTH


@inner
def _tcp_state(flow: Row) -> Word:
    client = flow.state[0]
    server = flow.state[1]
    client_silent = client in (_INACTIVE, _PARTIAL)
    server_silent = server in (_INACTIVE, _PARTIAL)
    if server == _RESET:
        empty = not flow.sized[0] and not flow.sized[1]
        if client in (_SYN_SENT, _SYN_ACK_SENT) or (client == _RESET and empty):
            return _REJ
        return _RSTRH if client_silent else _RSTR
    if client == _RESET:
        if server_silent:
            return _RSTOS0 if flow.rstos0 else _OTH
        return _RSTO
    if client == _CLOSED and server == _CLOSED:
        return _SF
    if client == _CLOSED:
        return _SH if server_silent else _S2
    if server == _CLOSED:
        return _SHR if client_silent else _S3
    if client == _SYN_SENT and server == _INACTIVE:
        return _S0
    if client == _ESTABLISHED and server == _ESTABLISHED:
        return _S1
    return _OTH
