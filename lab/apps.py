"""Servers of the recording: nginx, dnsmasq, sshd and a mail server, each with its own files.

All run in the server namespace, in the foreground, from one directory that is removed afterwards.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lab import netns_tools as net
from lab.addresses import DMZ_SSH, DNS, MAIL, NAMES
from lab.crew import Crew, Member
from lab.errors import LabError
from lab.sshd import Server, make_keys

__all__ = ["SLOW_BYTES", "Site", "start_servers"]

BULK_BYTES = 400_000
SLOW_BYTES = 240_000
_WORDS = b"The quick brown fox jumps over the lazy dog. "


@dataclass(frozen=True, slots=True)
class Site:
    """Where the recording's files are: what servers serve and what clients send."""

    directory: Path

    @property
    def web(self) -> Path:
        """Document root."""
        return self.directory / "www"

    @property
    def key(self) -> Path:
        """The client's SSH key."""
        return self.directory / "client_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The client's known_hosts."""
        return self.directory / "known_hosts"

    @property
    def sshd(self) -> Path:
        """Directory of the SSH server."""
        return self.directory / "sshd"

    @property
    def report(self) -> Path:
        """A small file that clients upload."""
        return self.directory / "report.txt"

    def mail(self, kind: str) -> Path:
        """A message, "plain" or "confidential"."""
        return self.directory / f"mail-{kind}.eml"

    def write(self) -> None:
        """Make every page, file and message."""
        self.web.mkdir(parents=True)
        for name, size in (
            ("index.html", 900),
            ("news.html", 4_200),
            ("style.css", 1_500),
            ("logo.png", 7_000),
            ("bulk.bin", BULK_BYTES),
            ("slow.bin", SLOW_BYTES),
        ):
            (self.web / name).write_bytes(_text(size))
        # In two halves, so that no virus scanner mistakes this very file for the test file.
        eicar = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
        (self.web / "invoice.com").write_text(eicar)
        self.report.write_bytes(_text(9_000))
        for kind, body in (
            ("plain", "The meeting is moved to Thursday, same room."),
            ("confidential", "Please forward: PROJECT NIGHTJAR INTERNAL, do not distribute."),
        ):
            head = "From: anna@home.example\r\nTo: bert@partner.example\r\nSubject: a note\r\n"
            self.mail(kind).write_bytes(f"{head}\r\n{body}\r\n".encode())


def _text(size: int) -> bytes:
    return (_WORDS * (size // len(_WORDS) + 1))[:size]


def start_servers(crew: Crew, site: Site, namespace: str) -> Server:
    """Start all servers and wait until each listens; returns the sshd, which is not in the crew.

    (sshd goes into the background by itself; its pid file says which it is.) Raises LabError.
    """
    site.write()
    waiting = [
        (_nginx(crew, site, namespace), "tcp", 80),
        (_dnsmasq(crew, namespace), "udp", 53),
        (_mail(crew, namespace), "tcp", 25),
    ]
    server = Server(namespace, site.sshd, DMZ_SSH, make_keys(site.key, "recording"))
    server.start()
    site.known_hosts.write_text(f"{DMZ_SSH} {server.host_key()}\n")
    for member, proto, port in waiting:
        _wait_listening(crew, member, namespace, (proto, port))
    return server


def _nginx(crew: Crew, site: Site, namespace: str) -> Member:
    prefix = site.directory / "nginx"
    prefix.mkdir()
    make_certificate(site.directory)
    (prefix / "nginx.conf").write_text(_nginx_configuration(site, prefix))
    argv = ["nginx", "-p", f"{prefix}/", "-c", "nginx.conf", "-e", str(prefix / "error.log")]
    return crew.start("nginx", argv, namespace=namespace)


def make_certificate(directory: Path) -> None:
    """A self-signed certificate for every name of the recording: tls.crt and tls.key."""
    names = ",".join(f"DNS:{name}" for name in NAMES)
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    argv += ["-nodes", "-days", "30", "-subj", "/CN=www.shop.example"]
    argv += ["-addext", f"subjectAltName={names}"]
    argv += ["-keyout", str(directory / "tls.key"), "-out", str(directory / "tls.crt")]
    net.run(argv)


def _nginx_configuration(site: Site, prefix: Path) -> str:
    temporary = "\n".join(
        f"  {kind}_temp_path {prefix}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    listen = """\
    listen 0.0.0.0:80{0};
    listen [::]:80{0};
    listen 0.0.0.0:443 ssl{0};
    listen [::]:443 ssl{0};"""
    if not net.has_ipv6():
        listen = "\n".join(line for line in listen.splitlines() if "[::]" not in line)
    server = f"""\
    root {site.web};
    location = /form {{ return 200 "thank you\\n"; }}
    location = /api {{ default_type application/json; return 200 '{{"ok":true}}\\n'; }}
    location = /slow.bin {{ limit_rate 45k; }}"""
    return f"""\
daemon off;
user root;
worker_processes 1;
pid {prefix}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
{temporary}
  types {{ text/html html; text/css css; image/png png; }}
  default_type application/octet-stream;
  keepalive_timeout 65;
  keepalive_requests 10000;
  ssl_certificate {site.directory}/tls.crt;
  ssl_certificate_key {site.directory}/tls.key;
  ssl_protocols TLSv1.2 TLSv1.3;
  server {{
{listen.format(" default_server")}
    server_name _;
{server}
  }}
  server {{
{listen.format("")}
    server_name www.news.example cdn.news.example;
    add_header X-Vhost news;
{server}
  }}
}}
"""


def _dnsmasq(crew: Crew, namespace: str) -> Member:
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]
    argv += ["--user=root", "--group=root", "--pid-file=", "--no-daemon", "--local=/example/"]
    argv += [
        f"--listen-address={','.join(DNS if net.has_ipv6() else DNS[:1])}",
        "--bind-interfaces",
        "--local-ttl=300",
    ]
    for name, addresses in NAMES.items():
        argv.append(f"--host-record={name},{','.join(addresses)}")
    argv.append("--txt-record=shop.example,v=spf1 mx -all")
    argv.append("--txt-record=big.example," + ",".join(["x" * 200] * 8))  # more than UDP carries
    argv.append("--mx-host=partner.example,mail.partner.example,10")
    return crew.start("dnsmasq", argv, namespace=namespace)


def _mail(crew: Crew, namespace: str) -> Member:
    script = Path(__file__).with_name("smtp_responder.py")
    argv = [sys.executable, "-I", "-S", str(script), MAIL, "25"]
    return crew.start("mail", argv, namespace=namespace)


def _wait_listening(crew: Crew, member: Member, namespace: str, port: tuple[str, int]) -> None:
    ss = shutil.which("ss") or "ss"
    until = time.monotonic() + 8.0
    flag = "-Hlnt" if port[0] == "tcp" else "-Hlnu"
    while not net.run(net.in_namespace(namespace, [ss, flag, f"sport = :{port[1]}"])).stdout:
        crew.check(member)
        if time.monotonic() > until:
            raise LabError(f"{member.label} does not listen on {port}: {member.last_words()}")
        time.sleep(0.03)
