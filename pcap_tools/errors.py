"""Every error pcap_tools raises on purpose.

PcapError                      exit status 2
 ├─ CaptureError               the input is not a capture we can read
 │   ├─ UnknownFormat          neither pcap nor pcapng
 │   ├─ UnsupportedLink        a link type without an Ethernet or IP reading here
 │   ├─ EmptyCapture           a capture without one packet (or without one that was kept)
 │   └─ GrowingInput           the file changed while it was read
 ├─ PlanError                  an address plan that cannot be carried out
 │   └─ PoolExhausted          more iterations asked than the pool has fresh addresses
 ├─ MixError                   shares, weights or targets that the capture's flows cannot meet
 └─ OutputError                the output cannot be written (full disk, same file as the input)

A message says what was wrong, where (file, offset, key) and what to do, in one line.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "CaptureError",
    "EmptyCapture",
    "GrowingInput",
    "MixError",
    "OutputError",
    "PcapError",
    "PlanError",
    "PoolExhausted",
    "UnknownFormat",
    "UnsupportedLink",
]


class PcapError(Exception):
    """Base of the package's errors; `exit_status` is what the command line returns."""

    exit_status: ClassVar[int] = 2


class CaptureError(PcapError):
    """The input cannot be read as a capture."""


class UnknownFormat(CaptureError):
    """The first bytes are neither pcap's nor pcapng's."""


class UnsupportedLink(CaptureError):
    """The link type has no reading here."""


class EmptyCapture(CaptureError):
    """No packet in it, or none left."""


class GrowingInput(CaptureError):
    """The file changed between its opening and the end of a pass."""


class PlanError(PcapError):
    """An address plan that cannot be carried out."""


class PoolExhausted(PlanError):
    """The pool of a class has fewer fresh addresses than the iterations need."""


class MixError(PcapError):
    """A traffic mix that cannot be made of the capture's flows."""


class OutputError(PcapError):
    """The output cannot be written."""
