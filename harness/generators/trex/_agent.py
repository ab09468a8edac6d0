"""Plays one job on a TRex server, on TRex's own host, with the Python client that matches it.

Shipped to the host and run there as `python3 _agent.py JOB.json`; standard library and TRex's
client only, Python 3.7 and later. One JSON object a line on standard output: "connected",
"started", "stats" (twice a second), "done", or "error" with a code and the client's own words.
Everything that the client prints besides goes to standard error. SIGTERM stops the traffic and
gives the ports back.

Client: trex-core v3.08, automation/trex_control_plane/interactive (trex.stl.api, trex.astf.api);
lbr-trex-client has the same; trex-stl-lib only `trex_stl_lib.api`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

POLL = 0.1
TELL = 0.5

# What the client says, and what that means; the first that fits.
CODES = (
    ("version-refused", ("mismatch", "api version", "api_ver", "methodnotsupported")),
    ("ports-taken", ("already taken", "already owned", "is owned by", "not owned", "acquired by")),
    ("resolve-failed", ("resolve", "unresolved", "arp")),
    ("out-of-memory", ("out of memory", "cannot allocate", "no memory", "memoryerror", "mbuf")),
    ("server-gone", ("failed to get server response", "not connected", "connection", "timeout",
                     "lost", "disconnected", "no response", "server was busy")),
)  # fmt: skip


class Stopped(Exception):
    """SIGTERM came."""


class Refused(Exception):
    """The server answers, and does not do what was asked."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: BaseException) -> str:
    """The short code of an exception of the client."""
    if isinstance(error, MemoryError):
        return "out-of-memory"
    if isinstance(error, Refused):
        return error.code
    if isinstance(error, ImportError):
        return "no-client"
    text = f"{type(error).__name__} {error}".lower()
    for code, words in CODES:
        if any(word in text for word in words):
            return code
    return "refused"


def one_line(error: BaseException) -> str:
    """An exception as one line without the client's colours."""
    text = str(error) or type(error).__name__
    if isinstance(error, (LookupError, TypeError, AttributeError)):
        text = f"{type(error).__name__} {text}"  # an answer that the client did not expect
    clean = []
    skip = False
    for letter in text:
        if letter == "\x1b":
            skip = True
        elif not skip:
            clean.append(letter)
        elif letter.isalpha():
            skip = False
    return " ".join("".join(clean).split())[:500] or type(error).__name__


