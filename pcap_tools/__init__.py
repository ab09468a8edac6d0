"""Captures in, captures and tables out: no network, no SSH, no root.

What `__all__` lists is the public surface; everything else may change. Importing the package
imports nothing more: each name brings its module (with numpy and numba) when it is first used.

    >>> from pcap_tools import Policy, clean, flow_table, open_capture, remap
    >>> table = flow_table("raw.pcap")
    >>> len(table), table.packets, table.states()
    (3, 39, {'S1': 1, 'SF': 2})
    >>> report = clean("raw.pcap", "clean.pcap", Policy(edge_s=0.0))
    >>> report.result.kept.flows, list(report.result.dropped)
    (2, ['unterminated'])
    >>> done, plan = remap(["clean.pcap"], Path("fresh.pcap"), key="lab 7", iteration=4)
    >>> fresh = plan.mapped(4)["10.0.0.1"]
    >>> fresh == "10.0.0.1", plan.invert(fresh)
    (False, (4, '10.0.0.1'))
    >>> with open_capture("fresh.pcap") as capture:
    ...     sum(int(batch.wirelen.sum()) for batch in capture.batches()) == report.result.kept.bytes
    True

Every error that is raised on purpose is a `PcapError`; `pcap_tools.errors` draws their tree. A page
of explanations: docs/library.md.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcap_tools import errors as errors
    from pcap_tools.capture import Batch, Capture, open_capture
    from pcap_tools.clean import CleanReport, clean
    from pcap_tools.convert import Conversion, convert
    from pcap_tools.errors import PcapError
    from pcap_tools.expand import ExpandOptions, ExpandReport, expand
    from pcap_tools.flows import FlowTable, flow_table
    from pcap_tools.fresh import FreshAddresses
    from pcap_tools.hygiene import Hygiene
    from pcap_tools.impair import Fault, ImpairReport, impair
    from pcap_tools.inspect import Inspection, inspect
    from pcap_tools.merge import MergeReport, merge
    from pcap_tools.plan import AddressPlan
    from pcap_tools.policy import Policy
    from pcap_tools.remap import RemapReport, remap
    from pcap_tools.split import SplitOptions, SplitReport, split

__all__ = [
    "AddressPlan",
    "Batch",
    "Capture",
    "CleanReport",
    "Conversion",
    "ExpandOptions",
    "ExpandReport",
    "Fault",
    "FlowTable",
    "FreshAddresses",
    "Hygiene",
    "ImpairReport",
    "Inspection",
    "MergeReport",
    "PcapError",
    "Policy",
    "RemapReport",
    "SplitOptions",
    "SplitReport",
    "clean",
    "convert",
    "errors",
    "expand",
    "flow_table",
    "impair",
    "inspect",
    "merge",
    "open_capture",
    "remap",
    "split",
]

_MODULES = {
    "capture": ("Batch", "Capture", "open_capture"),
    "clean": ("CleanReport", "clean"),
    "convert": ("Conversion", "convert"),
    "errors": ("PcapError",),
    "expand": ("ExpandOptions", "ExpandReport", "expand"),
    "flows": ("FlowTable", "flow_table"),
    "hygiene": ("Hygiene",),
    "impair": ("Fault", "ImpairReport", "impair"),
    "inspect": ("Inspection", "inspect"),
    "merge": ("MergeReport", "merge"),
    "plan": ("AddressPlan",),
    "policy": ("Policy",),
    "fresh": ("FreshAddresses",),
    "remap": ("RemapReport", "remap"),
    "split": ("SplitOptions", "SplitReport", "split"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("pcap_tools.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'pcap_tools' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"pcap_tools.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps a submodule from hiding the function of its name: `clean`, `remap` …

    The import system sets each imported submodule as an attribute of its package.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
