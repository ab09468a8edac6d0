"""One authenticated SSH connection: sockets, jumps, host keys, user keys, and a watch on it.

One try per host and a bounded time for each step; no password is ever asked for. A connection is
declared lost when nothing was heard for `LOST_AFTER` seconds although a reply was asked for,
through however many jumps it goes (TCP itself would take a quarter of an hour to notice).
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko

from lab.errors import AuthError, ConnectError, LabError
from lab.hostkeys import known_keys, verify
from lab.inventory import HostSpec
from lab.sshconfig import Target, resolve

__all__ = ["Link", "connect_link"]

TIMEOUT = 10.0  # seconds for each of: TCP, key exchange, authentication
PING_EVERY = 2.0
LOST_AFTER = 8.0
MAX_HOPS = 8

# Without a handler of its own, a library's errors go to standard error as tracebacks.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class _Heard:
    """A socket that remembers whether anything came in (paramiko takes anything socket-like)."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.count = 0

    def recv(self, size: int) -> bytes:
        data: bytes = self._sock.recv(size)
        self.count += 1
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Link:
    """An authenticated transport, with the transports it goes through; closed together."""

    def __init__(
        self, name: str, target: Target, transport: paramiko.Transport, heard: _Heard
    ) -> None:
        self.name = name
        self.target = target
        self.transport = transport
        self.below: list[Link] = []
        self.proxy: subprocess.Popen[bytes] | None = None
        self._heard = heard
        self._closed = threading.Event()

    @property
    def alive(self) -> bool:
        """True while the connection is usable."""
        return self.transport.is_active()

    def watch(self) -> None:
        """Begin to ask for a reply every `PING_EVERY` seconds, and to close a dead connection."""
        for work in (self._ping, self._listen):
            threading.Thread(target=work, name=f"{self.name}:watch", daemon=True).start()

    def close(self) -> None:
        """Close it and what it goes through; idempotent."""
        self._closed.set()
        self.transport.close()
        for link in self.below:
            link.close()
        if self.proxy is not None:
            self.proxy.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.proxy.wait(1.0)

    def _ping(self) -> None:
        while not self._closed.wait(PING_EVERY) and self.alive:
            try:
                self.transport.global_request("keepalive@openssh.com", wait=True)
            except (OSError, EOFError, paramiko.SSHException):
                return

    def _listen(self) -> None:
        # Counting ticks, not time: a program that was stopped for a while (SIGSTOP, suspend) would
        # otherwise take its own sleep for the network's silence.
        last, quiet = -1, 0
        while not self._closed.wait(PING_EVERY) and self.alive:
            quiet = quiet + 1 if self._heard.count == last else 0
            last = self._heard.count
            if quiet * PING_EVERY >= LOST_AFTER:
                self.transport.close()
                return


def connect_link(name: str, spec: HostSpec) -> Link:
    """Connect to the host `name` of the inventory, through its jumps.

    Raises ConnectError, HostKeyError, AuthError, each naming the host in one line.
    """
    link = _connect(name, spec, resolve(name, spec), 0)
    link.watch()
    return link


def _connect(name: str, spec: HostSpec, target: Target, depth: int) -> Link:
    if depth > MAX_HOPS:
        raise ConnectError(f"{name}: more than {MAX_HOPS} jumps; is there a loop of ProxyJump?")
    below: list[Link] = []
    proxy: subprocess.Popen[bytes] | None = None
    sock: Any
    try:
        if target.jumps:
            for number, jump in enumerate(target.jumps):
                hop = resolve(name, spec, jump)
                if number == 0:
                    # Only the first hop's own ProxyJump counts, as with `ssh -J` (ssh_config(5)).
                    below.append(_connect(name, spec, hop, depth + 1))
                else:
                    below.append(_over(name, hop, _tunnel(name, below[-1], hop)))
            sock = _tunnel(name, below[-1], target)
        elif target.proxy_command:
            sock, proxy = _proxy(name, target)
        else:
            sock = _dial(name, target)
        link = _over(name, target, sock)
    except BaseException:
        for made in reversed(below):
            made.close()
        if proxy is not None:
            proxy.kill()
            proxy.wait()
        raise
    link.below = below[::-1]
    link.proxy = proxy
    return link