class Talk:
    """Our lines; whatever else is printed goes to standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def __call__(self, event: str, **fields: Any) -> None:
        fields["event"] = event
        self._out.write(json.dumps(fields, sort_keys=True) + "\n")
        self._out.flush()


def load_api(job: dict[str, Any]) -> Any:
    """The client's module for the job's mode."""
    if job["client"] == "tree":
        tree = Path(job["tree"]) / "automation/trex_control_plane/interactive"
        sys.path.insert(0, str(tree))
    elif job["client"] == "lbr":
        import lbr_trex_client  # noqa: F401  (puts `trex` and what it needs on sys.path)
    elif job["mode"] == "stl":
        import trex_stl_lib.api as api

        return api
    else:
        raise ImportError("trex-stl-lib has no ASTF")
    if job["mode"] == "stl":
        import trex.stl.api as api
    else:
        import trex.astf.api as api
    return api


def client_of(api: Any, job: dict[str, Any]) -> Any:
    """A client object that is not connected yet."""
    kind = api.STLClient if job["mode"] == "stl" else api.ASTFClient
    return kind(
        username=job["user"],
        server=job["server"],
        sync_port=job["sync_port"],
        async_port=job["async_port"],
        verbose_level="error" if job["client"] != "stl-lib" else 0,
    )


def connect(client: Any, job: dict[str, Any]) -> None:
    """Connect as soon as the server is there. Raises what the client raises at the end."""
    limit = time.time() + job["patience"]
    while True:
        # A refused TCP connection says at once what the client needs seconds to find out.
        try:
            socket.create_connection((job["server"], job["sync_port"]), 1.0).close()
        except OSError:
            if time.time() >= limit:
                raise Refused(
                    "server-gone",
                    "nobody answers on {}:{}".format(job["server"], job["sync_port"]),
                ) from None
            time.sleep(0.1)
            continue
        try:
            client.connect()
            return
        except Exception as error:
            if code_of(error) != "server-gone" or time.time() >= limit:
                raise
        time.sleep(0.2)


def total(stats: dict[Any, Any], ports: list[int]) -> dict[str, Any]:
    """Counters of our ports, as the harness wants them."""
    each = []
    for port in ports:
        found = stats.get(port) or stats.get(str(port)) or {}
        each.append(
            {
                name: int(found.get(name, 0) or 0)
                for name in ("opackets", "obytes", "ipackets", "ibytes", "ierrors", "oerrors")
            }
        )
    out: dict[str, Any] = {"ports": each}
    common = stats.get("global") or {}
    out["queue_full"] = int(common.get("queue_full", 0) or 0)
    for name in ("active_flows", "open_flows", "tx_cps", "cpu_util", "total_alloc_error"):
        out[name] = float(common.get(name, 0) or 0)
    return out


class Stateless:
    """Streams of a frame-size mix, the same tuples in both directions."""

    def __init__(self, api: Any, client: Any, job: dict[str, Any]) -> None:
        self.api, self.client, self.job = api, client, job
        self.ports = job["ports"]

    def take(self) -> None:
        """Own the ports, whoever had them, with nothing left on them."""
        if not self.job["force"]:
            self.client.acquire(ports=self.ports, force=False)
        self.client.reset(ports=self.ports)

    def load(self) -> None:
        """One continuous stream a size and port."""
        for side, port in enumerate(self.ports):
            streams = [self._stream(number, side) for number in range(len(self.job["frames"]))]
            self.client.add_streams(streams, ports=[port])

    def _stream(self, number: int, side: int) -> Any:
        api, frame = self.api, self.job["frames"][number]
        from scapy.layers.inet import IP, UDP
        from scapy.layers.l2 import Ether

        ends = [("client", self.job["clients"]), ("server", self.job["servers"])]
        sport, dport = 20000 + number, self.job["server_port"]
        if side:
            ends.reverse()
            sport, dport = dport, sport
        base = Ether() / IP(src=ends[0][1][0], dst=ends[1][1][0])
        base = base / UDP(sport=sport, dport=dport, chksum=0)
        base = base / (b"\x00" * max(0, frame["bytes"] - len(base)))
        machine = api.STLVM()
        for field, (name, pool) in (("IP.src", ends[0]), ("IP.dst", ends[1])):
            machine.var(name=name, min_value=pool[0], max_value=pool[1], size=4, op="inc", step=1)
            machine.write(fv_name=name, pkt_offset=field)
        machine.fix_chksum()
        return api.STLStream(
            packet=api.STLPktBuilder(pkt=base, vm=machine),
            mode=api.STLTXCont(pps=frame["pps"]),
        )

    def profile(self) -> Any:
        """A profile that can be compiled without a server."""
        raise Refused("refused", "there is nothing to compile in this mode")

    def start(self) -> None:
        """Begin to send, for the job's time."""
        self.client.clear_stats(ports=self.ports)
        self.client.start(ports=self.ports, duration=self.job["duration"], force=True)

    def active(self) -> bool:
        """Whether it still sends."""
        return bool(self.client.is_traffic_active(ports=self.ports))

    def stats(self) -> dict[str, Any]:
        """Counters now."""
        return total(self.client.get_stats(), self.ports)

    def details(self) -> dict[str, Any]:
        """Nothing more is known at the end."""
        return {}

    def stop(self) -> None:
        """End the sending."""
        self.client.stop(ports=self.ports)

    def release(self) -> None:
        """Give the ports back."""
        self.client.remove_all_streams(ports=self.ports)
        self.client.release(ports=self.ports)


