"""`probebench corpus inspect --for PROFILE --sensor SENSOR`: is a capture fit for them?"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from harness.lint.check import Result
    from pcap_tools.policy import Policy

__all__ = ["lint_command"]


def lint_command(
    captures: Sequence[str],
    profile: str,
    sensor: str,
    rules: Sequence[Path],
    policy: Policy,
    progress: Callable[[str, int, int], None] | None,
    as_json: bool,
) -> None:
    """Print every finding; exit status 1 when one is an error."""
    from harness.lint.run import lint
    from harness.lint.sensor import load_sensor
    from harness.lint.subject import find_profile, read_subject

    asked, facts = find_profile(profile), load_sensor(sensor)
    subject = read_subject(captures, asked, facts, rules, policy, progress)
    found = lint(subject)
    errors = sum(result.severity == "error" for result in found)
    if as_json:
        value = {
            "captures": list(captures),
            "profile": asked.name,
            "sensor": facts.model_dump(mode="json"),
            "errors": errors,
            "findings": [result.as_json() for result in found],
        }
        print(json.dumps(value, indent=1))
    else:
        head = f"{', '.join(captures)} for {asked.name} before {facts.name}"
        _show(head, found, errors)
    if errors:
        raise typer.Exit(1)


def _show(head: str, found: Sequence[Result], errors: int) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    counts = {name: sum(r.severity == name for r in found) for name in ("error", "warning", "info")}
    console.print(
        f"{head}: {counts['error']} errors, {counts['warning']} warnings, {counts['info']} notes",
        markup=False,
        soft_wrap=True,
    )
    colours = {"error": "red", "warning": "yellow", "info": "cyan"}
    for result in found:
        console.print(f"[{colours[result.severity]}]{result.severity:>7}[/]  {result.code}")
        body = f"{result.message}." + (f"\n→ {result.remedy}" if result.severity != "info" else "")
        console.print(Padding(Text(body), (0, 0, 0, 9)))
    verdict = "not fit: what is measured with it says little about the sensor" if errors else "fit"
    console.print(f"verdict: {verdict}", markup=False)
