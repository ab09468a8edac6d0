"""The corpus of an experiment: its files, its dimensions, and the plan of its addresses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import ConfigError
from harness.label import file_digest
from harness.model import Corpus
from harness.progress import Progress
from pcap_tools.capture import link_name
from pcap_tools.errors import EmptyCapture, UnsupportedLink
from pcap_tools.expand import ExpandOptions, prepare
from pcap_tools.layers import ETHERNET
from pcap_tools.plan import AddressPlan
from pcap_tools.template import HEADER

__all__ = ["CorpusFiles", "describe", "find_corpus", "prepare_corpus", "read_corpus"]

CAPTURE, RAW, REFERENCE = "corpus.pcap", "raw.pcap", "reference.json"


@dataclass(frozen=True, slots=True)
class CorpusFiles:
    """A cleaned capture and what lies beside it: `raw` (uncleaned, None when not there)."""

    capture: Path
    raw: Path | None = None

    @property
    def reference(self) -> Path:
        """Where the zero-load reference of this capture is kept."""
        return self.capture.with_name(REFERENCE)

    def clean_report(self) -> dict[str, Any] | None:
        """`OUT.clean.json`, or None when the capture was not cleaned here."""
        path = self.capture.with_name(f"{self.capture.name}.clean.json")
        try:
            report: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: not a readable cleaning report: {error}") from None
        report.pop("flows", None)  # row by row it is beside the capture; totals are enough here
        report.pop("dropped_flows", None)
        return report


def find_corpus(path: Path | None) -> CorpusFiles:
    """The corpus at a path: a capture, or a directory with `corpus.pcap`. Raises ConfigError."""
    if path is None:
        raise ConfigError(
            "no corpus: give --corpus FILE (a capture cleaned by `probebench corpus clean`) or "
            "corpus.path in the profile"
        )
    capture = path / CAPTURE if path.is_dir() else path
    if not capture.is_file():
        raise ConfigError(f"{capture}: no such capture; clean one with `probebench corpus clean`")
    raw = capture.with_name(RAW)
    return CorpusFiles(capture, raw if raw.is_file() and raw != capture else None)


def describe(path: Path, home: tuple[str, ...], key: str, max_gap: float | None) -> Corpus:
    """Dimensions of one iteration of a capture, after gaps were capped. Raises PcapError."""
    return read_corpus(path, home, key, max_gap)[0]


def read_corpus(
    path: Path, home: tuple[str, ...], key: str, max_gap: float | None
) -> tuple[Corpus, AddressPlan]:
    """`describe`, and the address plan that the expander will follow for this capture and key."""
    expansion = prepare([path], ExpandOptions(key=key, iterations=1, home=home, max_gap=max_gap))
    if expansion.template.link != ETHERNET:
        raise UnsupportedLink(
            f"{path}: {link_name(expansion.template.link)} cannot be sent on an Ethernet link; "
            "give it Ethernet headers first: tcprewrite --dlt=enet --enet-smac=MAC --enet-dmac=MAC"
        )
    dimensions = expansion.timing.corpus
    if not expansion.template.counts["mapped"]:
        raise EmptyCapture(
            f"{path}: no packet with an address that can be made fresh (no IP header "
            "was found in any); see `probebench corpus inspect`"
        )
    if dimensions.packets == 0 or dimensions.flows == 0:
        raise EmptyCapture(f"{path}: no flow in it to replay; see `probebench corpus inspect`")
    corpus = Corpus(
        path=str(path),
        digest=file_digest(path),
        packets=dimensions.packets,
        bytes=dimensions.bytes,
        flows=dimensions.flows,
        span_s=dimensions.span_s,
        home=tuple(home),
        key=key,
        max_gap=max_gap,
        flow_seconds=dimensions.flow_seconds,
        max_frame=int(np.diff(expansion.template.start).max()) - HEADER,
    )
    return corpus, expansion.plan


def prepare_corpus(raw: Path, capture: Path, progress: Progress) -> CorpusFiles:
    """Clean `raw` into `capture` with the default policy and say what was dropped and why."""
    from pcap_tools.clean import clean

    report = clean([raw], capture, sha256=True)
    for line in report.lines():
        progress.say(f"    {line}")
    return CorpusFiles(capture, raw)
