"""Links of the virtual lab, each as quiet and as honest as a wire."""

from __future__ import annotations

from ipaddress import IPv4Network

from lab import netns_tools as net
from lab.virtual_layout import Namespaces, Options

__all__ = ["management_link", "recording_link", "tapped_links", "test_link"]


_RECORDING = (
    ("disable_ipv6", "0"),  # recordings have IPv6, whatever the machine's default is
    ("accept_ra", "0"),
    ("accept_dad", "0"),
    ("router_solicitations", "0"),
)


def test_link(spaces: Namespaces, options: Options) -> None:
    """tx0 ═ rx0: no address, no ARP, no IPv6, no multicast; what is not sent is not there."""
    _quiet_link(("tx0", spaces.generator), ("rx0", spaces.sensor), options)


def tapped_links(spaces: Namespaces, options: Options) -> None:
    """tx0 and tx1 ═ tap ═ rx0: what one port sends, the other and the sensor get.

    The tap is a bridge that forgets every address at once and so floods, as a hub does.
    """
    space = spaces.tap
    bridge = ["type", "bridge", "ageing_time", "0", "stp_state", "0", "mcast_snooping", "0"]
    net.run(["ip", "-n", space, "link", "add", "tap0", "mtu", str(options.mtu), *bridge])
    for scope in ("all", "default", "tap0"):
        net.kernel_setting(space, f"net/ipv6/conf/{scope}/disable_ipv6", "1")
    ends = (("tx0", spaces.generator), ("tx1", spaces.generator), ("rx0", spaces.sensor))
    for number, end in enumerate(ends):
        port = f"port{number}"
        _quiet_link(end, (port, space), options)
        net.run(["ip", "-n", space, "link", "set", port, "master", "tap0"])
        net.run(["ip", "-n", space, "link", "set", port, "type", "bridge_slave", "learning", "off"])
    net.run(["ip", "-n", space, "link", "set", "tap0", "arp", "off", "multicast", "off", "up"])


def _quiet_link(one: tuple[str, str], other: tuple[str, str], options: Options) -> None:
    net.add_veth(one, other)
    for interface, space in (one, other):
        for key, value in (("disable_ipv6", "1"), ("accept_ra", "0"), ("accept_dad", "0")):
            net.kernel_setting(space, f"net/ipv6/conf/{interface}/{key}", value)
        net.run(["ip", "-n", space, "link", "set", interface, "addrgenmode", "none"], check=False)
        _set_up(space, interface, options, "arp", "off", "multicast", "off")


def recording_link(spaces: Namespaces, options: Options) -> None:
    """cl0 ─ sv0: addresses are the recorder's business; neither end talks by itself."""
    ends = (("cl0", spaces.client), ("sv0", spaces.server))
    net.add_veth(*ends)
    for interface, space in ends:
        for key, value in _RECORDING:
            net.kernel_setting(space, f"net/ipv6/conf/{interface}/{key}", value)
        net.run(["ip", "-n", space, "link", "set", interface, "addrgenmode", "none"], check=False)
        _set_up(space, interface, options)


def _set_up(space: str, interface: str, options: Options, *flags: str) -> None:
    size = ["mtu", str(options.mtu), "txqueuelen", str(options.txqueuelen)]
    net.offloads_off(space, interface)
    net.run(["ip", "-n", space, "link", "set", interface, *size, *flags, "up"])


def management_link(interface: str, space: str, subnet: IPv4Network) -> None:
    """A veth pair from the root namespace; its first address is ours, its second the host's."""
    ours, theirs = subnet.hosts()
    net.add_veth((interface, None), ("mg0", space))
    net.kernel_setting(None, f"net/ipv6/conf/{interface}/disable_ipv6", "1")
    for name, where, address in ((interface, [], ours), ("mg0", ["-n", space], theirs)):
        net.run(["ip", *where, "addr", "add", f"{address}/{subnet.prefixlen}", "dev", name])
        net.run(["ip", *where, "link", "set", name, "up"])
