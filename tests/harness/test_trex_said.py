"""Why a TRex did not run, from what a real one said (v3.08, software mode, recorded)."""

from __future__ import annotations

import pytest

from harness.generators.trex.console import Console, Said

# On a host without pciutils, before every start that goes on.
NO_LSPCI = """\
Traceback (most recent call last):
  File "/opt/trex/dpdk_nic_bind.py", line 265, in run_lspci
    return check_output(["lspci"] + list(args), universal_newlines = True).splitlines()
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
FileNotFoundError: [Errno 2] No such file or directory: 'lspci'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/opt/trex/dpdk_setup_ports.py", line 1748, in main
    dpdk_nic_bind.dump_pci_description()
  File "/opt/trex/dpdk_nic_bind.py", line 271, in run_lspci
    dist = platform.linux_distribution(full_distribution_name=False)[0].lower()
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^
AttributeError: module 'platform' has no attribute 'linux_distribution'
"""
STARTED = """\
The ports are bound/configured.
Starting  TRex v3.08 please wait  ...
 set driver name net_af_packet
 driver capability  : SLRO
 Number of ports found: 2
zmq publisher at: tcp://*:4500
 number of ports         : 2
"""
SETUP = "ERROR encountered while configuring TRex system\n"
RECORDED = {
    "no interface": (
        "ERROR: Could not find Linux interface la0.\n" + SETUP,
        "ERROR: Could not find Linux interface la0.",
    ),
    "no yaml": (
        NO_LSPCI + STARTED + "Error parsing file /tmp/bad.yaml as YAML:\n"
        "yaml-cpp: error at line 0, column 0: end of sequence flow not found\n",
        "Error parsing file /tmp/bad.yaml as YAML: "
        "yaml-cpp: error at line 0, column 0: end of sequence flow not found",
    ),
    "no profile": (
        NO_LSPCI + STARTED + " ERROR file /tmp/none.yaml does not exist \n",
        "ERROR file /tmp/none.yaml does not exist",
    ),
    "no pool": (
        NO_LSPCI + STARTED + "no client generator pool configured, using default pool\n"
        "ERROR invalid client pool name c7, please review your YAML file\n",
        "ERROR invalid client pool name c7, please review your YAML file",
    ),
    "no flow": (
        NO_LSPCI + STARTED + " -- loading cap file /tmp/gone.pcap \n"
        "CAP file '/tmp/gone.pcap' not found\n"
        " ERROR file /tmp/gone.pcap does not exist or not supported \n",
        "ERROR file /tmp/gone.pcap does not exist or not supported",
    ),
    "port taken": (
        "ZMQ port is used by the following process:\npid: 11042, cmd: ./_t-rex-64 -f x\n" + SETUP,
        "ZMQ port is used by the following process: pid: 11042, cmd: ./_t-rex-64 -f x",
    ),
    "prefix taken": (
        NO_LSPCI + "EAL: Error - exiting with code: 1\n  Cause: Invalid EAL arguments\n",
        "EAL: Error - exiting with code: 1 Cause: Invalid EAL arguments",
    ),
    "killed": (
        NO_LSPCI
        + STARTED
        + "./t-rex-64: line 109: 11042 Killed    ./_$(basename $0) $INPUT_ARGS\n",
        "./t-rex-64: line 109: 11042 Killed    ./_$(basename $0) $INPUT_ARGS",
    ),
    # Not recorded: scripts of TRex that cannot run at all.
    "broken scripts": (
        'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n'
        "ModuleNotFoundError: No module named 'imp'\n" + SETUP,
        "ModuleNotFoundError: No module named 'imp'",
    ),
    "a traceback alone": (NO_LSPCI, NO_LSPCI.splitlines()[-1]),
    "nothing": ("", "no message"),
}


@pytest.mark.parametrize("name", RECORDED)
def test_the_reason_is_told(name: str) -> None:
    text, why = RECORDED[name]
    said, console = Said(), Console()
    for line in text.splitlines():
        said.feed(line)
        console.feed(line, 0.0)
    assert said.why == why
    assert console.said.why == why


def test_a_traceback_longer_than_what_is_kept_is_still_none() -> None:
    said = Said()
    lines = NO_LSPCI.splitlines()
    for line in [*lines[:4], *["    more of it"] * 50, *lines[4:], "  one", "two"] * 2:
        said.feed(line)
    assert said.lines == ["one", "two"] * 2 and said.why == "two"
