"""`./run` on machines that lack something, made of fake programs that come first in PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
INSTALLED = "printf installed; exit 0"
ROOT_ONLY = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="needs root"
)
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@dataclass
class Machine:
    """A checkout of its own, and programs that hide this machine's."""

    path: Path

    def program(self, name: str, script: str) -> None:
        """Put a fake program first in PATH; every call of it is noted."""
        file = self.path / "bin" / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.path}/calls"\n{script}\n')
        file.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """Calls of the fake programs, in order."""
        noted = self.path / "calls"
        return noted.read_text().splitlines() if noted.exists() else []

    @property
    def installed(self) -> list[str]:
        """Calls of apt-get that install."""
        return [c for c in self.calls if c.startswith("apt-get ") and " install " in c]

    @property
    def files(self) -> set[str]:
        """Every file, but those this test harness makes."""
        everything = (p for p in self.path.rglob("*") if p.is_file())
        return {str(p.relative_to(self.path)) for p in everything} - {"calls"}

    def run(
        self, *arguments: str, before: tuple[str, ...] = (), **environment: str
    ) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of `./run …`, without a terminal."""
        done = subprocess.run(
            [*before, "/bin/sh", str(self.path / "checkout" / "run"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            input="y\n",  # an answer, for whoever would ask
            env={
                "PATH": f"{self.path}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TMPDIR": str(self.path / "tmp"),
                "RUN_ROOT": str(self.path / "root"),
                "PYTHON": str(self.path / "bin" / "fake-python"),
                "CI": "true",
                **environment,
            },
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return whole_machine(tmp_path)


def whole_machine(tmp_path: Path) -> Machine:
    """A machine with every package, a working pip, and an apt-get that must not be called."""
    for name in ("bin", "checkout", "tmp", "root/usr/sbin", "root/etc/apt/sources.list.d"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("run", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path / "checkout" / name)
    made = Machine(tmp_path)
    made.program("dpkg-query", INSTALLED)
    made.program("apt-get", "echo 'E: not expected' >&2; exit 100")
    made.program("apt-cache", "exit 0")
    made.program("systemctl", "exit 0")
    made.program("probebench", "")
    # A Python that makes environments and installs; only its answers matter to ./run.
    made.program(
        "fake-python",
        f"""case "$1 $2" in
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip") cp "{tmp_path}/bin/probebench" "${{0%/*}}/probebench" ;;
esac""",
    )
    return made


def one_line(text: str) -> bool:
    return text.startswith("run: ") and text.endswith("\n") and text.count("\n") == 1


def lacking(machine: Machine, package: str) -> None:
    """This package alone is not installed."""
    machine.program("dpkg-query", f'case "$*" in *" {package}") exit 1 ;; esac; {INSTALLED}')


def test_unknown_verb_shows_the_usage(machine: Machine) -> None:
    status, out, err = machine.run("dmeo")
    assert (status, out) == (2, "")
    assert err.startswith("run: unknown command 'dmeo'") and "./run demo [--dry-run]" in err


def test_no_verb_and_help(machine: Machine) -> None:
    status, out, err = machine.run()
    assert (status, out) == (2, "") and "./run test" in err
    status, out, err = machine.run("help")
    assert (status, err) == (0, "") and "./run test" in out


def test_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here")
    subprocess.run(["shellcheck", "-s", "sh", str(REPOSITORY / "run")], check=True)


def test_dry_run_touches_nothing(machine: Machine) -> None:
    lacking(machine, "suricata")
    before = machine.files
    status, out, err = machine.run("demo", "--dry-run")
    assert (status, err) == (0, "")
    assert "system packages to install: suricata" in out
    assert "would make" in out and "7. report" in out
    assert machine.files == before
    assert not [call for call in machine.calls if call.startswith(("apt-get", "fake-python"))]
    # As root, apt-cache would otherwise write its cache.
    policies = [call for call in machine.calls if call.startswith("apt-cache")]
    assert policies and all("Dir::Cache::pkgcache= " in call for call in policies)


@ROOT_ONLY
def test_dry_run_without_root() -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to others
        Path(directory).chmod(0o755)
        machine = whole_machine(Path(directory))
        (machine.path / "calls").touch()
        (machine.path / "calls").chmod(0o666)
        before = machine.files
        status, out, err = machine.run("demo", "--dry-run", before=NOBODY)
        assert (status, err) == (0, "")
        assert "would stop here: not root" in out and "8. lab down" in out
        assert machine.files == before


@ROOT_ONLY
@pytest.mark.parametrize("verb", ["demo", "test", "setup"])
def test_without_root(machine: Machine, verb: str) -> None:
    machine.program("id", "echo 1000")
    before = machine.files
    status, out, err = machine.run(verb)
    assert (status, out) == (3, "")
    assert one_line(err) and "not root" in err and "sudo ./run" in err
    assert machine.files == before


def test_another_system(machine: Machine) -> None:
    machine.program("uname", "echo Darwin")
    status, out, err = machine.run("demo")
    assert (status, out) == (3, "")
    assert one_line(err) and "Darwin" in err and "Debian 12" in err


@ROOT_ONLY
@pytest.mark.parametrize("lost", ["-net_admin", "-sys_admin", "-net_admin,-sys_admin"])
def test_root_of_a_container(machine: Machine, lost: str) -> None:
    before = machine.files
    status, out, err = machine.run("demo", before=("setpriv", "--bounding-set", lost))
    assert (status, out) == (3, "")
    assert one_line(err) and "CAP_NET_ADMIN and CAP_SYS_ADMIN" in err
    assert machine.files == before


@ROOT_ONLY
def test_no_mirror_has_suricata(machine: Machine) -> None:
    lacking(machine, "suricata")
    machine.program("apt-get", "exit 0")
    machine.program(
        "apt-cache", "printf 'suricata:\\n  Installed: (none)\\n  Candidate: (none)\\n'"
    )
    status, _, err = machine.run("demo")
    assert status == 3
    assert one_line(err) and "has Suricata 7 or later" in err and "add one that has" in err
    assert not machine.installed


@ROOT_ONLY
def test_backports_are_added_and_taken_away_again_when_they_do_not_help(machine: Machine) -> None:
    lacking(machine, "suricata")
    codename = next(
        line.partition("=")[2].strip('"')
        for line in Path("/etc/os-release").read_text().splitlines()
        if line.startswith("VERSION_CODENAME=")
    )
    machine.program(
        "apt-get",
        f'case "$*" in indextargets*) echo "http://mirror.test/debian|{codename}|main|" ;; esac',
    )
    status, _, err = machine.run("demo")
    assert status == 3 and one_line(err)
    assert not list((machine.path / "root/etc/apt/sources.list.d").iterdir())

    # Now the mirror has it, once its backports are asked for; the release's own is too old.
    sources = machine.path / "root/etc/apt/sources.list.d/probebench-backports.sources"
    machine.program(
        "apt-cache",
        f"""version=1:6.0.10-1
case "$*" in *"-t {codename}-backports"*) [ ! -e "{sources}" ] || version=1:7.0.10-1~bpo12+1 ;; esac
echo "  Candidate: $version" """,
    )
    status, _, err = machine.run("demo")
    assert (status, err) == (0, "")
    assert f"Suites: {codename}-backports" in sources.read_text()
    assert "URIs: http://mirror.test/debian" in sources.read_text()
    (install,) = machine.installed
    assert install.endswith(f"install --no-install-recommends -t {codename}-backports suricata")


@ROOT_ONLY
def test_packages_are_installed_without_a_question_or_a_service(machine: Machine) -> None:
    lacking(machine, "nginx-light")
    policy = machine.path / "root/usr/sbin/policy-rc.d"
    machine.program(
        "apt-get",
        f"""case "$*" in *" install "*)
  sh "{policy}"; echo "policy $? $DEBIAN_FRONTEND" >>"{machine.path}/calls"
  if read answer; then echo "asked" >>"{machine.path}/calls"; fi ;;
esac""",
    )
    status, out, err = machine.run("demo", "--keep-lab")
    assert (status, err) == (0, "")
    assert "installing packages: nginx-light" in out
    assert "policy 101 noninteractive" in machine.calls and "asked" not in machine.calls
    (install,) = machine.installed
    assert " -y " in install and install.endswith("--no-install-recommends nginx-light")
    assert machine.calls[-1] == "probebench demo --keep-lab"
    assert not policy.exists() and not list((machine.path / "tmp").iterdir())


@ROOT_ONLY
def test_a_package_that_does_not_install(machine: Machine) -> None:
    lacking(machine, "tcpreplay")
    machine.program("apt-get", "echo 'E: Unable to fetch tcpreplay.deb' >&2; exit 100")
    status, _, err = machine.run("demo")
    assert status == 3
    assert one_line(err) and "tcpreplay (E: Unable to fetch tcpreplay.deb; all of it: " in err
    assert not (machine.path / "root/usr/sbin/policy-rc.d").exists()
    log = Path(err.split("all of it: ")[1].rstrip(")\n"))
    assert "Unable to fetch" in log.read_text()


@ROOT_ONLY
@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("ERROR: No matching distribution found for numba", "No matching distribution"),
        ("killed by the fake", "killed by the fake"),
        ("", "no message"),
    ],
)
def test_pip_fails(machine: Machine, message: str, reason: str) -> None:
    python = machine.path / "bin" / "fake-python"
    text = python.read_text().replace('"-m pip")', f'"-m pip") echo "{message}" >&2; exit 1;')
    python.write_text(text)
    status, _, err = machine.run("demo")
    assert status == 3
    assert one_line(err) and "could not be installed" in err and reason in err
    # What failed is not taken for done the next time.
    assert machine.run("demo")[0] == 3


@ROOT_ONLY
def test_the_second_run_installs_nothing(machine: Machine) -> None:
    assert machine.run("demo")[0] == 0
    first = machine.calls
    assert any("-m pip install --no-input" in call for call in first)
    status, out, err = machine.run("demo")
    assert (status, out, err) == (0, "", "")
    again = machine.calls[len(first) :]
    assert {call.split()[0] for call in again} == {"dpkg-query", "probebench"}


@ROOT_ONLY
def test_new_dependencies_are_installed(machine: Machine) -> None:
    assert machine.run("demo")[0] == 0
    with (machine.path / "checkout" / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    before = len(machine.calls)
    assert machine.run("demo")[0] == 0
    assert any("-m pip install" in call for call in machine.calls[before:])


@ROOT_ONLY
def test_the_status_of_the_program_is_that_of_the_script(machine: Machine) -> None:
    machine.program("probebench", "exit 130")
    assert machine.run("demo")[0] == 130
