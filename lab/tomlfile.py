"""Reading a TOML file that a person wrote, and saying in one line what is wrong with it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

__all__ = ["first_problem", "read_toml"]


def read_toml(path: Path) -> dict[str, Any]:
    """The file's table. Raises FileNotFoundError, and ValueError with a line for people."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not a TOML file (not UTF-8 text at offset {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not TOML: {error}") from None


def first_problem(error: ValidationError) -> str:
    """`key: what is wrong`, of the first thing that is."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{key}: no such key; remove it or correct its name"
    if first["type"] == "missing":
        return f"{key}: this key is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message
