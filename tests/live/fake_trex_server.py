"""An interactive TRex server for the real client: ZMQ JSON-RPC, event queue, counters; no packets.

Wire format and methods: trex-core v3.08 (trex_rpc_server_api, trex_rpc_async_server, the client's
common/trex_req_resp_client.py and trex_subscriber.py): REP on the RPC port, JSON-RPC 2.0, batches,
messages compressed as 0xABE85CEA + length + zlib; PUB on the other says `{}` when events wait,
which the client fetches with `get_async_events`. Methods that a server does not have are refused as
the real one does (-32601), so that a client that asks for more than is here is seen at once.

With behaviour `api4` it is a server as of 2018, for trex-stl-lib 0.3: handshake `api_sync`, and the
messages themselves on the other port, counters ("trex-global") among them.

Counters follow from what was loaded: streams' rates and frames, templates' rates.
The file `behaviour` in its tree makes it fail.
"""

from __future__ import annotations

import argparse
import base64
import json
import signal
import struct
import sys
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAGIC = 0xABE85CEA
VERSION = "v3.08"
API = {"STL": (5, 1), "ASTF": (2, 3)}
SOURCE = Path(__file__)
COMMANDS = [
    "get_profile_list", "get_version", "ping", "acquire", "release", "start_traffic", "start",
    "get_tg_names", "get_tg_id_stats", "publish_now", "get_async_events",
]  # fmt: skip
COUNTERS = [
    "tcps_connattempt", "tcps_connects", "tcps_drops", "tcps_conndrops", "tcps_sndrexmitpack",
    "tcps_rexmttimeo", "udps_connects", "err_c_nf_throttled",
]  # fmt: skip
IDLE, LOADED, PARSE, BUILD, TX, CLEANUP, _DELETE = range(7)


class RpcError(Exception):
    """A JSON-RPC error with its code."""

    def __init__(self, message: str, code: int = -32000) -> None:
        super().__init__(message)
        self.code = code


def pack(text: bytes) -> bytes:
    return struct.pack(">II", MAGIC, len(text)) + zlib.compress(text)


def unpack(data: bytes) -> bytes:
    if len(data) >= 8 and struct.unpack(">I", data[:4])[0] == MAGIC:
        return zlib.decompress(data[8:])
    return data


@dataclass
class Port:
    """One port: who owns it, its streams (packets/s, bytes with FCS), its traffic.

    A burst is a capture being pushed: packets, bytes and seconds of all of it. `chain` are the
    one-packet streams of `push_pcap`, by id: (bytes, gap in µs, how often the whole, next id).
    """

    owner: str = ""
    session: int = 0
    handler: str = ""
    streams: dict[int, tuple[float, int]] = field(default_factory=dict)
    chain: dict[int, tuple[int, float, int, int]] = field(default_factory=dict)
    burst: tuple[int, int, float] | None = None
    began: float | None = None
    until: float = 0.0
    packets: float = 0.0
    octets: float = 0.0

    def account(self, now: float) -> tuple[int, int]:
        """(packets, bytes) so far."""
        packets, octets = self.packets, self.octets
        if self.began is not None and self.burst is not None:
            count, size, seconds = self.burst
            share = min(1.0, (now - self.began) / seconds)
            return int(packets + int(count * share)), int(octets + int(size * share))
        if self.began is not None:
            span = max(0.0, min(now, self.until) - self.began)
            packets += sum(round(pps * span) for pps, _ in self.streams.values())
            octets += sum(round(pps * span) * size for pps, size in self.streams.values())
        return int(packets), int(octets)

    def end(self, now: float) -> None:
        self.packets, self.octets = self.account(now)
        self.began = self.burst = None

    def push(self, sizes: list[int], seconds: float, count: int) -> None:
        """Begin a capture of frames of those sizes (with FCS), `seconds` a time, `count` times."""
        self.burst = (len(sizes) * count, sum(sizes) * count, max(seconds * count, 1e-6))
        self.began = time.monotonic()
        self.until = self.began + self.burst[2]


