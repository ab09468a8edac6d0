"""What TRex's stateless mode sends: the part of its options that a profile may give too.

An experiment is what is sent, so this belongs to the profile (`[generator_options]`); how TRex runs
on its host belongs to the inventory (`harness.generators.trex.options`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

__all__ = ["IMIX", "LARGEST", "StlTraffic", "mix_of"]

IMIX = {64: 7, 594: 4, 1518: 1}
"""Packets by frame size with FCS: the mix that is usually called so (RFC 6985 gives it no law)."""

LARGEST = 9238
"""Bytes of the largest frame TRex takes, FCS included (trex-core v3.08, MAX_PKT_SIZE)."""


def mix_of(text: str) -> dict[int, int]:
    """Packets by frame size (with FCS) from "imix", "512" or "64:7,594:4,1518:1".

    Raises ValueError.
    """
    if text.strip().lower() == "imix":
        return dict(IMIX)
    mix: dict[int, int] = {}
    for part in text.split(","):
        size, _, weight = part.strip().partition(":")
        if not size.isdigit() or not (weight or "1").isdigit() or int(weight or "1") == 0:
            raise ValueError(f"frames = {text!r}: write imix, 512, or 64:7,1518:1")
        if not 64 <= int(size) <= LARGEST:
            raise ValueError(
                f"frames = {text!r}: {size} bytes: a frame has 64 to {LARGEST}, FCS included"
            )
        mix[int(size)] = mix.get(int(size), 0) + int(weight or "1")
    return mix


class StlTraffic(BaseModel):
    """Streams of made-up frames, or the corpus pushed as a capture.

    `frames` are the streams' sizes. `push` sends the corpus instead, out of the first port: "fresh"
    its iterations with fresh addresses, expanded into a file on TRex's host; "remote" (a file that
    the server reads) and "local" (a stream a packet, 1 MiB at most) the same packets over and over,
    under the corpus's own addresses. `push_gaps`: "even" gaps, or the "corpus"'s own, scaled to the
    load.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    frames: str = "imix"
    push: Literal["fresh", "remote", "local"] | None = None
    push_gaps: Literal["even", "corpus"] = "even"

    @field_validator("frames")
    @classmethod
    def _sizes(cls, frames: str) -> str:
        mix_of(frames)
        return frames
