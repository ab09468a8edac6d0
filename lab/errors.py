"""Every error lab raises on purpose.

LabError                       exit status 3
 ├─ InventoryError             exit status 2: lab.toml is wrong (file and key are named)
 ├─ OptionError                exit status 2: an option has a value that makes no sense
 ├─ GuardError                 exit status 2: refused before anything was sent
 ├─ MissingTool                exit status 3: a program or a right is missing on a host
 ├─ ConnectError               the host cannot be reached or did not let us in
 │   ├─ HostKeyError           unknown or changed host key
 │   └─ AuthError              no key was accepted
 ├─ ConnectionLost             the connection broke after it was made
 ├─ CommandFailed              a command on a host ended with another status than 0
 ├─ CommandTimeout             a command on a host did not end in its time
 └─ TransferFailed             a file could not be copied to or from a host

A message says what was wrong, on which host, and what to do, in one line. No secret is in it.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AuthError",
    "CommandFailed",
    "CommandTimeout",
    "ConnectError",
    "ConnectionLost",
    "GuardError",
    "HostKeyError",
    "InventoryError",
    "LabError",
    "MissingTool",
    "OptionError",
    "TransferFailed",
]


class LabError(Exception):
    """Base of the package's errors; `exit_status` is what the command line returns."""

    exit_status: ClassVar[int] = 3


class InventoryError(LabError):
    """The inventory file is wrong."""

    exit_status = 2


class OptionError(LabError):
    """An option has a value that makes no sense; the option is named."""

    exit_status = 2


class GuardError(LabError):
    """Transmission refused: the interface is not declared for tests, or carries other traffic."""

    exit_status = 2


class MissingTool(LabError):
    """A program, a kernel feature or a right that is needed is missing on a host."""


class ConnectError(LabError):
    """The host cannot be reached or did not let us in."""


class HostKeyError(ConnectError):
    """The host's key is unknown or is not the one recorded."""


class AuthError(ConnectError):
    """The host accepted none of the keys offered."""


class ConnectionLost(LabError):
    """An established connection broke."""


class CommandFailed(LabError):
    """A command ended with a status other than 0."""


class CommandTimeout(LabError):
    """A command did not end in its time."""


class TransferFailed(LabError):
    """A file could not be copied to or from a host."""