class Server:
    """The state of a server in one mode, and one method a command."""

    def __init__(self, mode: str, behaviour: str = "normal") -> None:
        self.mode, self.behaviour = mode, behaviour
        self.ports = [Port(), Port()]
        self.events: list[dict[str, Any]] = []
        self.queues: dict[int, list[dict[str, Any]]] = {}
        self.seq: dict[int, int] = {}
        self.state = IDLE
        self.fragments = ""
        self.profile: dict[str, Any] = {}
        self.epoch = 0
        self.moves: list[tuple[float, int]] = []  # ASTF states to come
        self.mult = 0.0
        self.old = behaviour == "api4"
        self.published: list[dict[str, Any]] = []  # of an old server: told to all
        self.asked: list[str] = []  # the methods; kept in the tree at the end
        if behaviour == "crashed-client":
            for port in self.ports:
                port.owner, port.session, port.handler = "alice", 77, "theirs"
                port.streams = {1: (1000.0, 64)}
                port.began, port.until = time.monotonic(), time.monotonic() + 3600
            if mode == "ASTF":
                self.state = TX

    # -- events ----------------------------------------------------------------------------

    def tell(self, name: str, kind: int, data: Any, baseline: bool = False) -> None:
        if self.old:
            self.published.append({"name": name, "type": kind, "data": data, "baseline": baseline})
        for queue in self.queues.values():
            queue.append({"name": name, "type": kind, "data": data, "baseline": False})

    def tick(self, now: float) -> None:
        """Let time pass: traffic that ends, states that come."""
        for number, port in enumerate(self.ports):
            if self.mode == "STL" and port.began is not None and now >= port.until:
                port.end(now)
                data = {"port_id": number, "profile_id": "_"}
                self.tell("trex-event", 14, data)
                self.tell("trex-event", 4, data)
        while self.moves and now >= self.moves[0][0]:
            self.enter(self.moves.pop(0)[1])

    def enter(self, state: int) -> None:
        now = time.monotonic()
        for port in self.ports:
            if port.began is not None and state != TX:
                port.end(now)
            if state == TX and port.began is None:
                port.began = now
        self.state = state
        self.tell("trex-event", 50, {"state": state, "epoch": self.epoch})
        chg = {"profile_id": "_", "state": state, "epoch": self.epoch}
        self.tell("trex-event", 60, chg)

    # -- requests ---------------------------------------------------------------------------

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        name, params = request["method"], request.get("params") or {}
        self.asked.append(name)
        out: dict[str, Any] = {"jsonrpc": "2.0", "id": request.get("id")}
        try:
            if self.old and name in ("api_sync_v2", "get_async_events"):
                raise RpcError(f"Method {name} not registered", -32601)
            if (
                name not in ("ping", "get_version", "api_sync", "api_sync_v2")
                and params.get("api_h") != "H"
            ):
                raise RpcError("API verification failed", -32602)
            method = getattr(self, f"rpc_{name}", None)
            if method is None:
                raise RpcError(f"Method not registered: {name}", -32601)
            out["result"] = method(params)
        except RpcError as error:
            # As the real one: the reason is in "specific_err".
            out["error"] = {"code": error.code, "message": str(error), "specific_err": str(error)}
        return out

    def port(self, params: dict[str, Any], owned: bool = True) -> Port:
        port = self.ports[params["port_id"]]
        if owned and params.get("handler") != port.handler:
            raise RpcError(f"port is already taken by '{port.owner}'")
        return port

    def context(self, params: dict[str, Any]) -> None:
        if params.get("handler") != self.ports[0].handler:
            raise RpcError("context is not owned by another user")

    def rpc_ping(self, params: dict[str, Any]) -> Any:
        return {"ts": time.time()}

    def rpc_get_version(self, params: dict[str, Any]) -> Any:
        return {
            "version": VERSION, "build_date": "now", "build_time": "now", "built_by": "us",
            "mode": self.mode,
        }  # fmt: skip

    def rpc_api_sync(self, params: dict[str, Any]) -> Any:
        (asked,) = params["api_vers"]
        major, minor = (4, 1) if self.old else API["STL"]
        if (asked["type"], asked["major"]) != ("core", major):
            raise RpcError(
                "RPC version mismatch: a newer client version is required\n(API type 'STL': - "
                f"server: '{major}.{minor}', client: '{asked['major']}.{asked['minor']}')"
            )
        return {"api_vers": [{"type": "core", "api_h": "H"}]}

    def globals(self) -> dict[str, Any]:
        """What an old server publishes twice a second."""
        out = self.rpc_get_global_stats({})
        for number in range(len(self.ports)):
            stats = self.rpc_get_port_stats({"port_id": number})
            out |= {f"{name}-{number}": value for name, value in stats.items()}
        return out

    def rpc_api_sync_v2(self, params: dict[str, Any]) -> Any:
        major, minor = API[self.mode]
        if self.behaviour == "refuses":
            major += 1
        if params["name"] != self.mode:
            raise RpcError(
                f"RPC configuration mismatch - server RPC configuration: '{self.mode}', client RPC "
                f"configuration: '{params['name']}'"
            )
        problem = ""
        if params["major"] < major:
            problem = "RPC version mismatch: a newer client version is required"
        elif (params["major"], params["minor"]) > (major, minor):
            problem = (
                "Version mismatch: your client version is too new to be supported by the server"
            )
        if problem:
            raise RpcError(
                f"{problem}\n(API type '{self.mode}': - server: '{major}.{minor}', client: "
                f"'{params['major']}.{params['minor']}')"
            )
        return {"api_h": "H"}

    def rpc_get_system_info(self, params: dict[str, Any]) -> Any:
        ports = [
            {
                "index": number, "driver": "net_af_packet", "description": "veth", "numa": -1,
                "pci_addr": "N/A", "hw_mac": f"02:00:00:00:00:0{number}", "supp_speeds": [10000],
                "is_fc_supported": False, "is_led_supported": False, "is_link_supported": False,
                "is_prom_supported": True, "is_virtual": True, "rx": {"caps": [], "counters": 127},
            }
            for number in (1, 0)  # not ordered
        ]  # fmt: skip
        return {
            "hostname": "fake", "uptime": "0", "dp_core_count": 1, "dp_core_count_per_port": 1,
            "core_type": "fake", "port_count": 2, "ports": ports, "is_multiqueue_mode": False,
            "advanced_per_stream_stats": True,
        }  # fmt: skip

    def rpc_get_supported_cmds(self, params: dict[str, Any]) -> Any:
        return COMMANDS

    def rpc_get_port_xstats_names(self, params: dict[str, Any]) -> Any:
        return {"xstats_names": ["rx_good_packets"]}

    def rpc_get_port_xstats_values(self, params: dict[str, Any]) -> Any:
        return {"xstats_values": [0]}

    def rpc_get_port_status(self, params: dict[str, Any]) -> Any:
        port = self.ports[params["port_id"]]
        state = "TX" if port.began is not None else "STREAMS" if port.streams else "IDLE"
        return {
            "owner": port.owner, "state": state, "max_stream_id": max(port.streams, default=0),
            "service": False, "service_filtered": False, "state_profile": {"_": state},
            "rx_info": {"queue": {"is_active": False}, "stack": "legacy"},
            "attr": {
                "promiscuous": {"enabled": False}, "multicast": {"enabled": False},
                "fc": {"mode": 0},
                "link": {"up": True}, "speed": 10, "rx_filter_mode": "hw", "vxlan_fs": [],
                "layer_cfg": {
                    "ether": {
                        "src": "02:00:00:00:00:00", "dst": "02:00:00:00:00:01",
                        "state": "configured",
                    },
                    "ipv4": {"state": "none"}, "ipv6": {"enabled": False},
                },
                "vlan": {"tags": []},
            },
        }  # fmt: skip

    def rpc_publish_now(self, params: dict[str, Any]) -> Any:
        if self.old:
            self.tell("trex-global", 0, self.globals(), params.get("baseline", False))
        self.tell("trex-barrier", params["key"], {})
        return {}

    def rpc_get_async_events(self, params: dict[str, Any]) -> Any:
        session = params["session_id"]
        queue = self.queues.setdefault(session, [])
        out = []
        for message in queue:
            self.seq[session] = self.seq.get(session, 0) + 1
            out.append({**message, "seq": self.seq[session]})
        queue.clear()
        return {"data": out}

    def rpc_get_port_stats(self, params: dict[str, Any]) -> Any:
        packets, octets = self.ports[params["port_id"]].account(time.monotonic())
        other, received = self.ports[1 - params["port_id"]].account(time.monotonic())
        return {
            "opackets": packets, "obytes": octets, "ipackets": other, "ibytes": received,
            "ierrors": 0, "oerrors": 0, "m_total_tx_bps": 0.0, "m_total_tx_pps": 0.0,
            "m_total_rx_bps": 0.0, "m_total_rx_pps": 0.0, "m_cpu_util": 1.0,
        }  # fmt: skip

    def rpc_get_global_stats(self, params: dict[str, Any]) -> Any:
        active = 0.0
        if self.mode == "ASTF" and self.state == TX:
            active = self.rate()
        names = (
            "m_active_sockets", "m_bw_per_core", "m_cpu_util_raw", "m_open_flows",
            "m_platform_factor", "m_rx_bps", "m_rx_core_pps", "m_rx_cpu_util", "m_rx_drop_bps",
            "m_rx_pps", "m_socket_util", "m_tx_expected_bps", "m_tx_expected_cps",
            "m_tx_expected_pps", "m_tx_pps", "m_tx_bps", "m_tx_cps", "m_total_servers",
            "m_total_clients", "m_total_alloc_error",
        )  # fmt: skip
        full = 5 if self.behaviour == "full" and any(p.packets for p in self.ports) else 0
        return {
            **dict.fromkeys(names, 0), "m_total_queue_full": full, "m_total_alloc_error": full * 2,
            "m_cpu_util": 12.5,
            "m_active_flows": active,
        }  # fmt: skip

    def nothing(self, params: dict[str, Any]) -> Any:
        return {}

    rpc_set_port_attr = rpc_set_rx_feature = rpc_remove_rx_filters = rpc_service = nothing
    rpc_start_latency = rpc_stop_latency = rpc_clear_updated = rpc_stop_capture_port = nothing

    def rpc_capture(self, params: dict[str, Any]) -> Any:
        return [] if params["command"] == "status" else {}

    def rpc_get_tpg_status(self, params: dict[str, Any]) -> Any:
        return {"enabled": False}

    def rpc_get_active_pgids(self, params: dict[str, Any]) -> Any:
        return {"ids": {"flow_stats": [], "latency": []}}

    def rpc_get_pgid_stats(self, params: dict[str, Any]) -> Any:
        return {"flow_stats": {}, "latency": {}, "ver_id": {}}

    # -- ownership --------------------------------------------------------------------------

    def rpc_acquire(self, params: dict[str, Any]) -> Any:
        ports = self.ports if self.mode == "ASTF" else [self.ports[params["port_id"]]]
        mine = params["session_id"]
        for port in ports:
            if port.owner and port.session != mine and not params["force"]:
                if self.mode == "ASTF":  # src/stx/astf/trex_astf.cpp
                    raise RpcError("context is already taken (use 'force' argument to override)")
                raise RpcError(f"port is already taken by '{port.owner}'")
            port.owner, port.session, port.handler = params["user"], mine, f"h{mine}"
        if self.mode == "STL":
            return f"h{mine}"
        return {"handler": f"h{mine}", "ports": {"0": f"h{mine}", "1": f"h{mine}"}}

    def rpc_release(self, params: dict[str, Any]) -> Any:
        ports = self.ports if self.mode == "ASTF" else [self.port(params)]
        for port in ports:
            port.owner = port.handler = ""
        return {}

    # -- stateless --------------------------------------------------------------------------

    def rpc_remove_all_streams(self, params: dict[str, Any]) -> Any:
        self.port(params).streams.clear()
        self.port(params).chain.clear()
        return {}

    def rpc_get_all_streams(self, params: dict[str, Any]) -> Any:
        return {"profiles": {}, "streams": {}}

    def rpc_add_stream(self, params: dict[str, Any]) -> Any:
        port, stream = self.port(params), params["stream"]
        mode = stream["mode"]
        if mode["type"] == "single_burst":
            if mode["total_pkts"] != 1 or stream["vm"]["instructions"]:
                raise RpcError("unlike a packet of a capture")
            size = max(64, len(base64.b64decode(stream["packet"]["binary"])) + 4)
            following = stream["next_stream_id"]
            port.chain[params["stream_id"]] = (
                size,
                float(stream["isg"]),
                stream["action_count"],
                following,
            )
            return {}
        if mode["type"] != "continuous" or mode["rate"]["type"] != "pps":
            raise RpcError(f"unexpected mode {mode}")
        size = len(base64.b64decode(stream["packet"]["binary"])) + 4
        if size < 64 or not stream["vm"]["instructions"]:
            raise RpcError("a runt, or a stream without a field engine")
        port.streams[params["stream_id"]] = (float(mode["rate"]["value"]), size)
        return {}

    def rpc_start_traffic(self, params: dict[str, Any]) -> Any:
        port = self.port(params)
        if port.chain:
            return self.start_chain(port, params)
        if not port.streams:
            raise RpcError("no streams")
        if self.behaviour == "no-memory":
            raise RpcError("failed to allocate: out of memory")
        if params["mul"] != {"type": "raw", "value": 1.0, "op": "abs"}:
            raise RpcError(f"unexpected multiplier {params['mul']}")
        port.began = time.monotonic()
        port.until = port.began + params["duration"]
        data = {"port_id": params["port_id"], "profile_id": "_"}
        self.tell("trex-event", 10, data)
        self.tell("trex-event", 0, data)
        return {"multiplier": 1.0, "ts": time.time()}

    def start_chain(self, port: Port, params: dict[str, Any]) -> Any:
        """`push_pcap`: every packet a stream that starts the next, the last one the first again."""
        order = sorted(port.chain)
        follows = [port.chain[number][3] for number in order]
        if follows != [*order[1:], order[0]] or params["duration"] != -1:
            raise RpcError("not the chain that a capture makes")
        counts = [count for _, _, count, _ in port.chain.values() if count]
        if len(counts) != 1:
            raise RpcError("the last stream says how often")
        gaps = sum(gap for _, gap, _, _ in port.chain.values())
        port.push([size for size, _, _, _ in port.chain.values()], gaps / 1e6, counts[0])
        data = {"port_id": params["port_id"], "profile_id": "_"}
        self.tell("trex-event", 10, data)
        self.tell("trex-event", 0, data)
        return {"multiplier": 1.0, "ts": time.time()}

    def rpc_push_remote(self, params: dict[str, Any]) -> Any:
        """Answers before it has opened the file, and says nothing when it cannot."""
        port = self.port(params)
        if params["is_dual"] or params["min_ipg_usec"] or params["duration"] != -1:
            raise RpcError("not what the driver asks")
        records = records_of(Path(params["pcap_filename"]))
        ipg, speedup = params["ipg_usec"], params["speedup"]
        seconds = ipg * len(records) / 1e6 / speedup
        if ipg == -1 and records:
            seconds = (records[-1][1] - records[0][1]) / speedup
        port.push([size for size, _ in records], seconds, params["count"])
        self.tell("trex-event", 0, {"port_id": params["port_id"]})
        return {}

    def rpc_stop_traffic(self, params: dict[str, Any]) -> Any:
        port = self.port(params)
        if port.began is not None:
            port.end(time.monotonic())
            data = {"port_id": params["port_id"], "profile_id": "_"}
            self.tell("trex-event", 11, data)
            self.tell("trex-event", 1, data)
        return {}

    # -- stateful ---------------------------------------------------------------------------

    def rpc_sync(self, params: dict[str, Any]) -> Any:
        self.epoch += 1
        return {"state": self.state, "state_profile": {"_": self.state}, "epoch": self.epoch}

    def rpc_topo_get(self, params: dict[str, Any]) -> Any:
        return {"topo_data": {"vifs": [], "gws": []}}

    def rpc_get_ignored_macs(self, params: dict[str, Any]) -> Any:
        return []

    rpc_get_ignored_ips = rpc_get_ignored_macs

    def rpc_get_profile_list(self, params: dict[str, Any]) -> Any:
        return ["_"]

    def rpc_profile_clear(self, params: dict[str, Any]) -> Any:
        self.context(params)
        self.profile, self.fragments = {}, ""
        if self.state != IDLE:
            self.enter(CLEANUP)
            self.moves = [(time.monotonic() + 0.1, IDLE)]
        return {}

    def rpc_profile_fragment(self, params: dict[str, Any]) -> Any:
        self.context(params)
        if params.get("frag_first"):
            self.fragments = ""
        self.fragments += params["fragment"]
        if params.get("frag_last"):
            self.profile = json.loads(self.fragments)
            self.enter(LOADED)
        return {}

    def rpc_start(self, params: dict[str, Any]) -> Any:
        self.context(params)
        if self.state != LOADED:
            raise RpcError("state:Transmitting, should be one of following:Idle, Loaded profile")
        if self.behaviour == "no-memory":
            raise RpcError("failed to allocate: out of memory")
        now = time.monotonic()
        self.mult = params["mult"]
        for port in self.ports:
            port.end(now)
            port.streams = {1: (5 * self.rate(), 104)}
            port.until = now + 0.2 + params["duration"]
        self.started = now + 0.2
        self.enter(PARSE)
        self.moves = [
            (now + 0.1, BUILD),
            (now + 0.2, TX),
            (now + 0.3 + params["duration"], CLEANUP),
        ]
        self.moves.append((now + 0.4 + params["duration"], LOADED))
        return {}

    def rpc_stop(self, params: dict[str, Any]) -> Any:
        self.context(params)
        self.moves.clear()
        if self.state == TX:
            self.enter(CLEANUP)
            then = LOADED if self.profile else IDLE
            self.moves = [(time.monotonic() + 0.1, then)]
        return {}

    def rpc_get_counter_desc(self, params: dict[str, Any]) -> Any:
        return {
            "data": [
                {"id": n, "name": name, "help": name, "info": "info", "zero": False, "abs": False,
                 "real": True, "units": ""}
                for n, name in enumerate(COUNTERS)
            ],
            "epoch": self.epoch,
        }  # fmt: skip

    def rpc_get_latency_stats(self, params: dict[str, Any]) -> Any:
        return {"data": {"epoch": 1}}

    def rpc_get_dynamic_counter_desc(self, params: dict[str, Any]) -> Any:
        return {"data": [], "epoch": self.epoch}

    def rpc_get_dynamic_counter_values(self, params: dict[str, Any]) -> Any:
        return {"client": {}, "server": {}, "epoch": self.epoch}

    rpc_get_total_dynamic_counter_values = rpc_get_dynamic_counter_values

    def rate(self) -> float:
        """New flows a second, which all live for one."""
        templates = self.profile.get("templates", ())
        return float(self.mult * sum(one["client_template"]["cps"] for one in templates))

    def flows(self) -> list[tuple[bool, int]]:
        """Of each template: TCP?, flows begun."""
        if not self.profile or not hasattr(self, "started"):
            return []
        span = max(0.0, min(time.monotonic(), self.ports[0].until) - self.started)
        out = []
        for template in self.profile["templates"]:
            client = template["client_template"]
            program = self.profile["program_list"][client["program_index"]]
            stream = program.get("stream", True)
            out.append((stream, int(client["cps"] * self.mult * span + 1e-6)))
        return out

    def counters(self, flows: list[tuple[bool, int]]) -> dict[str, dict[str, int]]:
        tcp = sum(count for stream, count in flows if stream)
        udp = sum(count for stream, count in flows if not stream)
        lost = 3 if tcp and self.behaviour == "lossy" else 0
        at = COUNTERS.index
        common = {str(at("tcps_connects")): tcp, str(at("udps_connects")): udp}
        return {
            "client": {
                **common, str(at("tcps_connattempt")): tcp, str(at("tcps_sndrexmitpack")): lost,
            },
            "server": common,
        }  # fmt: skip

    def rpc_get_counter_values(self, params: dict[str, Any]) -> Any:
        return {**self.counters(self.flows()), "epoch": 1, "name": "_"}

    rpc_get_total_counter_values = rpc_get_counter_values

    def rpc_get_tg_names(self, params: dict[str, Any]) -> Any:
        if params.get("initialized") and params.get("epoch") == 1:
            return {"epoch": 1}  # the client has them
        return {"tg_names": self.profile["tg_names"], "epoch": 1}

    def rpc_get_tg_id_stats(self, params: dict[str, Any]) -> Any:
        if len(params["tg_ids"]) > 10:
            raise RpcError("too many template groups at once")
        flows, out = self.flows(), {"epoch": 1}
        for number in params["tg_ids"]:
            some = [
                flow
                for flow, template in zip(flows, self.profile["templates"], strict=True)
                if template["tg_id"] == number
            ]
            out[str(number)] = {**self.counters(some), "epoch": 1, "name": "x"}  # type: ignore
        return out


