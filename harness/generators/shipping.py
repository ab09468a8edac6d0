"""What the generator host needs of ours: the corpus, by digest, and the expander's source.

The expander runs on the generator host, so that only one iteration of the corpus crosses the
network. Nothing is shipped twice, and nothing when the host's Python already has the very same
source (the virtual lab).
"""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
import tempfile
from pathlib import Path

import pcap_tools
from harness.errors import GeneratorFailed
from harness.model import Corpus, Schedule
from lab.host import Host
from lab.inventory import GeneratorSpec
from lab.shipping import ship_file

__all__ = ["expand_command", "ship_capture", "ship_expander"]

_DIGEST = (
    "import hashlib,pathlib,pcap_tools;h=hashlib.sha256();"
    "d=pathlib.Path(pcap_tools.__file__).parent;"
    "[h.update(p.name.encode()+b'\\0'+p.read_bytes()) for p in sorted(d.glob('*.py'))];"
    "print(h.hexdigest())"
)


def _source() -> tuple[list[Path], str]:
    files = sorted(Path(pcap_tools.__file__).parent.glob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return files, digest.hexdigest()


def ship_capture(host: Host, path: Path, digest: str) -> str:
    """Put a capture on the host under its SHA-256, unless it is there; return its remote path."""
    return ship_file(host, path, f"{host.workdir}/captures/{digest}.pcap", digest)


def ship_expander(host: Host) -> dict[str, str]:
    """Make `python -m pcap_tools` run on the host with our source; return the environment for it.

    Raises GeneratorFailed when the host's Python lacks numpy or numba.
    """
    files, digest = _source()
    env: dict[str, str] = {}
    own = host.run([host.python, "-c", _DIGEST], check=False, timeout=60)
    if own.stdout.strip() != digest:
        target = f"{host.workdir}/pcap_tools-{digest[:16]}"
        if host.run(["test", "-f", f"{target}/complete"], check=False).returncode != 0:
            _unpack(host, files, target)
        env["PYTHONPATH"] = target
    warm = host.run([host.python, "-m", "pcap_tools", "warm"], check=False, timeout=300, env=env)
    if warm.returncode != 0:
        last = (warm.stderr.strip().splitlines() or ["no message"])[-1]
        raise GeneratorFailed(
            f"{host.name}: {shlex.quote(host.python)} cannot run the expander ({last}); it needs "
            "Python 3.11 with numpy and numba: set hosts.<name>.python in the inventory"
        )
    return env


def expand_command(
    host: Host,
    spec: GeneratorSpec,
    env: dict[str, str],
    corpus: Corpus,
    capture: str,
    schedule: Schedule,
    output: str,
) -> list[str]:
    """What expands the schedule's iterations of `capture` on the host into `output` there.

    `env` is what `ship_expander` gave, `capture` what `ship_capture` gave; "-" is standard output.
    """
    command = [
        *(["taskset", "-c", spec.cpus] if spec.cpus else []),
        *["env", *(f"{k}={v}" for k, v in env.items())],
        *[host.python, "-m", "pcap_tools", "expand", capture, "-o", output],
        *["--key", corpus.key, "--home", ",".join(corpus.home)],
        *["--first", str(schedule.first_iteration), "--iterations", str(schedule.iterations)],
        *["--every", repr(schedule.every_s)],
    ]
    if corpus.max_gap is not None:
        command += ["--max-gap", repr(corpus.max_gap)]
    return command


def _unpack(host: Host, files: list[Path], target: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for file in files:
            tar.add(file, arcname=f"pcap_tools/{file.name}")
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) / "pcap_tools.tar.gz"
        local.write_bytes(buffer.getvalue())
        host.run(["mkdir", "-p", target])
        host.put(local, f"{target}/source.tar.gz")
    host.run(["tar", "-xzf", f"{target}/source.tar.gz", "-C", target])
    host.run(["touch", f"{target}/complete"])
