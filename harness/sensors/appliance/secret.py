"""Secrets of an inventory: named there, kept elsewhere.

An inventory is stored with every run, so it only says where a secret is: an environment variable or
a file of the orchestrator. What was read is never put into a message, a log or a result.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from harness.errors import ConfigError

__all__ = ["Secret"]


class Secret(BaseModel):
    """`{ env = "NAME" }` or `{ file = "/path" }` (its first line)."""

    # A secret that was written out must not come back in an error message.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _not_written_out(cls, value: Any) -> Any:
        if not isinstance(value, (dict, Secret)):
            raise ValueError(
                'a secret is not written into the inventory: give { env = "NAME" } or '
                '{ file = "/path" }'
            )
        return value

    @model_validator(mode="after")
    def _one_place(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError('give either env = "NAME" or file = "/path"')
        return self

    def read(self, key: str) -> str:
        """The secret; `key` names it in messages. Raises ConfigError when it is not there."""
        if self.env is not None:
            value = os.environ.get(self.env, "")
            if not value:
                raise ConfigError(
                    f"inventory: {key}: the environment variable {self.env} is not set; export it "
                    "before you start"
                )
            return value
        assert self.file is not None
        try:
            first = self.file.expanduser().read_text().splitlines()[:1]
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not a text file"
            raise ConfigError(f"inventory: {key}: cannot read {self.file}: {why}") from None
        if not first or not first[0].strip():
            raise ConfigError(f"inventory: {key}: {self.file} is empty")
        return first[0].strip()
