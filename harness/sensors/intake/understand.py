"""From a message to an `Alert`.

A signature's number is its own where it has one (also as generator:id:revision). One that has only
a name gets 2^52 plus the first 52 bits of the name's SHA-256: the same in every run and on every
machine, exact in JSON, and larger than any number of a rule.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from harness.model import Alert
from harness.sensors.eve import parse_alert
from harness.sensors.intake import cef, syslog
from harness.sensors.intake.options import IntakeOptions

__all__ = ["endpoint", "protocol", "signature_number", "understanding"]

_NUMBERED = re.compile(r"(?:\d+:)?(\d{1,15})(?::\d+)?")
_PROTOCOLS = {
    "1": "ICMP", "6": "TCP", "17": "UDP", "58": "IPv6-ICMP", "132": "SCTP",
    "ICMP6": "IPv6-ICMP", "ICMPV6": "IPv6-ICMP", "IPV6-ICMP": "IPv6-ICMP",
}  # fmt: skip
_WITH_PORTS = ("TCP", "UDP", "SCTP")
# The keys of CEF's dictionary, IPv6 addresses after the first of each.
_CEF = {
    "src": ("src", "c6a2", "sourceAddress"), "dst": ("dst", "c6a3", "destinationAddress"),
    "src_port": ("spt", "sourcePort"), "dst_port": ("dpt", "destinationPort"),
    "proto": ("proto", "transportProtocol"),
}  # fmt: skip


def signature_number(text: str) -> int:
    """The number of a signature, or one made of its name (see above)."""
    text = text.strip()
    if numbered := _NUMBERED.fullmatch(text):
        return int(numbered[1])
    return 2**52 + (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 12)


def protocol(text: str) -> str:
    """A protocol's name as EVE has it, from a name or a number."""
    upper = text.strip().upper()
    return _PROTOCOLS.get(upper, upper)


def endpoint(text: str, port: str | None, proto: str) -> tuple[str, int]:
    """Address and port of one end; `text` may carry the port. Ports are 0 where there are none.

    Raises ValueError for what is no address.
    """
    text = text.strip()
    if port is None:
        address, port = _split(text, proto)
    else:
        address = text.strip("[]")
    ipaddress.ip_address(address)
    return address, int(port or 0) if proto in _WITH_PORTS else 0


def _split(text: str, proto: str) -> tuple[str, str]:
    """`192.0.2.1:80`, `[2001:db8::1]:80`, and IPv6 with a colon too many."""
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        return address, rest.lstrip(":")
    address, colon, port = text.rpartition(":")
    if not colon or ("." in address and ":" not in address):
        return (address, port) if colon else (text, "")
    if proto not in _WITH_PORTS:
        try:
            ipaddress.IPv6Address(text)
        except ValueError:
            return address, port  # type and code of ICMP in the place of ports
        return text, ""
    return address, port


def _alert(found: Mapping[str, str | None], timestamp: str) -> Alert:
    """Raises ValueError when a field makes no sense."""
    proto = protocol(found.get("proto") or "")
    src, src_port = endpoint(found.get("src") or "", found.get("src_port"), proto)
    dst, dst_port = endpoint(found.get("dst") or "", found.get("dst_port"), proto)
    signature = (found.get("signature") or "").strip()
    number = signature_number(found.get("signature_id") or signature)
    return Alert(timestamp, proto, src, src_port, dst, dst_port, number, signature)


def understanding(options: IntakeOptions) -> Callable[[str, float], Alert | None]:
    """A function from (message, time of arrival in s since the epoch) to its alert.

    It gives None for a message that is no alert, or one whose fields make no sense.
    """
    pattern = re.compile(options.pattern)
    own: dict[str, str] = {str(name): key for name, key in options.fields.items()}
    keys = {name: (own.get(name), *known) for name, known in _CEF.items()}

    def by_pattern(text: str, timestamp: str) -> Alert | None:
        found = pattern.search(text)
        return None if found is None else _alert(found.groupdict(), timestamp)

    def by_cef(text: str, timestamp: str) -> Alert | None:
        event = cef.parse(text)
        if event is None:
            return None
        has = event.extension
        found: dict[str, str | None] = {
            name: next((has[key] for key in known if key is not None and has.get(key)), None)
            for name, known in keys.items()
        }
        number, title = own.get("signature_id"), own.get("signature")
        found["signature_id"] = has.get(number) if number else event.class_id
        found["signature"] = has.get(title) if title else event.name
        return _alert({**found, "src_port": found["src_port"] or "0",
                       "dst_port": found["dst_port"] or "0"}, timestamp)  # fmt: skip

    def by_eve(text: str, timestamp: str) -> Alert | None:
        start = text.find("{")
        if start < 0:
            return None
        record = json.loads(text[start:])
        return parse_alert(record) if isinstance(record, dict) else None

    take = {"syslog": by_pattern, "cef": by_cef, "eve": by_eve}[options.format]

    def understand(line: str, arrived: float) -> Alert | None:
        message = syslog.parse(line)
        when = message.timestamp
        if not when[:4].isdigit():  # RFC 3164's has neither year nor zone
            when = datetime.fromtimestamp(arrived, UTC).isoformat(timespec="microseconds")
        # What looks like a header may be the beginning of the text: then the whole is tried too.
        for text in dict.fromkeys((message.text, line)):
            try:
                found = take(text, when)
            except (ValueError, KeyError, TypeError):
                found = None
            if found is not None:
                return found
        return None

    return understand
