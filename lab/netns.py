"""A network namespace of this machine as a host, through `ip netns exec` (iproute2)."""

from __future__ import annotations

from collections.abc import Sequence

from lab.local import LocalHost

__all__ = ["NetnsHost"]


class NetnsHost(LocalHost):
    """Files are this machine's; commands see the namespace's network and /sys/class/net.

    Entering a namespace needs root, so with `sudo = true` every command runs as root.
    """

    def _enter(self, argv: Sequence[str], sudo: bool) -> list[str]:
        assert self._spec.netns is not None
        inside = ["ip", "netns", "exec", self._spec.netns, *argv]
        return super()._enter(inside, True)
