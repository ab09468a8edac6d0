"""Links of the virtual lab, each as quiet and as honest as a wire."""

from __future__ import annotations

from ipaddress import IPv4Network

from lab import netns_tools as net
from lab.errors import LabError
from lab.virtual_layout import TAP_PORTS, Namespaces, Options

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
    """tx0 and tx1 ═ tap ═ rx0: what one port sends, the other and the sensor get, as it is.

    The tap copies frames from port to port (tc, mirred), and looks at nothing of them. A bridge
    would: it drops frames without a source address and those for 01:80:c2:00:00:0x, and with
    netfilter also those with a wrong IP header; it cuts padding off, and puts fragments together
    (net/bridge/br_input.c, br_netfilter_hooks.c). Raises LabError where the kernel has no mirred.
    """
    space = spaces.tap
    for scope in ("all", "default"):
        net.kernel_setting(space, f"net/ipv6/conf/{scope}/disable_ipv6", "1")
    ends = (("tx0", spaces.generator), ("tx1", spaces.generator), ("rx0", spaces.sensor))
    for end, port in zip(ends, TAP_PORTS, strict=True):
        _quiet_link(end, (port, space), options)
    for port in TAP_PORTS:
        one, other = (name for name in TAP_PORTS if name != port)
        tc = ["tc", "-n", space]
        everything = ["ingress", "protocol", "all", "u32", "match", "u32", "0", "0"]
        copies = [
            *["action", "mirred", "egress", "mirror", "dev", one],
            *["action", "mirred", "egress", "redirect", "dev", other],
        ]
        try:
            net.run([*tc, "qdisc", "add", "dev", port, "clsact"])
            net.run([*tc, "filter", "add", "dev", port, *everything, *copies])
        except LabError as error:
            raise LabError(
                f"the tap needs the kernel's modules sch_ingress, cls_u32 and act_mirred: {error}"
            ) from None


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
