"""What runs on TRex's host beside the server: drives it with the client of its own tree.

It is shipped as a file and run by that host's Python, so it imports nothing of this project. It
reads its job from a JSON file, its one argument, and prints JSON lines; TERM stops the traffic and
gives the ports back.

  {"do": "ready", …}   wait until the server of the wanted mode answers, and look whose it is
  {"do": "stl", "streams": […], "duration": s, …}
  {"do": "push", "file": PATH, "remote": bool, "ipg_usec": µs or null, "speedup": x, "count": n, …}
  {"do": "astf", "caps": […], "duration": s, …}

Common keys: tree (TRex's directory), mode ("STL" or "ASTF"), rpc, publish (ports), patience (s),
user (whose the ports shall be), force (take them from anybody: the server is ours).
Events: ready, started, stats, groups (flows opened of some templates), done, error. An error has a
code: client-missing, version-refused, wrong-mode, server-gone, ports-taken, out-of-memory,
resolve-failed, refused.
"""

# ruff: noqa: PTH112, PTH118, PTH123 - as small as can be
from __future__ import annotations

import importlib
import json
import os
import re
import signal
import sys
import time
from typing import Any

PORTS = [0, 1]  # the clients' side and the servers'
TICK = 0.02  # s; how late the end of the traffic is seen
GROUPS = 25  # templates a line: the leash cuts lines at 8 KiB
OPENED = ("tcps_connattempt", "udps_connects")
TOLD = (*OPENED, "tcps_connects", "tcps_conndrops", "tcps_drops", "tcps_sndrexmitpack")


def say(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps(dict(fields, event=event, t=time.monotonic())) + "\n")
    sys.stdout.flush()


def give_up(code: str, message: Any) -> None:
    text = " ".join(str(message).split())
    say("error", code=code, message=text[:400])
    raise SystemExit(1)


class Ended(Exception):
    """TERM came."""


def on_term(number: int, frame: Any) -> None:
    raise Ended


def find_client(tree: str) -> None:
    """Make `trex.stl.api` and `trex.astf.api`, or `trex_stl_lib.api`, importable.

    Those of the server's own tree, which always match it (before v2.50 or so it had
    `stl/trex_stl_lib` alone), or else of a package: lbr-trex-client, or trex-stl-lib.
    """
    planes = os.path.join(tree, "automation/trex_control_plane")
    for place, name in (("interactive", "trex"), ("stl", "trex_stl_lib")):
        if os.path.isdir(os.path.join(planes, place, name)):
            sys.path.insert(0, os.path.join(planes, place))
            return
    for package in ("lbr_trex_client", "trex_stl_lib"):  # the first sets sys.path by itself
        try:
            __import__(package)
            return
        except ImportError:
            pass
    give_up(
        "client-missing",
        tree + " has no Python client; give generator.options.client_python = a Python of that "
        "host with the package lbr-trex-client (for STL servers of API 4: trex-stl-lib)",
    )


def stl_api() -> tuple[Any, Any]:
    """(the API of stateless mode, how its client is told to be quiet)."""
    try:
        return importlib.import_module("trex.stl.api"), "none"
    except ImportError:
        return importlib.import_module("trex_stl_lib.api"), 0  # its levels are numbers


def client_of(job: dict[str, Any]) -> tuple[Any, Any]:
    """(module of the API, an unconnected client) for the wanted mode."""
    try:
        if job["mode"] == "STL":
            api, quiet = stl_api()
            make = api.STLClient
        else:
            api, quiet = importlib.import_module("trex.astf.api"), "none"
            make = api.ASTFClient
    except ImportError as error:
        give_up("client-missing", error)
    client = make(
        username=job["user"],
        server="127.0.0.1",
        sync_port=job["rpc"],
        async_port=job["publish"],
        verbose_level=quiet,
    )
    return api, client


def words(error: Exception) -> str:
    """What an error says, in one line; those of trex-stl-lib 0.3 fail when they are asked."""
    return " ".join(str(getattr(error, "msg", None) or error).split())


def code_of(message: str) -> str:
    """Which kind of trouble a server's words are."""
    low = message.lower()
    if "configuration mismatch" in low:  # STL and ASTF; its words have a version in some clients
        return "wrong-mode"
    if "version" in low or "api_h" in low or "api_sync" in low or "not registered" in low:
        return "version-refused"  # a server of API 4 does not know the newer client's handshake
    if "memory" in low or "allocate" in low or "mbuf" in low:
        return "out-of-memory"
    if "resolve" in low:
        return "resolve-failed"
    if "taken" in low or "owned" in low or "acquire" in low:
        return "ports-taken"
    if any(word in low for word in ("connect", "timeout", "response", "lost", "failed to send")):
        return "server-gone"
    return "refused"


