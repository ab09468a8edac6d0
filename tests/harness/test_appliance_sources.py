"""Sources of counters: commands, and real HTTP servers with what they answer."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Info, generate_latest

from harness.errors import ConfigError, SensorFailed
from harness.sensors.appliance.sensor import ApplianceSensor
from harness.sensors.registry import make_sensor
from lab.errors import CommandTimeout
from lab.fake import Call, FakeHost, FakeProcess, Reply
from lab.inventory import SensorSpec


def sensor(host: FakeHost, driver: str, **options: Any) -> ApplianceSensor:
    base = {"refresh": 0, "live_interval": 0}
    spec = SensorSpec(driver=driver, host="probe", options={**base, **options})
    made = make_sensor(host, spec)
    assert isinstance(made, ApplianceSensor)
    return made


# -- command ------------------------------------------------------------------------------------


class Probe:
    """A sensor behind a command: its counters grow by what `sent` says."""

    def __init__(self) -> None:
        self.sent = 0
        self.reply: Reply | None = None

    def __call__(self, call: Call) -> Reply | FakeProcess:
        if call.argv == ("probe", "--version"):
            return Reply("Probe OS 4.2 (build 7)\nmore\n")
        if call.argv == ("probe", "reset"):
            return Reply()
        if self.reply is not None:
            return self.reply
        drop = self.sent // 10
        return Reply(
            json.dumps(
                {
                    "rx": 7_000 + self.sent - drop,
                    "drop": 50 + drop,
                    "cpu": {"0": 3 + self.sent // 2, "1": self.sent // 2},
                    "up": 99,
                }
            )
        )


OPTIONS: dict[str, Any] = {
    "command": ["probe", "counters"],
    "version_command": ["probe", "--version"],
    "received_includes_drops": False,
    "counters": {"received": {"path": "rx"}, "dropped": {"path": "drop"}},
    "workers": {"path": "cpu.*"},
    "uptime": {"path": "up"},
}


def test_a_trial_by_command(tmp_path: Path) -> None:
    probe = Probe()
    found = sensor(FakeHost(probe), "command", **OPTIONS)
    found.check()
    assert found.version == "Probe OS 4.2 (build 7)" and found.state == "observed"
    able = found.capabilities
    assert (able.kernel_drops, able.per_worker, able.software_drops) == (True, True, False)
    assert not able.flows and not able.alerts and not able.exact_totals
    found.prepare()
    assert found.snapshot().received == 0
    probe.sent = 1000
    assert found.settle(5)
    after = found.finish()
    assert (after.received, after.dropped, after.decoded) == (1000, 100, None)
    assert after.workers == {"cpu.0": 500, "cpu.1": 500}
    found.collect(tmp_path)
    assert (
        json.loads((tmp_path / "readings.jsonl").read_text().splitlines()[-1])["received"] == 7900
    )


def test_a_restart_command_makes_the_state_known() -> None:
    host = FakeHost(Probe())
    found = sensor(host, "command", restart=["probe", "reset"], **OPTIONS)
    assert found.state == "restarted"
    found.prepare()
    assert ("probe", "reset") in [call.argv for call in host.calls]


def test_counters_that_were_read_too_early_are_found_out() -> None:
    """The second trial's beginning shows that the first one's end was not the end."""
    probe = Probe()
    found = sensor(FakeHost(probe), "command", **OPTIONS)
    found.prepare()
    probe.sent = 400
    assert found.settle(5) and found.finish().received == 400
    probe.sent = 1000
    with pytest.raises(SensorFailed, match=r"received grew by 540 after .*refresh = 0 says"):
        found.prepare()
    found.prepare()  # said once; the next trial may be sound


def test_a_reading_that_fails_in_mid_trial_is_nothing_and_a_reset_is_the_end() -> None:
    probe = Probe()
    found = sensor(FakeHost(probe), "command", **{**OPTIONS, "live_interval": 1e-9})
    found.prepare()
    probe.sent = 100
    assert found.live().received == 100
    probe.reply = Reply("", "busy", 1)
    assert found.live().received is None
    probe.reply = Reply('{"rx": 3, "drop": 0, "cpu": {"0": 0, "1": 0}, "up": 99}')
    with pytest.raises(SensorFailed, match="in mid-trial: it was reset"):
        found.live()


def test_a_management_that_starves_for_a_while_is_asked_again() -> None:
    probe = Probe()
    silent = [0]

    def answer(call: Call) -> Reply | FakeProcess:
        if silent[0] > 0:
            silent[0] -= 1
            return Reply("", "no answer", 1)
        return probe(call)

    found = sensor(FakeHost(answer), "command", **OPTIONS)
    found.prepare()
    probe.sent, silent[0] = 1000, 3
    assert found.settle(10) and silent[0] == 0
    assert found.finish().received == 1000
    found.prepare()
    silent[0] = 10**6
    with pytest.raises(SensorFailed, match="status 1: no answer"):
        found.settle(0.3)


def test_other_traffic_is_refused() -> None:
    probe = Probe()

    def busy(call: Call) -> Reply | FakeProcess:
        probe.sent += 1000
        return probe(call)

    found = sensor(FakeHost(busy), "command", **{**OPTIONS, "ready_timeout": 0.5, "refresh": 0.1})
    with pytest.raises(SensorFailed, match=r"not idle after 0\.5 s"):
        found.prepare()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply("", "", 3), "ended with status 3: nothing on standard error"),
        (Reply("", "x\nno such feature\n", 1), "status 1: no such feature"),
        (Reply("{}"), "nothing at path 'rx'"),
    ],
)
def test_a_command_that_fails(reply: Reply, words: str) -> None:
    probe = Probe()
    probe.reply = reply
    with pytest.raises(SensorFailed, match=words):
        sensor(FakeHost(probe), "command", **OPTIONS).check()


def test_a_command_that_hangs() -> None:
    def hang(call: Call) -> Reply | FakeProcess:
        raise CommandTimeout("x")

    options = {**OPTIONS, "version_command": []}
    with pytest.raises(SensorFailed, match="did not end within 10 s"):
        sensor(FakeHost(hang), "command", **options).check()


# -- HTTP ---------------------------------------------------------------------------------------


class Web(BaseHTTPRequestHandler):
    """Answers from `pages`: path to (status, headers, body); remembers what it was asked."""

    pages: dict[str, tuple[int, dict[str, str], bytes]]
    asked: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.asked.append((self.path, dict(self.headers)))
        status, headers, body = self.pages.get(self.path, (404, {}, b"no"))
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[tuple[str, type[Web]]]:
    kind = type("Pages", (Web,), {"pages": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", kind
    server.shutdown()
    thread.join()
    server.server_close()


def page(value: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


REST: dict[str, Any] = {
    "received_includes_drops": True,
    "version_path": "version",
    "counters": {"received": {"path": "rx"}, "dropped": {"path": "lost.*"}},
}


def test_rest(web: tuple[str, type[Web]]) -> None:
    url, pages = web
    pages.pages = {
        "/a": page({"version": "9.1", "rx": 10, "lost": {"ring": 1, "nic": 2}}),
        "/b": page({"flows": 5}),
    }
    counters = {**REST["counters"], "flows": {"path": "flows", "url": f"{url}/b"}}
    found = sensor(FakeHost(), "rest", **{**REST, "url": f"{url}/a", "counters": counters})
    found.check()
    assert found.version == "9.1"
    found.prepare()
    pages.pages["/a"] = page({"version": "9.1", "rx": 1010, "lost": {"ring": 101, "nic": 2}})
    pages.pages["/b"] = page({"flows": 25})
    pages.asked.clear()
    after = found.finish()
    assert (after.received, after.dropped, after.flows) == (1000, 100, 20)
    assert sorted(path for path, _ in pages.asked) == ["/a", "/b"]  # each once


def test_secrets_come_from_outside_and_stay_there(
    web: tuple[str, type[Web]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, pages = web
    pages.pages = {"/a": page({"version": "1", "rx": 1, "lost": {}})}
    monkeypatch.setenv("PROBE_TOKEN", "geheim-1")
    (tmp_path / "pw").write_text("geheim-2\n")
    counters = {"received": {"path": "rx"}}
    base = {"url": f"{url}/a", "counters": counters}
    bearer = sensor(FakeHost(), "rest", **base, token={"env": "PROBE_TOKEN"})
    bearer.check()
    assert pages.asked[-1][1]["Authorization"] == "Bearer geheim-1"
    basic = sensor(FakeHost(), "rest", **base, user="eva", password={"file": str(tmp_path / "pw")})
    basic.check()
    kind, _, code = pages.asked[-1][1]["Authorization"].partition(" ")
    assert (kind, base64.b64decode(code)) == ("Basic", b"eva:geheim-2")
    pages.pages["/a"] = (401, {}, b"")
    with pytest.raises(SensorFailed, match="HTTP 401: it wants another user") as error:
        bearer.check()
    assert "geheim" not in str(error.value)
    monkeypatch.delenv("PROBE_TOKEN")
    with pytest.raises(ConfigError, match="environment variable PROBE_TOKEN is not set"):
        bearer.check()


@pytest.mark.parametrize("secret", ["geheim", {"env": "A", "file": "b"}, {}, {"text": "geheim"}])
def test_a_secret_in_the_inventory_is_refused_and_not_repeated(secret: object) -> None:
    options = {"url": "http://probe", "counters": {"received": {"path": "rx"}}, "token": secret}
    with pytest.raises(ConfigError, match=r"sensor\.options\.token") as error:
        sensor(FakeHost(), "rest", **options)
    assert "geheim" not in str(error.value)


def test_a_password_in_a_url_is_refused() -> None:
    options = {"url": "http://eva:geheim@probe/", "counters": {"received": {"path": "rx"}}}
    with pytest.raises(ConfigError, match="no user or password in a URL") as error:
        sensor(FakeHost(), "rest", **options)
    assert "geheim" not in str(error.value)


def test_credentials_do_not_follow_a_redirect_elsewhere(
    web: tuple[str, type[Web]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, pages = web
    monkeypatch.setenv("T", "geheim")
    pages.pages = {
        "/here": (302, {"Location": "/a"}, b""),
        "/away": (302, {"Location": url.replace("127.0.0.1", "localhost") + "/a"}, b""),
        "/a": page({"rx": 1}),
    }
    options = {"counters": {"received": {"path": "rx"}}, "token": {"env": "T"}}
    sensor(FakeHost(), "rest", url=f"{url}/here", **options).check()
    pages.asked.clear()
    with pytest.raises(SensorFailed, match="sends us to another host"):
        sensor(FakeHost(), "rest", url=f"{url}/away", **options).check()
    assert [path for path, _ in pages.asked] == ["/away"]


def test_nobody_there() -> None:
    options = {"url": "http://127.0.0.1:9/x", "counters": {"received": {"path": "rx"}}}
    with pytest.raises(SensorFailed, match=r"^http://127\.0\.0\.1:9/x: cannot be asked: "):
        sensor(FakeHost(), "rest", **options).check()


PROMETHEUS: dict[str, Any] = {
    "received_includes_drops": True,
    "counters": {
        "received": {"metric": "probe_packets", "labels": {"direction": "rx"}},
        "dropped": {"metric": "probe_drops_total", "absent": "zero"},
    },
    "workers": {"metric": "probe_worker_packets_total"},
}


@pytest.mark.parametrize("openmetrics", [False, True])
def test_prometheus(web: tuple[str, type[Web]], openmetrics: bool) -> None:
    """The library that writes the exposition is the reference implementation."""
    from prometheus_client.openmetrics import exposition

    url, pages = web
    registry = CollectorRegistry()
    packets = Counter("probe_packets", "x", ["direction", "port"], registry=registry)
    drops = Counter("probe_drops", "x", ["why"], registry=registry)
    workers = Counter("probe_worker_packets", "x", ["worker"], registry=registry)
    Info("probe_build", "x", registry=registry).info({"version": "3.3"})
    packets.labels("tx", "1").inc(999)

    def publish() -> None:
        if openmetrics:
            body, kind = exposition.generate_latest(registry), exposition.CONTENT_TYPE_LATEST
        else:
            body, kind = generate_latest(registry), "text/plain; version=0.0.4"
        pages.pages = {"/metrics": (200, {"Content-Type": kind}, body)}

    packets.labels("rx", "1").inc(5)
    workers.labels("w1").inc(2)
    publish()
    found = sensor(FakeHost(), "prometheus", url=f"{url}/metrics", **PROMETHEUS)
    found.check()
    assert found.version == "3.3"
    found.prepare()
    packets.labels("rx", "1").inc(600)
    packets.labels("rx", "2").inc(400)
    drops.labels("ring").inc(7)
    workers.labels("w1").inc(900)
    publish()
    after = found.finish()
    assert (after.received, after.dropped, after.workers) == (1000, 7, {"worker=w1": 900})


def test_a_prometheus_target_that_restarts(web: tuple[str, type[Web]]) -> None:
    url, pages = web

    def publish(value: int, start: float) -> None:
        text = (
            f'probe_packets_total{{direction="rx"}} {value}\n'
            f"probe_worker_packets_total 1\nprocess_start_time_seconds {start}\n"
        )
        pages.pages = {"/metrics": (200, {"Content-Type": "text/plain"}, text.encode())}

    publish(10, 1.7e9)
    found = sensor(FakeHost(), "prometheus", url=f"{url}/metrics", **PROMETHEUS)
    found.prepare()
    publish(20, 1.7e9 + 60)
    with pytest.raises(SensorFailed, match="restarted in mid-trial"):
        found.finish()


def test_what_a_prometheus_target_lacks(web: tuple[str, type[Web]]) -> None:
    url, pages = web
    pages.pages = {"/m": (200, {}, b"a_metric 1\n"), "/h": (200, {}, b"<html>hello there</html>")}
    with pytest.raises(SensorFailed, match=r"there is no probe_packets\{direction=\"rx\"\}"):
        sensor(FakeHost(), "prometheus", url=f"{url}/m", **PROMETHEUS).check()
    with pytest.raises(SensorFailed, match="not Prometheus's text format"):
        sensor(FakeHost(), "prometheus", url=f"{url}/h", **PROMETHEUS).check()
