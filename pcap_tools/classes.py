"""The mix file: classes of flows, and how much of each there shall be.

A class takes the flows that match all of its conditions and none of an earlier class; what is left
is the class "rest". A `share` is a part of the whole, in flows, packets or bytes; a `weight` says
how many times as many flows of the class there shall be as in the input, against other classes with
a weight. Classes with shares get them; those with weights divide the remainder.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pcap_tools.connstate import STATES
from pcap_tools.errors import MixError
from pcap_tools.table import PROTOCOLS
from pcap_tools.traits import CIPHERS, Traits

__all__ = ["Mix", "MixClass", "class_weights", "classify", "read_mix"]

_UNITS = ("flows", "packets", "bytes")
_NUMBERS = {name: number for number, name in PROTOCOLS.items()}


@dataclass(frozen=True, slots=True)
class MixClass:
    """Conditions by name (see `_CONDITIONS`), and either a share (0 … 1) or a weight (≥ 0)."""

    name: str
    match: dict[str, Any] = field(default_factory=dict)
    share: float | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Mix:
    """A mix file's contents. `unit` is what shares count; `flows` how many to make (None: as many
    as the input has, or as the weights come to when there is no share)."""

    classes: tuple[MixClass, ...] = ()
    unit: str = "flows"
    flows: int | None = None
    rest: float = 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, "rest" last."""
        return (*(each.name for each in self.classes), "rest")


def read_mix(path: Path) -> Mix:
    """Read a mix file (TOML). Raises MixError naming file and key."""
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise MixError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MixError(f"{path}: is not TOML: {error}") from None
    try:
        return _mix(data)
    except MixError as error:
        raise MixError(f"{path}: {error}") from None


def _mix(data: dict[str, Any]) -> Mix:
    _only(data, ("of", "flows", "rest", "class"), "")
    unit, flows, tables = data.get("of", "flows"), data.get("flows"), data.get("class", [])
    if unit not in _UNITS:
        raise MixError(f"of = {unit!r}: wanted is flows, packets or bytes")
    if flows is not None and (not isinstance(flows, int) or flows < 1):
        raise MixError(f"flows = {flows!r}: wanted is a whole number from 1")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise MixError("classes are written as [[class]]")
    classes = tuple(_class(number, table) for number, table in enumerate(tables, 1))
    names = [each.name for each in classes] + ["rest"]
    for name in names:
        if names.count(name) > 1:
            raise MixError(f"class {name!r} is there twice (rest is what no class matches)")
    if sum(each.share or 0.0 for each in classes) > 1 + 1e-9:
        raise MixError("the shares come to more than 1")
    return Mix(classes, unit, flows, _number("rest", data.get("rest", 1.0), 1e9))


def _class(number: int, table: dict[str, Any]) -> MixClass:
    name = table.get("name", f"class {number}")
    _only(table, ("name", "match", "share", "weight"), f"class {name!r}: ")
    match = table.get("match", {})
    if not isinstance(match, dict):
        raise MixError(f"class {name!r}: match is a table, as {{proto = 'tcp', port = 443}}")
    _only(match, tuple(_CONDITIONS), f"class {name!r}: match: ")
    if ("share" in table) == ("weight" in table):
        raise MixError(f"class {name!r}: give either share or weight")
    share = _number(f"class {name!r}: share", table["share"], 1.0) if "share" in table else None
    weight = _number(f"class {name!r}: weight", table.get("weight", 1.0), 1e9)
    return MixClass(str(name), match, share, weight)


