"""What runs on TRex's host beside the server: drives it with the client of its own tree.

It is shipped as a file and run by that host's Python, so it imports nothing of this project. It
reads its job from a JSON file, its one argument, and prints JSON lines; TERM stops the traffic and
gives the ports back.

  {"do": "ready", …}   wait until the server of the wanted mode answers
  {"do": "stl", "streams": […], "duration": s, …}
  {"do": "astf", "caps": […], "duration": s, …}

Common keys: tree (TRex's directory), mode ("STL" or "ASTF"), rpc, publish (ports), patience (s).
Events: ready, started, stats, groups (flows opened of some templates), done, error. An error has a
code: client-missing, version-refused, wrong-mode, server-gone, ports-taken, out-of-memory,
resolve-failed, refused.
"""

# ruff: noqa: PTH112, PTH118, PTH123 - as small as can be
from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

USER = "probebench"
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
    """Make `trex.stl.api` and `trex.astf.api` importable.

    Those of the server's own tree, which always match it, or else of the package lbr-trex-client.
    """
    own = os.path.join(tree, "automation/trex_control_plane/interactive")
    if os.path.isdir(os.path.join(own, "trex")):
        sys.path.insert(0, own)
        return
    try:
        import lbr_trex_client  # type: ignore[import-not-found]  # noqa: F401 - sets sys.path
    except ImportError:
        give_up(
            "client-missing",
            tree + " has no Python client; give generator.options.client_python = a Python of that "
            "host with the package lbr-trex-client",
        )


def client_of(job: dict[str, Any]) -> tuple[Any, Any]:
    """(module of the API, an unconnected client) for the wanted mode."""
    try:
        if job["mode"] == "STL":
            import trex.stl.api as api  # type: ignore[import-not-found]

            make = api.STLClient
        else:
            import trex.astf.api as api  # type: ignore[import-not-found]

            make = api.ASTFClient
    except ImportError as error:
        give_up("client-missing", error)
    client = make(
        username=USER,
        server="127.0.0.1",
        sync_port=job["rpc"],
        async_port=job["publish"],
        verbose_level="none",
    )
    return api, client


def code_of(message: str) -> str:
    """Which kind of trouble a server's words are."""
    low = message.lower()
    if "configuration mismatch" in low:  # STL and ASTF; its words have a version in some clients
        return "wrong-mode"
    if "version" in low or "api_h" in low:
        return "version-refused"
    if "memory" in low or "allocate" in low or "mbuf" in low:
        return "out-of-memory"
    if "resolve" in low:
        return "resolve-failed"
    if "taken" in low or "owned" in low or "acquire" in low:
        return "ports-taken"
    if any(word in low for word in ("connect", "timeout", "response", "lost", "failed to send")):
        return "server-gone"
    return "refused"


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
            code = code_of(str(error))
            if code in ("version-refused", "wrong-mode") or time.monotonic() > end:
                give_up(code, error)
        time.sleep(0.2)


def own(client: Any, mode: str) -> None:
    """Take ports and context over, also from a client that died, and clear them."""
    if mode == "STL":
        client.acquire(force=True)
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


def numbers(stats: dict[Any, Any]) -> dict[str, Any]:
    """What of get_stats() is passed on; absent means zero."""
    ports = {
        str(key): {
            name: value.get(name, 0)
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
        "global": {name: total.get(name, 0) for name in names},
        "traffic": {
            side: {name: value for name, value in counters.items() if name in TOLD}
            for side, counters in stats.get("traffic", {}).items()
            if side in ("client", "server")
        },
    }


def watch(client: Any, every: float) -> None:
    """Tell the counters until the traffic has ended."""
    while client.is_traffic_active():
        say("stats", **numbers(client.get_stats()))
        time.sleep(every)


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
    say("ready", version=client.get_server_version().get("version", ""))
    if job["do"] == "ready":
        client.disconnect()
        return
    try:
        own(client, mode)
        if mode == "STL":
            for port, streams in streams_of(api, job).items():
                client.add_streams(streams, ports=[port])
            client.clear_stats()
            ports = sorted({one["port"] for one in job["streams"]})
            client.start(ports=ports, duration=job["duration"], force=True)
        else:
            client.load_profile(profile_of(api, job))
            client.clear_stats()
            client.start(mult=1, duration=job["duration"])
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
        code = code_of(str(error))
        if code == "server-gone":  # nobody to say goodbye to; the client would wait for an answer
            say("error", code=code, message=" ".join(str(error).split())[:400])
            os._exit(1)
        give_up(code, error)
    finally:
        try:
            client.disconnect(stop_traffic=True, release_ports=True)
        except Exception as error:
            sys.stderr.write(str(error) + "\n")


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
