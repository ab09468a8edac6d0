"""The flows' files of a corpus, brought to TRex's host once."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.templates import Template
from lab.host import Host

__all__ = ["ship_flows"]


def ship_flows(host: Host, directory: Path, templates: Sequence[Template], recipe: Any) -> str:
    """Bring `<template>.pcap` of all templates to the host; the directory there.

    `recipe` is all that decides what is in the files (JSON): the same one is not shipped twice.
    """
    digest = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:32]
    remote = f"{host.workdir}/flows-{digest}"
    if host.run(["test", "-e", f"{remote}/whole"], check=False).returncode == 0:
        return remote
    packed = directory.parent / "flows.tar.gz"
    with tarfile.open(packed, "w:gz", compresslevel=1) as archive:
        for template in templates:
            name = f"{template.name}.pcap"
            archive.add(directory / name, arcname=name)
    host.run(["mkdir", "-p", remote])
    host.put(packed, f"{remote}/flows.tar.gz")
    host.run(["tar", "-xzf", f"{remote}/flows.tar.gz", "-C", remote], timeout=600)
    host.run(["touch", f"{remote}/whole"])
    return remote
