"""`[sensor.options.intake]`: where alerts are received, and what in them is what."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["FAST", "IntakeOptions"]

# One line of Suricata's and Snort's "fast" alerts, the commonest form over syslog:
# [1:2100498:7] GPL … [Classification: …] [Priority: 2] {TCP} 192.0.2.1:80 -> 198.51.100.2:1024
FAST = (
    r"\[\d+:(?P<signature_id>\d+):\d+\] (?P<signature>.*?) "
    r"(?:\[Classification: [^\]]*\] ?)?(?:\[Priority: \d+\] ?)?"
    r"\{(?P<proto>[\w-]+)\} (?P<src>\S+) -> (?P<dst>\S+)"
)
_GROUPS = ("signature_id", "signature", "proto", "src", "src_port", "dst", "dst_port")
Field_ = Literal["signature_id", "signature", "proto", "src", "src_port", "dst", "dst_port"]


class IntakeOptions(BaseModel):
    """Alerts over the network.

    `format`: "syslog" takes the fields from named groups of `pattern` (by default alerts in
    Suricata's and Snort's fast form), "cef" from the header and the extension keys in `fields`,
    "eve" from Suricata's JSON; a syslog header before them is skipped. `at` says who listens: the
    orchestrator, or `sensor.host`. Alerts count as over when none came for `quiet` s. `buffer` is
    the socket's, in bytes; what it cannot hold is counted and marks the trial.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["syslog", "cef", "eve"] = "syslog"
    transport: Literal["udp", "tcp"] = "udp"
    listen: str = "0.0.0.0"
    port: int = Field(ge=0, le=65535)
    at: Literal["orchestrator", "host"] = "orchestrator"
    quiet: float = Field(default=2.0, gt=0)
    pattern: str = FAST
    fields: dict[Field_, str] = Field(default_factory=dict)
    buffer: int = Field(default=8 << 20, ge=4096)

    @field_validator("pattern")
    @classmethod
    def _names(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if unknown := sorted(set(groups) - set(_GROUPS)):
            raise ValueError(f"no group is named {unknown[0]!r}; they are {', '.join(_GROUPS)}")
        if not {"src", "dst"} <= groups.keys() or not {"signature_id", "signature"} & groups.keys():
            raise ValueError(
                "the groups (?P<src>…), (?P<dst>…) and (?P<signature_id>…) or (?P<signature>…) are "
                "needed: without them an alert belongs to no flow"
            )
        return pattern

    @model_validator(mode="after")
    def _fits(self) -> IntakeOptions:
        if self.fields and self.format != "cef":
            raise ValueError('fields is for format = "cef"; for syslog give pattern')
        if self.pattern != FAST and self.format != "syslog":
            raise ValueError('pattern is for format = "syslog"; for CEF give fields')
        return self
