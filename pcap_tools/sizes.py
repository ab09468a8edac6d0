"""The sizes of all packets of a capture, two bytes each: what a second pass need not walk for."""

from __future__ import annotations

from pcap_tools.capture import Batch
from pcap_tools.kernels import U16, kernel
from pcap_tools.memory import Presence, doubled, reserve
from pcap_tools.walk import U32

__all__ = ["Sizes"]

_PACKETS = 1 << 25  # room to begin with: address space, not memory


class Sizes:
    """Bytes captured of every packet, batch by batch."""

    def __init__(self, presence: Presence | None = None) -> None:
        self._sizes: U16 = reserve(_PACKETS, "u2")
        self._packets = 0
        self._fit = True
        self._presence = presence

    def add(self, batch: Batch) -> None:
        """Note the sizes of a batch."""
        while len(self._sizes) < self._packets + len(batch):
            self._sizes = doubled(self._sizes)
        self._fit &= _note(batch.caplen, self._sizes[self._packets : self._packets + len(batch)])
        self._packets += len(batch)
        if self._presence is not None:
            self._presence.follow(self._sizes, self._packets)

    @property
    def all(self) -> U16 | None:
        """One a packet; None when one is 65,536 bytes or more."""
        return self._sizes[: self._packets] if self._fit else None


@kernel
def _note(caplen: U32, sizes: U16) -> bool:
    """Copy the sizes of packets; False when one is too large for 16 bits."""
    fit = True
    for i in range(len(caplen)):
        sizes[i] = caplen[i]
        fit &= caplen[i] < 65536
    return fit
