"""How many flows of each template a stateful TRex has sent, from the packets it says it sent.

It does not tell. But all templates have one rate, and a traffic core starts them in turn, in the
order of the file (bp_sim.cpp, generate_flows_roundrobin; one that is not due yet lets nobody pass
that has waited less). So N flows are whole rounds and the first templates of one more, and their
packets say which N: the sums grow with it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

__all__ = ["flows_of_each"]


def flows_of_each(packets: int, sizes: Sequence[int], cores: int = 1) -> tuple[list[int], bool]:
    """Flows sent of each template, whose flows have `sizes` packets; and whether that is exact.

    It is not where several cores each had a turn of their own, or where the packets are no sum of
    whole flows (some were not sent): then each has an equal share, right to within one a core.
    """
    whole = sum(sizes)
    rounds, rest = divmod(packets, whole)
    begun = [0, *accumulate(sizes)]
    further = bisect_left(begun, rest)
    if cores == 1 and begun[further] == rest:
        return [rounds + (number < further) for number in range(len(sizes))], True
    return [round(packets / whole)] * len(sizes), False
