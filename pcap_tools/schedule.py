"""How far apart iterations start, and what that makes of rate, concurrency and duration.

N iterations of a corpus of P packets, F flows and T seconds, one started every Δ seconds, take
(N − 1)Δ + T seconds. Once T seconds have passed, and until the last one starts, packets come at
P/Δ and new flows at F/Δ per second, and by Little's law (J. D. C. Little, "A Proof for the Queuing
Formula L = λW", Operations Research 9(3), 1961) the mean number of flows in flight is the sum of
the flows' durations over Δ.
"""

from __future__ import annotations

from dataclasses import dataclass

from pcap_tools.errors import PlanError

__all__ = ["Dimensions", "Timing", "every_for_flow_rate", "every_for_pps", "every_in_sequence"]


@dataclass(frozen=True, slots=True)
class Dimensions:
    """One iteration of a corpus: packets, bytes of frames, flows, seconds from first to last
    packet, and the sum of its flows' durations in seconds."""

    packets: int
    bytes: int
    flows: int
    span_s: float
    flow_seconds: float


@dataclass(frozen=True, slots=True)
class Timing:
    """What `iterations` of a corpus come to, one started every `every_s` seconds.

    Rates are those of the steady state; `steady_s` is how long it lasts (0: it is never reached).
    """

    corpus: Dimensions
    iterations: int
    every_s: float

    @property
    def packets(self) -> int:
        """Packets of all iterations."""
        return self.iterations * self.corpus.packets

    @property
    def bytes(self) -> int:
        """Bytes of all frames."""
        return self.iterations * self.corpus.bytes

    @property
    def flows(self) -> int:
        """Flows of all iterations."""
        return self.iterations * self.corpus.flows

    @property
    def seconds(self) -> float:
        """Time from the first packet to the last, on the packets' timestamps."""
        return (self.iterations - 1) * self.every_s + self.corpus.span_s

    @property
    def steady_s(self) -> float:
        """Seconds during which the full number of iterations is in flight."""
        return max(0.0, self.iterations * self.every_s - self.corpus.span_s)

    @property
    def packets_per_s(self) -> float:
        """Packets per second in the steady state."""
        return self.corpus.packets / self.every_s

    @property
    def bits_per_s(self) -> float:
        """Bits of frames per second in the steady state, without preamble, gap and FCS."""
        return 8 * self.corpus.bytes / self.every_s

    @property
    def flows_per_s(self) -> float:
        """New flows per second in the steady state."""
        return self.corpus.flows / self.every_s

    @property
    def concurrent_flows(self) -> float:
        """Mean number of flows in flight in the steady state."""
        return self.corpus.flow_seconds / self.every_s


def every_for_flow_rate(flows: int, flows_per_s: float) -> float:
    """Δ in seconds at which a corpus of `flows` flows starts `flows_per_s` new ones a second."""
    if not flows_per_s > 0:
        raise PlanError(f"--flow-rate {flows_per_s:g}: the rate of new flows must be above 0")
    if flows < 1:
        raise PlanError("--flow-rate: the corpus has no flow; give --every instead")
    return flows / flows_per_s


def every_for_pps(packets: int, packets_per_s: float) -> float:
    """Δ in seconds at which a corpus of `packets` packets comes at `packets_per_s`."""
    if not packets_per_s > 0:
        raise PlanError(f"{packets_per_s:g} packets per second: the rate must be above 0")
    return packets / packets_per_s


def every_in_sequence(packets: int, span_s: float) -> float:
    """Δ in seconds that plays copies one after the other: the span and one mean packet gap."""
    return span_s + max(span_s / max(packets - 1, 1), 1e-6)
