"""Where an SSH connection goes: the inventory's words resolved through the user's ssh_config.

OpenSSH itself is asked (`ssh -G`), since only it knows Include, Match, canonicalisation and tokens
in full. Without the program, paramiko's reader of the same format is used; it has no Include.
"""

from __future__ import annotations

import getpass
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.errors import ConnectError
from lab.hostkeys import lookup_name
from lab.inventory import HostSpec

__all__ = ["Target", "resolve"]

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True, slots=True)
class Target:
    """One host to connect to, everything resolved.

    `known_as` is its name in known_hosts files; `jumps` are the hosts to go through, in order.
    """

    hostname: str
    port: int
    user: str
    known_as: str
    identities: tuple[Path, ...]
    known_hosts: tuple[Path, ...]
    use_agent: bool
    only_identities: bool
    family: str
    jumps: tuple[str, ...]
    proxy_command: str | None

    @property
    def shown(self) -> str:
        """user@host:port, for messages."""
        host = f"[{self.hostname}]" if ":" in self.hostname else self.hostname
        return f"{self.user}@{host}:{self.port}"


def resolve(name: str, spec: HostSpec, address: str | None = None) -> Target:
    """Resolve the host `name`, or a jump host given as [user@]address[:port].

    Explicit keys of the inventory go before the ssh_config; for jump hosts only `ssh_config` and
    `known_hosts` count. Raises ConnectError.
    """
    if address is None:
        assert spec.address is not None
        asked, user, port = spec.address, spec.user, spec.port
        identity = spec.identity
    else:
        asked, user, port = _split_jump(address)
        identity = None
    options = _options(name, asked, user, port, spec.ssh_config)
    hostname = options.get("hostname", [asked])[-1]
    number = port or int(options.get("port", ["22"])[-1])
    login = user or options.get("user", [getpass.getuser()])[-1]
    tokens = {"%": "%", "h": hostname, "p": str(number), "r": login, "n": asked}
    tokens |= {"u": getpass.getuser(), "d": str(Path.home())}
    alias = options.get("hostkeyalias", [""])[-1]
    jump = options.get("proxyjump", ["none"])[-1]
    command = options.get("proxycommand", ["none"])[-1]
    if identity is not None:
        identities: list[Path] = [identity]
    else:
        identities = [_path(t, tokens) for t in options.get("identityfile", [])]
        identities = identities or [Path.home() / ".ssh" / key for key in _DEFAULT_KEYS]
    return Target(
        hostname=hostname,
        port=number,
        user=login,
        # A HostKeyAlias is looked up as it is, without the port (ssh_config(5)).
        known_as=alias.lower() or lookup_name(hostname, number),
        identities=tuple(identities),
        known_hosts=_known_files(spec, options, tokens),
        use_agent=options.get("identityagent", [""])[-1].lower() != "none",
        only_identities=identity is not None
        or options.get("identitiesonly", ["no"])[-1].lower() in ("yes", "true"),
        family=options.get("addressfamily", ["any"])[-1].lower(),
        jumps=() if jump.lower() == "none" else tuple(jump.split(",")),
        proxy_command=None if command.lower() == "none" else _expand(command, tokens),
    )


def _known_files(
    spec: HostSpec, options: dict[str, list[str]], tokens: dict[str, str]
) -> tuple[Path, ...]:
    if spec.known_hosts is not None:
        return (spec.known_hosts,)
    user = options.get("userknownhostsfile", ["~/.ssh/known_hosts ~/.ssh/known_hosts2"])[-1]
    system = options.get("globalknownhostsfile", ["/etc/ssh/ssh_known_hosts"])[-1]
    names = [*shlex.split(user), *shlex.split(system)]
    return tuple(_path(n, tokens) for n in names if n.lower() != "none")


def _split_jump(text: str) -> tuple[str, str | None, int | None]:
    """[user@]host[:port], [user@][v6]:port or ssh://… into (host, user, port)."""
    text = text.strip().removeprefix("ssh://").rstrip("/")
    user, _, rest = text.rpartition("@")
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        port = tail.removeprefix(":")
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    else:
        host, port = rest, ""
    if not host or (port and not port.isdigit()):
        raise ConnectError(f"ProxyJump {text!r} is not [user@]host[:port]; correct the ssh_config")
    return host, user or None, int(port) if port else None


def _expand(text: str, tokens: dict[str, str]) -> str:
    """Percent tokens of ssh_config(5), TOKENS."""
    out = []
    it = iter(text)
    for char in it:
        if char == "%":
            token = next(it, "%")
            out.append(tokens.get(token, "%" + token))
        else:
            out.append(char)
    return "".join(out)


def _path(text: str, tokens: dict[str, str]) -> Path:
    return Path(_expand(text.strip('"'), tokens)).expanduser()


def _options(
    name: str, address: str, user: str | None, port: int | None, config: Path | None
) -> dict[str, list[str]]:
    """Every ssh_config option that applies, key in lower case, values in order."""
    if config is not None and not config.is_file():
        raise ConnectError(
            f"{name}: ssh_config {config} does not exist; correct hosts.{name}.ssh_config"
        )
    if address.startswith("-"):
        raise ConnectError(f"{name}: {address!r} is not an address")
    if shutil.which("ssh") is None:
        return _options_by_paramiko(address, config)
    argv = ["ssh", "-G", "-T"]
    argv += ["-F", str(config)] if config is not None else []
    argv += ["-l", user] if user else []
    argv += ["-p", str(port)] if port else []
    done = subprocess.run([*argv, "--", address], capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        last = (done.stderr.strip() or "unknown reason").splitlines()[-1]
        raise ConnectError(f"{name}: ssh_config cannot be read: {last}")
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key.lower(), []).append(value)
    return found


def _options_by_paramiko(address: str, config: Path | None) -> dict[str, list[str]]:
    import paramiko

    file = config or Path.home() / ".ssh" / "config"
    if not file.is_file():
        return {}
    try:
        looked_up = paramiko.SSHConfig.from_path(str(file)).lookup(address)
    except paramiko.ssh_exception.ConfigParseError as error:
        raise ConnectError(f"ssh_config {file} cannot be read: {error}") from None
    return {k: v if isinstance(v, list) else [str(v)] for k, v in looked_up.items()}