def records_of(path: Path) -> list[tuple[int, float]]:
    """(bytes with FCS, seconds) of each packet of a classic pcap; none where it is not one."""
    try:
        data = path.read_bytes()
    except OSError:
        return []
    unit = {0xA1B2C3D4: 1e-6, 0xA1B23C4D: 1e-9}.get(struct.unpack("<I", data[:4])[0])
    found, place = [], 24
    while unit is not None and place < len(data):
        whole, part, size, _ = struct.unpack("<IIII", data[place : place + 16])
        found.append((size + 4, whole + part * unit))
        place += 16 + size
    return found


def serve(server: Server, rpc_port: int, publish_port: int) -> None:
    """Answer until SIGTERM."""
    import zmq

    context = zmq.Context()
    publish = context.socket(zmq.PUB)
    publish.bind(f"tcp://127.0.0.1:{publish_port}")
    if server.behaviour == "slow":
        time.sleep(1.5)  # the publisher is there earlier than the one that answers
    rpc = context.socket(zmq.REP)
    rpc.bind(f"tcp://127.0.0.1:{rpc_port}")
    poller = zmq.Poller()
    poller.register(rpc, zmq.POLLIN)
    heartbeat = 0.0
    while True:
        ready = poller.poll(20)
        now = time.monotonic()
        server.tick(now)
        if ready:
            data = json.loads(unpack(rpc.recv()))
            answers = [server.answer(one) for one in (data if isinstance(data, list) else [data])]
            reply = json.dumps(answers if isinstance(data, list) else answers[0]).encode()
            rpc.send(pack(reply))
        sending = any(p.began is not None and p.owner != "alice" for p in server.ports)
        if sending and now - max(p.began or 0 for p in server.ports) > 0.4:
            if server.behaviour == "dies":
                print("ERROR: mbuf pool is broken, giving up", flush=True)
                raise SystemExit(134)
            if server.behaviour == "hangs":
                time.sleep(3600)
        for message in server.published:
            publish.send(json.dumps(message).encode())
        server.published.clear()
        if server.old:
            if now - heartbeat > 0.5:
                heartbeat = now
                server.tell("trex-global", 0, server.globals())
        elif any(server.queues.values()) or now - heartbeat > 0.5:
            heartbeat = now
            publish.send(b"{}")