def _only(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise MixError(f"{where}unknown key {key!r}; known are {', '.join(known)}")


def _number(what: str, value: Any, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise MixError(f"{what} = {value!r}: wanted is a number from 0 to {most:g}")
    return float(value)


def _proto(traits: Traits, value: Any) -> Any:
    wanted = [_NUMBERS.get(each, each) for each in _listed(value)]
    if not all(isinstance(each, int) for each in wanted):
        raise MixError(f"proto {value!r}: wanted is a name such as tcp, or a number")
    return np.isin(traits.table.rows["proto"], wanted)


def _label(traits: Traits, value: Any) -> Any:
    wanted = _listed(value)
    return np.array([name in wanted for name in traits.labels])[traits.label]


def _state(traits: Traits, value: Any) -> Any:
    for each in _listed(value):
        if each not in STATES:
            raise MixError(f"state {each!r}: there are {', '.join(STATES)}")
    return np.isin(traits.table.state, [STATES.index(each) for each in _listed(value)])


def _encrypted(traits: Traits, value: Any) -> Any:
    if isinstance(value, bool):
        return traits.encrypted == value
    for each in _listed(value):
        if each not in CIPHERS[1:]:
            raise MixError(f"encrypted {each!r}: wanted is true, false or {', '.join(CIPHERS[1:])}")
    return np.isin(traits.cipher, [CIPHERS.index(each) for each in _listed(value)])


def _within(numbers: npt.NDArray[Any], value: Any) -> Any:
    """Numbers, and ranges written "1-10", "100-" or "-5"."""
    found = np.zeros(len(numbers), np.bool_)
    for each in _listed(value):
        low, dash, high = str(each).partition("-")
        try:
            least = int(low) if low else 0
            most = int(high) if high else (2**62 if dash else least)
        except ValueError:
            raise MixError(f'{each!r}: wanted is a number, or a range such as "1-10"') from None
        found |= (numbers >= least) & (numbers <= most)
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


_CONDITIONS: dict[str, Callable[[Traits, Any], Any]] = {
    "proto": _proto,
    "port": lambda traits, value: _within(traits.table.rows["port"][:, 1], value),
    "label": _label,
    "state": _state,
    "encrypted": _encrypted,
    "packets": lambda traits, value: _within(traits.packets, value),
    "bytes": lambda traits, value: _within(traits.bytes, value),
}
"""Conditions of a class. `port` is the server's; each takes one value or a list of them."""


def classify(traits: Traits, mix: Mix) -> npt.NDArray[np.int64]:
    """The class of each flow, an index of `mix.names`. Raises MixError."""
    rest = len(mix.classes)
    found = np.full(len(traits), rest, np.int64)
    for number, each in enumerate(mix.classes):
        picked = found == rest
        for key, value in each.match.items():
            picked &= _CONDITIONS[key](traits, value)
        found[picked] = number
    return found


def class_weights(
    traits: Traits, mix: Mix, classes: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """How many times each flow is wanted (a fraction), by the classes and the flows' own weights.

    Raises MixError when a share is asked of a class without flows.
    """
    unit = {"flows": np.ones(len(traits)), "packets": traits.packets, "bytes": traits.bytes}
    size = traits.weight * unit[mix.unit]
    count = len(mix.names)
    held = np.bincount(classes, weights=size, minlength=count)
    share = np.array([-1.0 if c.share is None else c.share for c in mix.classes] + [-1.0])
    weight = np.array([each.weight for each in mix.classes] + [mix.rest])
    for number in np.flatnonzero((share > 0) & (held == 0)).tolist():
        raise MixError(f"class {mix.names[number]!r}: no flow of the capture matches it")
    shared = share >= 0
    if not shared.any():
        times = traits.weight * weight[classes]
    else:
        wanted = weight * held
        left = max(1 - share[shared].sum(), 0.0)
        if left > 1e-9 and not wanted[~shared].sum():
            raise MixError("the shares come to less than 1, and there is nothing for the remainder")
        wanted = np.where(shared, share, left * wanted / max(wanted[~shared].sum(), 1e-300))
        times = traits.weight * (wanted / np.where(held > 0, held, 1.0))[classes]
        times *= len(traits) / times.sum()
    if not times.sum() > 0:
        raise MixError("nothing is left: every flow has weight 0")
    if mix.flows is not None:
        times *= mix.flows / times.sum()
    return np.asarray(times, np.float64)
