"""Where a connection goes, by `ssh -G` and by paramiko's reader alike."""

from __future__ import annotations

import getpass
import shutil
from pathlib import Path
from typing import Any

import pytest

from lab.errors import ConnectError
from lab.inventory import HostSpec
from lab.sshconfig import resolve

CONFIG = """
Host probe
  HostName 10.9.8.7
  Port 2222
  User evaluator
  IdentityFile {directory}/id_%h
  UserKnownHostsFile {directory}/known {directory}/known2
  ProxyJump bastion,ops@inner:2200
Host alias
  HostName 10.9.8.6
  HostKeyAlias the-alias
  IdentitiesOnly yes
  IdentityAgent none
Host via
  ProxyCommand nc -x proxy %h %p %%
Host *
  StrictHostKeyChecking no
"""


@pytest.fixture(params=["ssh -G", "paramiko"])
def config(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "ssh -G" and shutil.which("ssh") is None:
        pytest.skip("the OpenSSH client is not installed")
    if request.param == "paramiko":
        monkeypatch.setattr("lab.sshconfig.shutil.which", lambda name: None)
    file = tmp_path / "config"
    file.write_text(CONFIG.format(directory=tmp_path))
    return file


def spec(config: Path, address: str, **more: Any) -> HostSpec:
    return HostSpec(connection="ssh", address=address, ssh_config=config, **more)


def test_an_alias_is_resolved(config: Path, tmp_path: Path) -> None:
    target = resolve("p", spec(config, "probe"))
    assert (target.hostname, target.port, target.user) == ("10.9.8.7", 2222, "evaluator")
    assert target.known_as == "[10.9.8.7]:2222"
    assert target.identities == (tmp_path / "id_10.9.8.7",)
    assert target.known_hosts[:2] == (tmp_path / "known", tmp_path / "known2")
    assert Path("/etc/ssh/ssh_known_hosts") in target.known_hosts
    assert target.jumps == ("bastion", "ops@inner:2200")
    assert target.proxy_command is None
    assert target.shown == "evaluator@10.9.8.7:2222"


def test_the_inventory_goes_before(config: Path, tmp_path: Path) -> None:
    more = {"user": "root", "port": 22, "identity": tmp_path / "k", "known_hosts": tmp_path / "h"}
    target = resolve("p", spec(config, "probe", **more))
    assert (target.port, target.user, target.known_as) == (22, "root", "10.9.8.7")
    assert target.identities == (tmp_path / "k",)
    assert target.only_identities
    assert target.known_hosts == (tmp_path / "h",)


def test_aliases_agents_and_proxies(config: Path) -> None:
    target = resolve("p", spec(config, "alias"))
    assert target.known_as == "the-alias"
    assert target.only_identities
    assert not target.use_agent
    assert target.jumps == ()
    assert resolve("p", spec(config, "via")).proxy_command == "nc -x proxy via 22 %"


def test_without_a_word_in_the_config(config: Path) -> None:
    target = resolve("p", spec(config, "Other.example"))
    assert (target.hostname.lower(), target.port) == ("other.example", 22)
    assert target.user == getpass.getuser()
    assert Path.home() / ".ssh" / "id_ed25519" in target.identities
    assert target.use_agent and not target.only_identities


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ops@inner:2200", "ops@inner:2200"),
        ("ssh://ops@inner:2200/", "ops@inner:2200"),
        ("ops@[fd00::1]:2200", "ops@[fd00::1]:2200"),
        ("ops@fd00::1", "ops@[fd00::1]:22"),
        ("ops@inner", "ops@inner:22"),
    ],
)
def test_jump_hosts(config: Path, text: str, shown: str) -> None:
    assert resolve("p", spec(config, "probe", port=99), text).shown == shown


@pytest.mark.parametrize("text", ["", "a:b", "user@", "-oProxyCommand=x"])
def test_bad_jump_hosts_are_one_line(config: Path, text: str) -> None:
    with pytest.raises(ConnectError):
        resolve("p", spec(config, "probe"), text)


def test_a_missing_or_broken_config_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="does not exist"):
        resolve("p", spec(tmp_path / "none", "x"))
    broken = tmp_path / "broken"
    broken.write_text("Host x\n NoSuchOption yes\n")
    if shutil.which("ssh"):
        with pytest.raises(ConnectError, match="cannot be read") as failed:
            resolve("p", spec(broken, "x"))
        assert "\n" not in str(failed.value)