def fitting(api: Any, message: str) -> str:
    """Which client speaks with a server that refused this one."""
    found = re.search(r"server: '?(\d+)", message)
    # Newer clients say of a server without their handshake that the versions mismatch, not which.
    unknown = not found and not api.__name__.startswith("trex_stl_lib")
    if unknown or (found and int(found[1]) < 5):
        which = "a server of API 4 takes trex-stl-lib 0.3, and STL only"
    else:
        which = "the client in the server's own tree fits, or a current lbr-trex-client (3.4.0)"
    return which + ": generator.options.client_python chooses a Python of that host that has it"


def connect(job: dict[str, Any]) -> tuple[Any, Any]:
    """A connected client; waits for a server that is still starting."""
    find_client(job["tree"])
    end = time.monotonic() + job["patience"]
    while True:
        api, client = client_of(job)
        try:
            client.connect()
            return api, client
        except Exception as error:
            text = words(error)
            code = code_of(text)
            if code == "version-refused":
                give_up(code, text[:200] + "; " + fitting(api, text))
            if code == "wrong-mode" or time.monotonic() > end:
                give_up(code, text)
        time.sleep(0.2)


def owners(client: Any) -> list[str]:
    """Who owns the two ports; empty for a port that nobody has."""
    missing = [port for port in PORTS if port not in client.ports]
    if missing:
        give_up("refused", f"the server has no port {missing[0]}: two are needed")
    found = [client.ports[port].get_owner() for port in PORTS]
    return ["" if owner == "N/A" else owner for owner in found]


def refuse_foreign(client: Any, job: dict[str, Any]) -> None:
    """Leave a server of the user's own alone whose ports somebody else has."""
    others = [] if job["force"] else [o for o in owners(client) if o not in ("", job["user"])]
    if others:
        client.disconnect(stop_traffic=False, release_ports=False)
        give_up("ports-taken", f"a port of the running server is taken by '{others[0]}'")


def own(client: Any, job: dict[str, Any]) -> None:
    """Take ports and context, also from a client of ours that died, and clear them."""
    force = job["force"] or job["user"] in owners(client)
    if job["mode"] == "STL":
        client.acquire(ports=PORTS, force=force)
        client.reset(ports=PORTS)
    else:
        client.acquire(force=force)
        client.reset()


def streams_of(api: Any, job: dict[str, Any]) -> dict[int, list[Any]]:
    """Streams by port: frames of one size each, addresses and ports changed by the field engine."""
    found: dict[int, list[Any]] = {}
    for one in job["streams"]:
        ours, theirs = (26, 30) if one["port"] == 0 else (30, 26)
        near = 34 if one["port"] == 0 else 36
        (low, high), (bottom, top) = one["clients"], one["servers"]
        engine = api.STLScVmRaw(
            [
                api.STLVmTupleGen(
                    name="client", ip_min=low, ip_max=high, port_min=1025, port_max=65535,
                    limit_flows=one["flows"],
                ),
                api.STLVmFlowVar("server", min_value=bottom, max_value=top, size=4, op="inc"),
                api.STLVmWrFlowVar(fv_name="client.ip", pkt_offset=ours),
                api.STLVmWrFlowVar(fv_name="server", pkt_offset=theirs),
                api.STLVmWrFlowVar(fv_name="client.port", pkt_offset=near),
                api.STLVmFixIpv4(offset=14),
            ]
        )  # fmt: skip
        packet = api.STLPktBuilder(pkt_buffer=bytes.fromhex(one["frame"]), vm=engine)
        stream = api.STLStream(packet=packet, mode=api.STLTXCont(pps=one["pps"]))
        found.setdefault(one["port"], []).append(stream)
    return found


def profile_of(api: Any, job: dict[str, Any]) -> Any:
    """A template a file: its own pools, and a server that is told by port and address range."""
    caps = []
    default = None
    for cap in job["caps"]:
        pools = api.ASTFIPGen(
            glob=api.ASTFIPGenGlobal(ip_offset="1.0.0.0"),
            dist_client=api.ASTFIPGenDist(ip_range=cap["clients"], distribution="rand"),
            dist_server=api.ASTFIPGenDist(ip_range=cap["servers"], distribution="rand"),
        )
        default = default or pools
        rule = api.ASTFAssociationRule(
            port=cap["port"], ip_start=cap["servers"][0], ip_end=cap["servers"][1]
        )
        caps.append(
            api.ASTFCapInfo(
                file=cap["file"],
                cps=cap["cps"],
                ip_gen=pools,
                assoc=api.ASTFAssociation(rules=rule),
                tg_name=cap["name"],
            )
        )
    return api.ASTFProfile(default_ip_gen=default, cap_list=caps)


