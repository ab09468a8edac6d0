"""What giving fresh addresses takes, whichever way they are looked up."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from pcap_tools.capture import Batch
from pcap_tools.edits import COUNTS, QUOTING
from pcap_tools.kernels import I64
from pcap_tools.patch import Edits, patch_all
from pcap_tools.plain import FIXED_IP, FIXED_L4, PLAIN
from pcap_tools.plan import AddressPlan
from pcap_tools.scan import analyse_batch
from pcap_tools.space import Space
from pcap_tools.stand_ins import AddressBook
from pcap_tools.tables import Tables

if TYPE_CHECKING:
    from pcap_tools.mentions import Mentions

__all__ = ["FreshAddresses", "Rewriting"]


@dataclass(frozen=True)
class FreshAddresses:
    """Which addresses to give: the permutation's key, the networks, and the iteration.

    `prefix` keeps common prefixes common (Crypto-PAn). `plan` is one that exists instead of all
    these, and has to know every address.
    """

    key: str
    space: Space = field(default_factory=Space)
    iteration: int = 0
    prefix: bool = False
    plan: AddressPlan | None = None


class Rewriting:
    """The state of a rewriting: a book of the addresses that were met one by one, the plan once it
    is settled, and what was found (`counts`, see `edits.COUNTS`)."""

    plan: AddressPlan
    tables: Tables  # by the book's numbers

    def __init__(self, wanted: FreshAddresses) -> None:
        self.wanted = wanted
        self.counts: I64 = np.zeros(len(COUNTS), np.int64)
        self.mentions: Mentions | None = None
        self._quoting = 0
        self.book = AddressBook()
        self._lock = threading.Lock()

    @property
    def addresses(self) -> int:
        """How many addresses the plan has, those included that stay."""
        plan = self.plan
        return sum(map(len, plan.ranked.values())) + sum(map(len, plan.stay))

    def _take(self, plan: AddressPlan) -> None:
        """Settle on a plan for the iteration that is wanted. Raises PlanError."""
        plan.require(self.wanted.iteration, 1)
        self.plan = replace(plan, run={"first": self.wanted.iteration, "iterations": 1})
        if self._quoting:
            from pcap_tools.mentions import Mentions  # kernels that only who needs them must load

            self.mentions = Mentions(self.plan)

    def account(self, plain: I64) -> None:
        """Take over what a kernel counted in plain frames (columns of pcap_tools.plain)."""
        with self._lock:
            for name, value in (
                ("packets", plain[PLAIN]),
                ("mapped", plain[PLAIN]),
                ("fixed_ip_checksums", plain[FIXED_IP]),
                ("fixed_l4_checksums", plain[FIXED_L4]),
            ):
                self.counts[COUNTS.index(name)] += value
        plain[:] = 0

    def edit_others(self, part: Batch, numbers: I64) -> None:
        """Give frames that are not plain their stand-ins, in place; several threads may.

        `numbers` are the packets' in the capture, from 0.
        """
        with self._lock:
            before = int(self.counts[QUOTING])
            rows, edits = analyse_batch(part, self.book, self.counts)
            if self.mentions is not None and self.counts[QUOTING] > before:
                self.mentions.look(part, rows, numbers)
            tables = self.tables
            chained = Edits(edits, tables.macs) if len(edits) else None
            patch_all(part.data.ctypes.data, part.offset, rows, chained, tables.v4, tables.v6)
