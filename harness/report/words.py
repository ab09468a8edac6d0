"""Numbers as people read them: one place, so that page, figures and terminal agree.

None and NaN are never a number: they read "not observable" (or what the caller says).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = [
    "NBSP",
    "NOT_OBSERVABLE",
    "amount",
    "axis_unit",
    "bits",
    "count",
    "load",
    "loss_name",
    "missing",
    "number",
    "percent",
    "plural",
    "series",
]

NOT_OBSERVABLE = "not observable"
NBSP = "\N{NO-BREAK SPACE}"  # a number and its unit stay on one line

_UNITS = {
    "pps": "packets/s",
    "flows": "new flows/s",
    "bps": "bit/s",
    "concurrent": "concurrent flows",
}
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def missing(value: object) -> bool:
    """True for None, NaN and pandas' NA: what was not measured."""
    if value is None:
        return True
    try:
        return math.isnan(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"


def axis_unit(axis: str) -> str:
    """Unit of a load axis: "packets/s", "new flows/s" …"""
    return _UNITS.get(axis, axis)


def loss_name(frame: Any) -> str:
    """What `drop_rate` of trials or curves is called: "Drop rate" or "Capture loss".

    A sensor that does not tell what it analysed has only the latter; never is it called the former.
    """
    known = frame.get("loss_of")
    return "Drop rate" if known is None or not (known == "capture").any() else "Capture loss"


def amount(value: float) -> str:
    """Three or four significant digits with an SI prefix, no unit: 123456 → "123.5 k"."""
    for scale, prefix in _PREFIXES:
        if abs(value) >= scale * 0.99995:
            return f"{_trim(value / scale)}{NBSP}{prefix}"
    return _trim(value)


def _trim(value: float) -> str:
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def load(value: float, axis: str) -> str:
    """An offered load with its unit: "42.1 k packets/s"."""
    return f"{amount(value)}{NBSP}{axis_unit(axis).replace(' ', NBSP)}"


def bits(value: float | None) -> str:
    """A bit rate: "1.2 Gbit/s"."""
    if value is None or missing(value):
        return NOT_OBSERVABLE
    text = amount(value)
    return f"{text}bit/s" if text[-1] in "kMG" else f"{text}{NBSP}bit/s"


def count(value: float | None, absent: str = NOT_OBSERVABLE) -> str:
    """A whole number with thousands separated; `absent` for None."""
    return absent if value is None or missing(value) else f"{int(value):,}"


def percent(share: float | None, absent: str = NOT_OBSERVABLE) -> str:
    """A share of 1 in per cent.

    Never rounded onto 0 % or 100 %: what is not exactly none or all reads "< 0.001 %" or
    "99.9996 %" as the case may be, since the difference is what a loss curve is about.
    """
    if share is None or missing(share):
        return absent
    if share in (0, 1):
        return f"{share * 100:.0f}{NBSP}%"
    value = share * 100
    if abs(value) < 0.001:
        return f"<{NBSP}0.001{NBSP}%" if value > 0 else f">{NBSP}−0.001{NBSP}%"
    distance = min(abs(value), abs(100 - value))
    digits = 1 if distance >= 1 else 2 if distance >= 0.1 else 3
    if round(value, digits) == 100:
        return f">{NBSP}99.999{NBSP}%" if value < 100 else f">{NBSP}100{NBSP}%"
    return f"{value:.{digits}f}{NBSP}%".replace("-", "−")


def number(value: float | None, digits: int = 1, absent: str = NOT_OBSERVABLE) -> str:
    """A plain number with fixed digits and thousands separated."""
    return absent if value is None or missing(value) else f"{value:,.{digits}f}"


def plural(n: int, noun: str, many: str | None = None) -> str:
    """ "1 trial", "2 trials"."""
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"


def series(parts: Sequence[str], last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {last} {parts[-1]}"