def _dial(name: str, target: Target) -> socket.socket:
    """A TCP connection within `TIMEOUT`, over the addresses in the resolver's order."""
    families = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
    family = families.get(target.family, socket.AF_UNSPEC)
    limit = time.monotonic() + TIMEOUT
    reason = "no address"
    try:
        found = socket.getaddrinfo(target.hostname, target.port, family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectError(
            f"{name}: cannot resolve {target.hostname}: {error.strerror}; correct "
            f"hosts.{name}.address or the ssh_config"
        ) from None
    for kind, _, _, _, address in found:
        sock = socket.socket(kind, socket.SOCK_STREAM)
        try:
            sock.settimeout(max(limit - time.monotonic(), 0.1))
            sock.connect(address)
        except OSError as error:
            sock.close()
            slow = isinstance(error, TimeoutError)
            reason = f"no answer within {TIMEOUT:.0f} s" if slow else error.strerror or str(error)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
    raise ConnectError(
        f"{name}: cannot connect to {target.shown}: {reason}; check the address, the port and "
        "that sshd runs there"
    )


def _tunnel(name: str, below: Link, target: Target) -> paramiko.Channel:
    """A direct-tcpip channel (RFC 4254, 7.2) from a jump host to the next one."""
    try:
        return below.transport.open_channel(
            "direct-tcpip", (target.hostname, target.port), ("127.0.0.1", 0), timeout=TIMEOUT
        )
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise ConnectError(
            f"{name}: the jump host {below.target.shown} cannot connect to "
            f"{target.hostname}:{target.port}: {_reason(error)}"
        ) from None


def _proxy(name: str, target: Target) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The connection that a ProxyCommand makes, as a socket pair (so that its death is seen)."""
    assert target.proxy_command is not None
    ours, theirs = socket.socketpair()
    argv = ["sh", "-c", f"exec {target.proxy_command}"]
    if shutil.which("setsid"):
        argv = ["setsid", *argv]  # Ctrl-C is ours to handle, not the proxy's to die of
    try:
        process = subprocess.Popen(
            argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL
        )
    except OSError as error:
        ours.close()
        raise ConnectError(f"{name}: ProxyCommand failed: {error.strerror}") from None
    finally:
        theirs.close()
    return ours, process


def _over(name: str, target: Target, sock: Any) -> Link:
    """SSH over a connected socket: key exchange, host key, user key."""
    heard = _Heard(sock)
    try:
        # The constructor sets a timeout on the socket, which may fail already.
        transport = paramiko.Transport(heard)  # type: ignore[arg-type]
    except (OSError, EOFError, paramiko.SSHException) as error:
        sock.close()
        raise ConnectError(f"{name}: {target.shown}: {_reason(error)}") from None
    transport.banner_timeout = TIMEOUT
    transport.auth_timeout = TIMEOUT
    link = Link(name, target, transport, heard)
    try:
        _check_host(name, target, transport)
        _authenticate(name, target, transport)
    except LabError:
        link.close()
        raise
    except (paramiko.SSHException, OSError, EOFError) as error:
        link.close()
        raise ConnectError(
            f"{name}: {target.shown} answers but the SSH connection failed: {_reason(error)}"
        ) from None
    except BaseException:
        link.close()
        raise
    return link


def _reason(error: BaseException) -> str:
    """One line, never empty."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__


def _check_host(name: str, target: Target, transport: paramiko.Transport) -> None:
    """Exchange keys, asking first for the kinds of key that are on record, and verify."""
    known = known_keys(target.known_as, target.known_hosts)
    options = transport.get_security_options()
    recorded = {key.kind for key in known if not key.revoked}
    if "ssh-rsa" in recorded:
        recorded |= {"rsa-sha2-512", "rsa-sha2-256"}
    kinds = list(options.key_types)
    options.key_types = sorted(kinds, key=lambda kind: kind not in recorded)
    transport.start_client(timeout=TIMEOUT)
    key = transport.get_remote_server_key()
    verify(name, target.known_as, key.asbytes(), key.get_name(), known, target.known_hosts)


def _authenticate(name: str, target: Target, transport: paramiko.Transport) -> None:
    """Offer the keys, one after the other. Raises AuthError naming those that were tried."""
    notes: list[str] = []
    for key, label in _keys(target, notes):
        try:
            more = transport.auth_publickey(target.user, key)
        except paramiko.BadAuthenticationType:
            raise AuthError(
                f"{name}: {target.shown} accepts no public keys; allow PubkeyAuthentication there"
            ) from None
        except paramiko.AuthenticationException:
            notes.append(label)
            if not transport.is_active():
                break
            continue
        except paramiko.SSHException as error:
            notes.append(f"{label} ({_reason(error)})")
            if not transport.is_active():
                break
            continue
        if more:
            raise AuthError(
                f"{name}: {target.shown} wants a second factor ({', '.join(more)}), which an "
                "unattended run cannot give; allow the key alone for this user"
            )
        return
    tried = "; ".join(notes) or "there was none: no agent and no key file"
    raise AuthError(
        f"{name}: {target.shown} accepted no key (tried {tried}); add the public key to the "
        f"user's authorized_keys there, or set hosts.{name}.identity"
    )


def _keys(target: Target, notes: list[str]) -> Iterator[tuple[paramiko.PKey, str]]:
    """Keys in OpenSSH's order: files of the configuration (by the agent where locked), agent."""
    agent = paramiko.Agent() if target.use_agent else None
    held = list(agent.get_keys()) if agent is not None else []
    used: set[bytes] = set()
    try:
        for file in target.identities:
            if not file.exists():
                if target.only_identities:
                    notes.append(f"{file}, which does not exist")
                continue
            try:
                key: paramiko.PKey = paramiko.PKey.from_path(file)
            except (paramiko.PasswordRequiredException, TypeError):
                blob = _public_blob(file)
                matching = [k for k in held if k.asbytes() == blob]
                if not matching:
                    notes.append(f"{file}, which is locked: ssh-add it to an agent")
                    continue
                key = matching[0]
            except (paramiko.SSHException, OSError, ValueError) as error:
                notes.append(f"{file}, which cannot be read: {_reason(error)}")
                continue
            used.add(key.asbytes())
            yield key, str(file)
        if not target.only_identities:
            for number, one in enumerate(held, 1):
                if one.asbytes() not in used:
                    yield one, f"key {number} of the agent"
    finally:
        if agent is not None:
            agent.close()


def _public_blob(file: Path) -> bytes | None:
    """The public half of a locked key, from the .pub file beside it."""
    import base64
    import binascii

    try:
        return base64.b64decode(file.with_name(file.name + ".pub").read_text().split()[1])
    except (OSError, IndexError, binascii.Error, UnicodeDecodeError):
        return None
