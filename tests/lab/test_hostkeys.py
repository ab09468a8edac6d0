"""known_hosts look-ups, compared with ssh-keygen -F; fingerprints, with ssh-keygen -l."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.errors import HostKeyError
from lab.hostkeys import fingerprint, known_keys, lookup_name, verify

KEYGEN = shutil.which("ssh-keygen")
needs_keygen = pytest.mark.skipif(KEYGEN is None, reason="ssh-keygen is not installed")


def blob(fill: int) -> bytes:
    return b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([fill]) * 32


def line(names: str, fill: int, marker: str = "") -> str:
    return f"{marker}{names} ssh-ed25519 {base64.b64encode(blob(fill)).decode()} comment\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "known_hosts"
    path.write_text(
        "# comment\n\n"
        + line("gen,10.0.0.1", 1)
        + line("[probe.example]:2222", 2)
        + line("*.lab.example,!bad.lab.example", 3)
        + line("10.1.?.1", 4)
        + line("@cert-authority *", 9)
        + line("gen", 5)
    )
    return path


NAMES = [
    "gen",
    "10.0.0.1",
    "probe.example",
    "[probe.example]:2222",
    "[gen]:2222",
    "x.lab.example",
    "bad.lab.example",
    "10.1.7.1",
    "10.1.77.1",
    "unknown",
]


def by_ssh_keygen(name: str, file: Path) -> list[int]:
    assert KEYGEN is not None
    done = subprocess.run([KEYGEN, "-F", name, "-f", str(file)], capture_output=True, text=True)
    return [
        int(text.rsplit("line ", 1)[1].split()[0])
        for text in done.stdout.splitlines()
        if text.startswith("# Host") and "CA" not in text.split()
    ]


@needs_keygen
@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_finds_the_lines_that_openssh_finds(file: Path, name: str, hashed: bool) -> None:
    if hashed:
        assert KEYGEN is not None
        subprocess.run([KEYGEN, "-q", "-H", "-f", str(file)], check=True, capture_output=True)
        assert "|1|" in file.read_text()
    assert [key.line for key in known_keys(name, [file])] == by_ssh_keygen(name, file)


@needs_keygen
def test_fingerprints_are_openssh_s(file: Path) -> None:
    assert KEYGEN is not None
    done = subprocess.run(
        [KEYGEN, "-l", "-f", str(file)], capture_output=True, text=True, check=True
    )
    assert fingerprint(blob(1)) in done.stdout


def test_a_known_key_is_accepted(file: Path) -> None:
    for fill in (1, 5):
        verify("h", "gen", blob(fill), "ssh-ed25519", known_keys("gen", [file]), [file])


def test_an_unknown_host_is_refused_with_its_fingerprint(file: Path) -> None:
    with pytest.raises(HostKeyError) as refused:
        verify("h", "new", blob(7), "ssh-ed25519", [], [file])
    text = str(refused.value)
    assert fingerprint(blob(7)) in text and str(file) in text and "\n" not in text


def test_a_changed_key_names_the_line_and_both_fingerprints(file: Path) -> None:
    known = known_keys("[probe.example]:2222", [file])
    with pytest.raises(HostKeyError, match="CHANGED") as refused:
        verify("h", "[probe.example]:2222", blob(7), "ssh-ed25519", known, [file])
    text = str(refused.value)
    assert fingerprint(blob(2)) in text and fingerprint(blob(7)) in text
    assert f"{file} line 4" in text and "ssh-keygen -R '[probe.example]:2222'" in text


def test_a_revoked_key_is_refused_even_when_it_is_known_too(tmp_path: Path) -> None:
    file = tmp_path / "k"
    file.write_text(line("gen", 1) + line("*", 1, "@revoked "))
    with pytest.raises(HostKeyError, match="revoked"):
        verify("h", "gen", blob(1), "ssh-ed25519", known_keys("gen", [file]), [file])


def test_damaged_files_know_nothing(tmp_path: Path) -> None:
    file = tmp_path / "k"
    file.write_bytes(b"\xff\xfe\0\0\ngen ssh-ed25519 !!!!\n|1|%%%|x ssh-ed25519 AAAA\ngen\n@x\n")
    assert known_keys("gen", [file, tmp_path / "missing", tmp_path]) == []


def test_lookup_names() -> None:
    assert lookup_name("Gen.Example", 22) == "gen.example"
    assert lookup_name("fd00::1", 2222) == "[fd00::1]:2222"
