"""What flow records say about one trial: values that cross the seam to the flow ledger."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["FlowRecords"]


@dataclass(frozen=True, slots=True)
class FlowRecords:
    """Flow records of one trial, summed.

    `flows` counts the records. `by_reason` says why flows ended: "timeout" (aged out or closed),
    "forced" (evicted before their time), "shutdown" (still in the table when the sensor was
    stopped). `by_state` is the sensor's last state of each flow ("new", "established", "closed",
    "bypassed"). `emergency` counts flows that lived under the sensor's emergency timeouts,
    `wrong_thread` those whose packets did not all reach one worker, `with_gaps` those whose stream
    was not reassembled whole, `alerted` those with an alert. `packets` and `bytes` are of both
    directions. None means that the sensor's records have no such field, and is never zero.
    """

    flows: int
    by_reason: dict[str, int] = field(default_factory=dict)
    by_state: dict[str, int] = field(default_factory=dict)
    wrong_thread: int | None = None
    with_gaps: int | None = None
    alerted: int | None = None
    packets: int = 0
    bytes: int = 0
    emergency: int | None = None

    @property
    def evicted(self) -> int:
        """Flows that were ended before their time."""
        return self.by_reason.get("forced", 0)

    @property
    def bypassed(self) -> int:
        """Flows whose packets were no longer looked at."""
        return self.by_state.get("bypassed", 0)
