"""A virtual lab for live tests: one for the session, under a name that no other run uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import virtual


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    """Live tests make namespaces: they need root."""
    if os.geteuid() != 0:
        pytest.skip("live tests need root")


@pytest.fixture(scope="session")
def lab_name() -> str:
    """A lab's name of this test run alone."""
    return f"test{os.getpid()}"


@pytest.fixture(scope="session")
def live_lab(lab_name: str) -> Iterator[Path]:
    """Path of the inventory of a lab that is up for the whole session."""
    try:
        yield virtual.up(lab_name)
    finally:
        virtual.down(lab_name)
