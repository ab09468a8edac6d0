"""Captures to one capture of another format: merged, decompressed, put right on the way.

Two passes: a survey, after which all link types, clocks and interfaces are known, and the copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pcap_tools.capture import open_capture
from pcap_tools.hygiene import Hygiene, Prepared, Treatment, prepare
from pcap_tools.output import PcapngWriter, open_output
from pcap_tools.survey import Survey, Surveyor
from pcap_tools.write import refuse_inputs

__all__ = ["Conversion", "convert"]

Progress = Callable[[str, int, int], None]
"""Called with the step's name, and bytes done of bytes in all."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was read, found, done and written.

    `survey` is of the input, `treatment` what the policies did to it; `packets` and `bytes` (of
    frames) are those written. `passed_over` counts pcapng blocks without packets by kind, and
    `options_dropped` packets whose comments and other options are not in the output.
    """

    inputs: tuple[str, ...]
    output: str
    format: str
    link: str
    nanoseconds: bool
    survey: Survey
    treatment: Treatment
    packets: int
    bytes: int
    ignored_bytes: int
    passed_over: dict[str, int]
    options_dropped: int

    def as_json(self) -> dict[str, Any]:
        """The JSON form: the attributes by their names."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What was found and done, for people."""
        found = self.survey.lines() + self.treatment.lines()
        found += [
            f"left out {count:,} pcapng blocks: {kind}" for kind, count in self.passed_over.items()
        ]
        if self.options_dropped:
            found.append(f"left out comments and options of {self.options_dropped:,} packets")
        if self.ignored_bytes:
            found.append(f"ignored {self.ignored_bytes:,} bytes of a truncated tail")
        return found


def convert(
    paths: Sequence[Path | str] | Path | str,
    output: Path | str,
    hygiene: Hygiene | None = None,
    *,
    comments: bool = True,
    progress: Progress | None = None,
) -> Conversion:
    """Write captures as `output` in the format of its name (`pcap_tools.output`).

    `comments` keeps pcapng's comments, names and packet options where the output can hold them.
    Raises CaptureError for unreadable inputs, UnsupportedLink for several link types in pcap,
    EmptyCapture when nothing is left, and OutputError.
    """
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    if str(output) != "-":
        refuse_inputs(output, listed)
    hygiene = hygiene or Hygiene()
    with open_capture(listed) as capture:
        surveyor = Surveyor(hygiene.resegment or 1500, hygiene.window, hygiene.dedup or "exact")
        commented = 0
        for batch in capture.batches():
            surveyor.update(batch)
            commented += len(batch.meta.noted) if batch.meta else 0
            if progress is not None:
                progress("looking", capture.bytes + 16 * capture.packets, capture.size)
        source = prepare(capture, hygiene)
        with open_output(output, source, comments=comments) as writer:
            for batch in source.batches():
                writer.write(batch)
                if progress is not None:
                    progress("writing", source.bytes + 16 * source.packets, capture.size)
        return Conversion(
            inputs=tuple(str(path) for path in capture.paths),
            output=str(output),
            format=capture.format,
            link=capture.link_text,
            nanoseconds=capture.nanoseconds,
            survey=surveyor.finish(),
            treatment=source.treatment if isinstance(source, Prepared) else Treatment(),
            packets=writer.packets,
            bytes=writer.bytes,
            ignored_bytes=capture.ignored_bytes,
            passed_over=capture.passed_over,
            options_dropped=commented
            - (writer.commented if isinstance(writer, PcapngWriter) else 0),
        )