def number(value: Any) -> float:
    """Absent, or "N/A" from trex-stl-lib, is zero."""
    return value if isinstance(value, (int, float)) else 0


def numbers(stats: dict[Any, Any]) -> dict[str, Any]:
    """What of get_stats() is passed on; absent means zero."""
    ports = {
        str(key): {
            name: number(value.get(name))
            for name in ("opackets", "obytes", "ipackets", "ibytes", "ierrors", "oerrors")
        }
        for key, value in stats.items()
        if isinstance(key, int)
    }
    total = stats.get("global", {})
    names = (
        "queue_full", "total_alloc_error", "cpu_util", "tx_cps", "active_flows", "open_flows",
        "rx_drop_bps",
    )  # fmt: skip
    return {
        "ports": ports,
        "global": {name: number(total.get(name)) for name in names},
        "traffic": {
            side: {name: value for name, value in counters.items() if name in TOLD}
            for side, counters in stats.get("traffic", {}).items()
            if side in ("client", "server")
        },
    }


def watch(client: Any, every: float) -> None:
    """Tell the counters until the traffic has ended.

    TERM is heard between the client's requests: one that is broken off leaves its socket unable to
    send the next, and the ports would not be given back.
    """
    told = 0.0
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    while client.is_traffic_active():
        if asked:
            raise Ended
        if time.monotonic() >= told + every:
            told = time.monotonic()
            say("stats", **numbers(client.get_stats()))
        time.sleep(TICK)


def begin(api: Any, client: Any, job: dict[str, Any]) -> None:
    """Load what is to be sent, and start it."""
    if job["do"] == "push":
        client.clear_stats()
        push = client.push_remote if job["remote"] else client.push_pcap
        push(
            job["file"],
            ports=[0],
            ipg_usec=job["ipg_usec"],
            speedup=job["speedup"],
            count=job["count"],
        )
    elif job["do"] == "stl":
        for port, streams in streams_of(api, job).items():
            client.add_streams(streams, ports=[port])
        client.clear_stats()
        ports = sorted({one["port"] for one in job["streams"]})
        client.start(ports=ports, duration=job["duration"], force=True)
    else:
        client.load_profile(profile_of(api, job))
        client.clear_stats()
        client.start(mult=1, duration=job["duration"])


def tell_groups(client: Any) -> None:
    """Tell the flows opened of each template."""
    names = client.get_tg_names()
    for begin in range(0, len(names), GROUPS):
        found = client.get_traffic_tg_stats(names[begin : begin + GROUPS])
        say(
            "groups",
            flows={
                name: sum(group.get("client", {}).get(key, 0) for key in OPENED)
                for name, group in found.items()
            },
        )


def run(job: dict[str, Any]) -> None:
    api, client = connect(job)
    mode = job["mode"]
    refuse_foreign(client, job)
    say("ready", version=client.get_server_version().get("version", ""))
    if job["do"] == "ready":
        client.disconnect(stop_traffic=False, release_ports=False)
        return
    try:
        own(client, job)
        begin(api, client, job)
        say("started")
        watch(client, job["every"])
        ended = time.monotonic()
        time.sleep(0.6)  # counters are published twice a second
        last = numbers(client.get_stats())
        if mode == "ASTF":
            tell_groups(client)
        say("done", ended=ended, **last)
    except Ended:
        client.stop()
        raise
    except Exception as error:
        text = words(error)
        code = code_of(text)
        if code == "server-gone":  # nobody to say goodbye to; the client would wait for an answer
            say("error", code=code, message=text[:400])
            os._exit(1)
        give_up(code, text)
    finally:
        try:
            client.disconnect(stop_traffic=True, release_ports=True)
        except Exception as error:
            sys.stderr.write(words(error) + "\n")


def main() -> None:
    signal.signal(signal.SIGTERM, on_term)
    try:
        with open(sys.argv[1]) as job:
            given = json.load(job)
        run(given)
    except (Ended, BrokenPipeError, KeyboardInterrupt):
        os._exit(1)


if __name__ == "__main__":
    main()
