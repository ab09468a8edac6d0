"""A probe's web interface: counters of the Suricata behind a command socket, asked anew each time.

Run as a program inside a namespace: SOCKET ADDRESS PORT TOKEN. `/metrics` is for Prometheus,
`/api/counters` is JSON and wants the token.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


def ask(path: str, command: str) -> Any:
    """One command to Suricata's socket (doc/userguide/unix-socket.rst)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(5)
        link.connect(path)
        stream = link.makefile("rw")
        for message in ({"version": "0.2"}, {"command": command}):
            stream.write(json.dumps(message) + "\n")
            stream.flush()
            answer = json.loads(stream.readline())
        return answer["message"]


def flat(tree: Any, name: str = "suricata") -> Any:
    for key, value in tree.items():
        word = f"{name}_{key}".replace(".", "_").replace("-", "_")
        if isinstance(value, dict):
            yield from flat(value, word)
        elif isinstance(value, int):
            yield word, value


def text_of(tree: Any) -> str:
    threads = tree.pop("threads", {})
    lines = [
        f'suricata_build_info{{version="{ask(SOCKET, "version")}"}} 1',
        f"process_start_time_seconds {STARTED}",
    ]
    for name, value in flat(tree):
        lines += [f"# TYPE {name} counter", f"{name} {value}"]
    lines.append("# TYPE suricata_worker_packets counter")
    for name, counters in threads.items():
        if name.startswith("W#") and "decoder" in counters:
            value = counters["decoder"]["pkts"]
            lines.append(f'suricata_worker_packets{{thread="{name}"}} {value}')
    return "\n".join(lines) + "\n"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        tree = ask(SOCKET, "dump-counters")
        if not isinstance(tree, dict):
            self.send_error(503, str(tree))
        elif self.path == "/metrics":
            self.answer(text_of(tree), "text/plain; version=0.0.4")
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send_error(401)
        else:
            tree["version"] = ask(SOCKET, "version")
            self.answer(json.dumps(tree), "application/json")

    def answer(self, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


if __name__ == "__main__":
    SOCKET, ADDRESS, PORT, TOKEN = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    STARTED = int(time.time()) - int(ask(SOCKET, "uptime"))
    HTTPServer((ADDRESS, PORT), Handler).serve_forever()