class Stateful(Stateless):
    """Flows of a corpus over TRex's TCP stack, one template a flow."""

    def take(self) -> None:
        """Own the context, whoever had it."""
        if not self.job["force"]:
            self.client.acquire(force=False)
        self.client.reset()

    def profile(self) -> Any:
        """The profile; it needs no server."""
        api = self.api
        caps = []
        for template in self.job["templates"]:
            pools = api.ASTFIPGen(
                glob=api.ASTFIPGenGlobal(ip_offset="1.0.0.0"),
                dist_client=api.ASTFIPGenDist(ip_range=template["clients"], distribution="seq"),
                dist_server=api.ASTFIPGenDist(ip_range=template["servers"], distribution="seq"),
            )
            first, last = template["servers"]
            rule = api.ASTFAssociationRule(port=template["port"], ip_start=first, ip_end=last)
            caps.append(
                api.ASTFCapInfo(
                    file=template["file"],
                    cps=1.0,
                    ip_gen=pools,
                    assoc=api.ASTFAssociation(rules=rule),
                    tg_name=template["name"],
                )
            )
        return api.ASTFProfile(default_ip_gen=pools, cap_list=caps)

    def load(self) -> None:
        """Compile the profile and hand it over."""
        self.client.load_profile(self.profile())

    def start(self) -> None:
        """Begin new flows, for the job's time; those that are open then are played out."""
        self.client.clear_stats()
        self.client.start(mult=self.job["multiplier"], duration=self.job["duration"], nc=False)

    def active(self) -> bool:
        """Whether there is traffic."""
        return bool(self.client.is_traffic_active())

    def stats(self) -> dict[str, Any]:
        """Counters now, those of the TCP and UDP stacks included."""
        found = self.client.get_stats(skip_zero=False)
        out = total(found, self.ports)
        out["traffic"] = {
            side: {name: value for name, value in sorted(values.items()) if value}
            for side, values in (found.get("traffic") or {}).items()
            if side in ("client", "server")
        }
        return out

    def details(self) -> dict[str, Any]:
        """Flows begun of each template, by name."""
        names = [template["name"] for template in self.job["templates"]]
        flows = {}
        for first in range(0, len(names), 10):  # the client takes ten at once
            some = names[first : first + 10]
            found = self.client.get_traffic_tg_stats(some)
            for name in some:
                client = found.get(name, {}).get("client", {})
                flows[name] = sum(
                    int(client.get(key, 0)) for key in ("tcps_connattempt", "udps_connects")
                )
        return {"templates": flows}

    def stop(self) -> None:
        """End the traffic."""
        self.client.stop()

    def release(self) -> None:
        """Give the context back."""
        self.client.clear_profile()
        self.client.release()


def play(driver: Stateless, job: dict[str, Any], say: Talk) -> None:
    """Send, and tell how far it is, until it is done."""
    driver.take()
    try:
        driver.load()
        began = time.time()
        driver.start()
        clock = time.monotonic()
        say("started", t_ns=int(began * 1e9), took=time.time() - began)
        told = grew = clock
        sent = 0
        while driver.active():
            now = time.monotonic()
            if now - clock > job["duration"] + job["longest"]:
                raise Refused(
                    "hangs", "traffic did not end {:g} s after its time".format(job["longest"])
                )
            if now - told >= TELL:
                told = now
                stats = driver.stats()
                packets = sum(port["opackets"] for port in stats["ports"])
                if packets > sent:
                    sent, grew = packets, now
                say("stats", t=now - clock, **stats)
            time.sleep(POLL)
        ended = time.monotonic()
        # The server's counters follow the ports'; what stands still twice is the end.
        stats = driver.stats()
        for _ in range(10):
            time.sleep(0.2)
            before, stats = stats, driver.stats()
            if before["ports"] == stats["ports"]:
                break
        say("done", t=ended - clock, grew=grew - clock, **dict(stats, **driver.details()))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for step in (driver.stop, driver.release):
            try:
                step()
            except Exception as error:
                print(f"{step.__name__}: {one_line(error)}", file=sys.stderr)


def describe(client: Any) -> dict[str, Any]:
    """Who answers."""
    version = client.get_server_version() or {}
    info = client.get_server_system_info() or {}
    return {
        "version": version.get("version", "unknown"),
        "mode": version.get("mode", "STL"),
        "port_count": info.get("port_count", 0),
        "cores": info.get("dp_core_count", 0),
    }


def end(signum: int, frame: Any) -> None:
    """SIGTERM."""
    raise Stopped()


def main() -> int:
    """Run the job named on the command line."""
    say = Talk()
    job = json.loads(Path(sys.argv[1]).read_text())
    signal.signal(signal.SIGTERM, end)
    client = None
    try:
        api = load_api(job)
        kinds = {"stl": Stateless, "astf": Stateful}
        if job["do"] == "compile":
            say("done", profile=kinds[job["mode"]](api, None, job).profile().to_json())
            return 0
        client = client_of(api, job)
        connect(client, job)
        say("connected", **describe(client))
        if job["do"] == "play":
            play(kinds[job["mode"]](api, client, job), job, say)
    except Stopped:
        say("stopped")
        return 0
    except Exception as error:
        say("error", code=code_of(error), message=one_line(error))
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if client is not None:
            try:
                client.disconnect(stop_traffic=False)
            except Exception as error:
                print(f"disconnect: {one_line(error)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # The client's threads and sockets may not let a normal exit through.
    os._exit(status)