def make_tree(directory: Path, behaviour: str = "normal") -> Path:
    """Lay out an installation without a client; `t-rex-64 -i` starts this server."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "version.txt").write_text(f"{VERSION}\n")
    (directory / "behaviour").write_text(behaviour)
    wrapper, binary = directory / "t-rex-64", directory / "_t-rex-64"
    wrapper.write_text('#!/bin/sh\ncd "$(dirname "$0")" || exit 1\n./_t-rex-64 "$@"\nexit $?\n')
    binary.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(SOURCE.parent)!r})\n"
        "import fake_trex_server\nfake_trex_server.main()\n"
    )
    for file in (wrapper, binary):
        file.chmod(0o755)
    return directory


def main() -> None:
    import yaml

    parser = argparse.ArgumentParser()
    parser.add_argument("-i", action="store_true")
    parser.add_argument("--astf", action="store_true")
    parser.add_argument("--cfg", type=Path)
    options, _ = parser.parse_known_args()
    behaviour = Path("behaviour").read_text().strip()
    if behaviour == "no-arp":
        print("Failed resolving dest MAC for default gateway:2.2.2.2 on port 0", flush=True)
        raise SystemExit(1)
    (cfg,) = yaml.safe_load(options.cfg.read_text())
    mode = "ASTF" if options.astf != (behaviour == "other-mode") else "STL"
    server = Server(mode, behaviour)

    def end(*_: object) -> None:
        Path("asked.json").write_text(json.dumps(server.asked))
        sys.exit(255)

    signal.signal(signal.SIGTERM, end)
    serve(server, cfg["zmq_rpc_port"], cfg["zmq_pub_port"])


if __name__ == "__main__":
    main()
