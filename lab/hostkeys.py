"""Host keys: looking them up in known_hosts files and saying what is wrong with one.

The format is sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT": plain and hashed names, patterns with * and ?,
negation, [name]:port, and the @revoked marker. @cert-authority lines are skipped: host certificates
are not supported, so a host known only by its authority is refused as unknown.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import HostKeyError

__all__ = ["KnownKey", "fingerprint", "known_keys", "lookup_name", "verify"]


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One line of a known_hosts file that names the host; `blob` is the key in SSH wire form."""

    file: Path
    line: int
    kind: str
    blob: bytes
    revoked: bool


def fingerprint(blob: bytes) -> str:
    """The fingerprint as OpenSSH prints it (ssh-keygen -lf): SHA256:<base64 without padding>."""
    digest = hashlib.sha256(blob).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def lookup_name(host: str, port: int) -> str:
    """The name under which known_hosts files have a host."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def known_keys(name: str, files: Iterable[Path]) -> list[KnownKey]:
    """Every key recorded for `name`, in order; missing or unreadable files count as empty."""
    found = []
    for file in files:
        try:
            lines = file.read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if not fields or fields[0].startswith("#"):
                continue
            marker = fields.pop(0) if fields[0].startswith("@") else ""
            if marker not in ("", "@revoked") or len(fields) < 3 or not _names(fields[0], name):
                continue
            try:
                blob = base64.b64decode(fields[2], validate=True)
            except binascii.Error:
                continue
            found.append(KnownKey(file, number, fields[1], blob, marker == "@revoked"))
    return found


def _names(patterns: str, name: str) -> bool:
    """True when the first field of a line covers `name`."""
    if patterns.startswith("|1|"):
        salt, _, digest = patterns[3:].partition("|")
        try:
            expected = hmac.new(base64.b64decode(salt), name.encode(), "sha1").digest()
            return hmac.compare_digest(expected, base64.b64decode(digest))
        except (binascii.Error, ValueError):
            return False
    matched = False
    for pattern in patterns.lower().split(","):
        negated = pattern.startswith("!")
        # [name]:port is literal; only * and ? are special (ssh_config(5), PATTERNS).
        escaped = pattern.lstrip("!").replace("[", "[[]")
        if fnmatch.fnmatchcase(name, escaped):
            if negated:
                return False
            matched = True
    return matched


def verify(
    host: str, name: str, blob: bytes, kind: str, known: Sequence[KnownKey], files: Sequence[Path]
) -> None:
    """Check the key that a host presented. Raises HostKeyError saying which file to look at.

    `host` is the inventory's name for messages, `name` the known_hosts name.
    """
    shown = f"{kind} {fingerprint(blob)}"
    same = [key for key in known if key.blob == blob]
    for key in same:
        if key.revoked:
            raise HostKeyError(
                f"{host}: the key of {name} ({shown}) is revoked in {key.file} line {key.line}"
            )
    if same:
        return
    usable = [key for key in known if not key.revoked]
    changed = [key for key in usable if key.kind == kind] or usable
    if changed:
        key = changed[0]
        raise HostKeyError(
            f"{host}: the key of {name} has CHANGED: it presents {shown}, but {key.file} line "
            f"{key.line} has {key.kind} {fingerprint(key.blob)}; if the host was reinstalled, "
            f"replace that line (ssh-keygen -R '{name}' -f {key.file}), otherwise somebody may "
            "be in between"
        )
    file = files[0] if files else "known_hosts"
    raise HostKeyError(
        f"{host}: the key of {name} is unknown ({shown}); compare it with `ssh-keygen -lf` on "
        f"the host, then add it to {file}"
    )
