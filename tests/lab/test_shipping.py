"""Shipping by digest: once, whole, and never a stale copy."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lab.errors import TransferFailed
from lab.fake import Call, FakeHost, Reply
from lab.shipping import ship_bytes, ship_file


class Disk(FakeHost):
    """A host whose `test` and `sha256sum` look at its files."""

    def __init__(self) -> None:
        super().__init__(self._answer, name="gen")
        self.damage = b""
        self.puts = 0

    def _answer(self, call: Call) -> Reply:
        path = call.argv[-1]
        if call.argv[0] == "test":
            return Reply(returncode=0 if path in self.files else 1)
        if call.argv[0] == "sha256sum":
            if path not in self.files:
                return Reply(returncode=1)
            return Reply(f"{hashlib.sha256(self.files[path]).hexdigest()}  {path}\n")
        return Reply()

    def put(self, local: Path, remote: str) -> None:
        self.puts += 1
        super().put(local, remote)
        self.files[remote] += self.damage


def test_bytes_travel_once() -> None:
    host = Disk()
    first = ship_bytes(host, "/w/store", b"one", ".yaml")
    assert ship_bytes(host, "/w/store/", b"one", ".yaml") == first and host.puts == 1
    assert host.files[first] == b"one" and first.endswith(".yaml")
    assert ship_bytes(host, "/w/store", b"two", ".yaml") != first and host.puts == 2


def test_a_file_is_checked_where_it_arrives(tmp_path: Path) -> None:
    host, local = Disk(), tmp_path / "c.pcap"
    local.write_bytes(b"capture")
    digest = hashlib.sha256(b"capture").hexdigest()
    host.damage = b"!"
    with pytest.raises(TransferFailed, match=r"^gen: /w/c/x\.pcap does not have the digest"):
        ship_file(host, local, "/w/c/x.pcap", digest)
    host.damage = b""
    assert ship_file(host, local, "/w/c/x.pcap", digest) == "/w/c/x.pcap"
    ship_file(host, local, "/w/c/x.pcap", digest)
    assert host.puts == 2, "the damaged copy was sent again, the whole one was not"
