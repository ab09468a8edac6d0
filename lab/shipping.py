"""Files on a host under their digest: what is there already is not sent again."""

from __future__ import annotations

import hashlib
import posixpath
import tempfile
from pathlib import Path

from lab.errors import TransferFailed
from lab.host import Host

__all__ = ["ship_bytes", "ship_file"]


def ship_bytes(host: Host, directory: str, data: bytes, suffix: str) -> str:
    """Put `data` into a directory of the host, named by its SHA-256; returns the remote path.

    Files of this kind are small; they are renamed into place when whole, so that one which is
    there is believed. Raises LabError.
    """
    remote = posixpath.join(directory, hashlib.sha256(data).hexdigest()[:32] + suffix)
    if host.run(["test", "-s" if data else "-e", remote], check=False).returncode == 0:
        return remote
    host.run(["mkdir", "-p", directory])
    with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
        local = Path(scratch) / "file"
        local.write_bytes(data)
        host.put(local, remote)
    return remote


def ship_file(host: Host, path: Path, remote: str, digest: str) -> str:
    """Put a file that may be large at `remote`, unless what is there has this SHA-256.

    Returns `remote`. Raises TransferFailed when the copy has another digest, LabError.
    """
    if _digest_there(host, remote) != digest:
        host.run(["mkdir", "-p", posixpath.dirname(remote)])
        host.put(path, remote)
        if _digest_there(host, remote) != digest:
            raise TransferFailed(
                f"{host.name}: {remote} does not have the digest {digest[:12]}… of {path}; "
                "was the file changed while it was copied? run again"
            )
    return remote


def _digest_there(host: Host, remote: str) -> str:
    done = host.run(["sha256sum", remote], check=False, timeout=600)
    return (done.stdout.split() or [""])[0] if done.returncode == 0 else ""
