"""Work ahead in a thread: reading and decoding the next batches while the last is accounted.

Kernels and system calls release the interpreter's lock, so two stages of a pipeline keep two
processors busy; what they hand over is one object a batch of a thousand packets or more.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

__all__ = ["DEPTH", "KEEP", "ahead"]

_T = TypeVar("_T")

DEPTH = 2
"""Items that wait for the consumer."""

KEEP = DEPTH + 2
"""How many of its last items a source must keep valid: one each is in the making and in use."""


def ahead(source: Iterator[_T]) -> Iterator[_T]:
    """The items of `source`, which runs up to DEPTH items ahead in a thread of its own.

    An exception of the source is raised where its next item would have come. When the consumer
    stops early, so does the source, at its next item.
    """
    ready: queue.Queue[tuple[_T | None, BaseException | None]] = queue.Queue(DEPTH)
    stop = threading.Event()

    def work() -> None:
        failure: BaseException | None = None
        try:
            for item in source:
                if not _offer(ready, (item, None), stop):
                    return
        except BaseException as error:
            failure = error
        _offer(ready, (None, failure), stop)

    thread = threading.Thread(target=work, name="reader", daemon=True)
    thread.start()
    try:
        while True:
            item, failure = ready.get()
            if item is None:
                if failure is not None:
                    raise failure
                return
            yield item
    finally:
        stop.set()
        thread.join()


def _offer(
    ready: queue.Queue[tuple[_T | None, BaseException | None]],
    item: tuple[_T | None, BaseException | None],
    stop: threading.Event,
) -> bool:
    """Put an item when there is room; False when nobody wants it any more."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
