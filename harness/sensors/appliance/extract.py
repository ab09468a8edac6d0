"""One number out of a text: by JSON path, regular expression or CSV column."""

from __future__ import annotations

import csv
import io
import json
import re
from functools import lru_cache
from typing import Any, Literal

from pydantic import field_validator, model_validator

from harness.errors import ConfigError, SensorFailed
from harness.sensors.appliance.options import CounterSpec
from harness.sensors.appliance.readings import number

__all__ = ["Document", "TextCounter"]


class TextCounter(CounterSpec):
    """`path` (JSON path), `regex` (its group 1, or the whole), or `column` of a CSV table.

    Every match counts: a path or expression that matches often gives the sum. Of a CSV table `row`
    takes the last row (a log that grows) or the sum of all.
    """

    path: str | None = None
    regex: str | None = None
    column: str | None = None
    row: Literal["last", "sum"] = "last"

    @field_validator("regex")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _one_way(self) -> TextCounter:
        if sum(way is not None for way in (self.path, self.regex, self.column)) != 1:
            raise ValueError("give one of path (JSON), regex (text) and column (CSV)")
        return self

    @property
    def words(self) -> str:
        """How it is looked for, for messages."""
        key = "path" if self.path else "regex" if self.regex else "column"
        return f"{key} {getattr(self, key)!r}"


@lru_cache(maxsize=256)
def _parse_path(path: str) -> Any:
    try:
        from jsonpath_ng.ext import parse  # type: ignore[attr-defined]  # slow to import, and only here
    except ImportError:
        raise ConfigError(
            "inventory: JSON paths need the package jsonpath-ng: pip install 'probebench[rest]'"
        ) from None
    try:
        return parse(path)
    except Exception as error:  # its parser raises bare Exceptions
        raise ConfigError(f"inventory: {path!r} is not a JSON path: {error}") from None


class Document:
    """What a sensor said, parsed once for each way of looking into it. `where` names its source."""

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._json: Any = None
        self._rows: list[dict[str, str]] | None = None

    def find(self, name: str, spec: TextCounter) -> dict[str, float]:
        """The counter's values by place. Raises SensorFailed when it is not there."""
        if spec.path is not None:
            found = self._by_path(spec.path)
        elif spec.regex is not None:
            found = self._by_regex(spec.regex)
        else:
            assert spec.column is not None
            found = self._by_column(spec.column, spec.row)
        if not found and spec.absent == "error":
            raise SensorFailed(
                f"{self._where}: counter {name}: nothing at {spec.words} in the answer "
                f'({self._text.strip()[:80]!r}…); correct it, or set absent = "zero"'
            )
        try:
            return {place: number(value) for place, value in found.items()}
        except ValueError as error:
            raise SensorFailed(f"{self._where}: counter {name} at {spec.words}: {error}") from None

    def text_at(self, path: str) -> str:
        """The text at a JSON path; empty where there is none. Raises SensorFailed."""
        return next((str(value) for value in self._by_path(path).values()), "")

    def _by_path(self, path: str) -> dict[str, object]:
        if self._json is None:
            try:
                self._json = json.loads(self._text)
            except ValueError as error:
                raise SensorFailed(
                    f"{self._where}: the answer is not JSON ({error}): {self._text.strip()[:80]!r}"
                ) from None
        matches = _parse_path(path).find(self._json)
        return {str(match.full_path).replace("'", ""): match.value for match in matches}

    def _by_regex(self, pattern: str) -> dict[str, object]:
        found = re.compile(pattern, re.MULTILINE).finditer(self._text)
        return {
            f"match {at}": match[1] if match.re.groups else match[0]
            for at, match in enumerate(found, 1)
        }

    def _by_column(self, column: str, row: str) -> dict[str, object]:
        if self._rows is None:
            # A first line with # is how perf logs mark their header.
            text = self._text.removeprefix("#")
            self._rows = list(csv.DictReader(io.StringIO(text), skipinitialspace=True))
        rows = [r for r in self._rows if r.get(column) not in (None, "")]
        if not rows:
            return {}
        if row == "last":
            return {column: rows[-1][column]}
        try:
            return {column: sum(number(r[column]) for r in rows)}
        except ValueError as error:
            raise SensorFailed(f"{self._where}: column {column!r}: {error}") from None
