"""A Suricata that a test starts itself, as an administrator would have: it is only observed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Foreign:
    """It captures on rx0 of the namespace `space`, with `rules`; its files are in `directory`."""

    space: str
    rules: Path
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def eve(self) -> Path:
        return self.directory / "eve.json"

    @property
    def socket(self) -> Path:
        return self.directory / "c.sock"

    @property
    def options(self) -> dict[str, str]:
        """`[sensor.options]` that observe it."""
        return {
            "control": "observed", "socket": str(self.socket), "eve": str(self.eve),
            "log": str(self.directory / "suricata.log"),
        }  # fmt: skip

    def start(self) -> None:
        config = self.directory / "suricata.yaml"
        config.write_text(f"""%YAML 1.1
---
default-log-dir: {self.directory}
rule-files: [{self.rules}]
stats: {{enabled: yes, interval: 1}}
outputs:
  - eve-log:
      enabled: yes
      filetype: regular
      filename: eve.json
      types: [alert, {{stats: {{threads: yes}}}}, flow]
logging: {{outputs: [{{file: {{enabled: yes, level: info, filename: suricata.log}}}}]}}
unix-command: {{enabled: yes, filename: {self.socket}}}
af-packet: [{{interface: rx0, threads: 2, cluster-id: 31, cluster-type: cluster_flow}}]
runmode: workers
flow-timeouts: {{tcp: {{closed: 44}}}}
app-layer: {{protocols: {{http: {{enabled: yes}}, dns: {{udp: {{enabled: yes}}}}}}}}
""")
        argv = ["suricata", "-c", str(config), "--af-packet=rx0", "-l", str(self.directory)]
        log = (self.directory / "suricata.log").open("ab")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.space, *argv], stdout=log, stderr=log
        )
        log.close()
        end = time.monotonic() + 30
        while not self.socket.exists():
            assert self.process.poll() is None and time.monotonic() < end
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


@contextmanager
def foreign_suricata(space: str, rules: Path) -> Iterator[Foreign]:
    """One that runs; ended at the end."""
    # Short: a unix socket's path is limited.
    directory = Path(f"/var/tmp/pbo{os.getpid()}")
    directory.mkdir()
    made = Foreign(space, rules, directory)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory)
