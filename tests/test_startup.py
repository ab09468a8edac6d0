"""What a command imports before it does anything: its start must not be felt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli

LOADED = """
import json, sys
from harness.cli import main
sys.argv = ["probebench", *json.loads(sys.argv[1])]
try:
    main()
except SystemExit:
    pass
print("\\n" + json.dumps(sorted(sys.modules)))
"""


def loaded_by(*arguments: str) -> set[str]:
    command = [sys.executable, "-c", LOADED, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    return {"pcap_tools.clean"} & set(modules) | {name.split(".")[0] for name in modules}


@pytest.mark.parametrize("arguments", [["--help"], ["corpus", "--help"], ["lab", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = {"numpy", "numba", "pandas", "matplotlib", "paramiko", "rich"}
    if arguments == ["--help"]:
        heavy.add("pydantic")  # typer 0.28 and later bring it for any option of a group
    assert not loaded_by(*arguments) & heavy


def test_a_corpus_command_imports_what_it_needs(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.pcap")
    modules = loaded_by("corpus", "clean", missing, "-o", str(tmp_path / "out.pcap"))
    assert {"numba", "pcap_tools.clean"} <= modules
    assert not modules & {"pandas", "matplotlib", "paramiko", "pyarrow", "scapy", "jinja2"}


@pytest.mark.parametrize(
    ("words", "groups", "commands"),
    [
        (["corpus", "clean", "x"], ["corpus"], ["clean"]),
        (["corpus", "--help"], ["corpus"], None),
        (["sweep", "p"], [], None),
        (["corpus", "nonsense"], ["corpus"], None),
    ],
)
def test_only_the_wanted_command_is_built(
    words: list[str], groups: list[str], commands: list[str] | None
) -> None:
    cli._register()
    narrow = cli._narrowed(cli.app, words)
    assert [info.name for info in narrow.registered_groups] == groups
    if commands is not None:
        inner = narrow.registered_groups[0].typer_instance
        assert inner is not None
        found = [c.name or getattr(c.callback, "__name__", "") for c in inner.registered_commands]
        assert found == commands
    # The whole program is still there for whoever asks for it.
    assert len(cli.app.registered_groups) > 1
    assert cli._narrowed(cli.app, ["nonsense"]) is cli.app
