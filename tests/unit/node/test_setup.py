"""Setting a machine up: what is installed and started, and what is said where that may not be."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testbed.errors import MissingCapabilityError
from testbed.node import daemon, host, setup
from testbed.node.host import Completed

if TYPE_CHECKING:
    from tests.unit.node.conftest import FakeHost, Told

DOCKERD = """#!{python} -IS
import os, socket, sys, time
pidfile, path = sys.argv[2], sys.argv[4]
open(pidfile, "w").write(str(os.getpid()))
print("starting", os.getsid(0) == os.getpid(), os.getcwd(), flush=True)
if "--broken" in sys.argv:
    sys.exit("failed to start daemon: Devices cgroup isn't mounted")
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
while True:
    connection = server.accept()[0]
    connection.recv(100)
    connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nOK")
    connection.close()
"""


@pytest.fixture
def dockerd(machine: FakeHost, tmp_path: Path) -> daemon.Daemon:
    """A stand-in for dockerd that answers pings, installed on the machine."""
    program = machine.write("/bin/dockerd", DOCKERD.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    machine.programs.add("dockerd")
    machine.variables["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    return daemon.Daemon(
        arguments=("--host", str(tmp_path / "s")),
        socket=str(tmp_path / "s"),
        pidfile=str(tmp_path / "pid"),
        log="/log",
    )


def end(pidfile: Path) -> None:
    """End the stand-in and collect it."""
    pid = int(pidfile.read_text())
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)


def test_dockerd_is_started_in_a_session_of_its_own(
    machine: FakeHost, told: Told, dockerd: daemon.Daemon, tmp_path: Path
) -> None:
    """Without systemd it outlives us: own session, no terminal, its words in a log."""
    daemon.provide(machine, dockerd, told)
    assert daemon.answers(dockerd.socket)
    end(tmp_path / "pid")
    assert (tmp_path / "log").read_text() == "starting True /\n"
    assert told.lines == [f"engine: starting dockerd; its log is {tmp_path}/log"]


def test_a_dockerd_that_ends_shows_its_last_words(
    machine: FakeHost, told: Told, dockerd: daemon.Daemon
) -> None:
    """At once, not when the deadline has passed, and with what it means."""
    broken = daemon.Daemon(
        (*dockerd.arguments, "--broken"), dockerd.socket, dockerd.pidfile, dockerd.log
    )
    machine.write("/log", "words of an earlier start\n")
    begun = time.monotonic()
    with pytest.raises(MissingCapabilityError, match="mount -t cgroup2") as caught:
        daemon.provide(machine, broken, told)
    assert time.monotonic() - begun < 5
    assert str(caught.value).startswith(
        "dockerd ended at once:\n"
        "  starting True /\n"
        "  failed to start daemon: Devices cgroup isn't mounted\n"
    )


def test_a_dockerd_that_starts_already_is_waited_for(
    machine: FakeHost, told: Told, dockerd: daemon.Daemon, tmp_path: Path
) -> None:
    """Its pidfile is respected: no second one is started."""
    daemon.provide(machine, dockerd, told)
    machine.write(dockerd.pidfile, (tmp_path / "pid").read_text())
    machine.write(f"/proc/{(tmp_path / 'pid').read_text()}/comm", "dockerd\n")
    told.lines.clear()
    daemon.provide(machine, dockerd, told)
    end(tmp_path / "pid")
    assert [line.split(" (")[0] for line in told.lines] == ["engine: dockerd"]


def test_a_stale_pidfile_is_removed(
    machine: FakeHost, told: Told, dockerd: daemon.Daemon, tmp_path: Path
) -> None:
    """A PID that is another program's by now would keep dockerd from starting."""
    stale = machine.write(dockerd.pidfile, "1\n")
    machine.write("/proc/1/comm", "init\n")
    daemon.provide(machine, dockerd, told)
    end(tmp_path / "pid")
    assert not stale.exists()


def test_systemd_starts_its_unit(machine: FakeHost, told: Told, dockerd: daemon.Daemon) -> None:
    """Where systemd rules, dockerd is its business; a failure shows the journal."""
    machine.path("/run/systemd/system").mkdir(parents=True)
    machine.answers["systemctl start"] = Completed(1, "Job failed.\n")
    machine.answers["journalctl"] = Completed(0, "no space left\n")
    with pytest.raises(MissingCapabilityError, match=r"Job failed\.\n  no space left"):
        daemon.provide(machine, dockerd, told)
    assert "systemctl start docker.service" in machine.ran


def test_the_engine_is_installed_on_debian(machine: FakeHost, told: Told) -> None:
    """Lists are refreshed first, because there are none."""
    machine.answers["apt-get install"] = Completed(100, "E: Unable to locate package docker.io\n")
    with pytest.raises(MissingCapabilityError, match=r"E: Unable to locate package docker\.io"):
        daemon.provide(machine, daemon.Daemon(), told)
    assert [line.split(" -")[0] for line in machine.ran] == ["apt-get update", "apt-get install"]
    assert machine.ran[1].endswith("--no-install-recommends docker.io iptables")


def test_stale_lists_are_refreshed_when_a_package_is_gone(machine: FakeHost, told: Told) -> None:
    """Fresh lists are used as they are, and again after an update."""
    machine.write("/var/lib/apt/lists/mirror_main_Packages", "")
    machine.answers["apt-get install"] = Completed(100, "E: 404\n")
    with pytest.raises(MissingCapabilityError, match="E: 404"):
        host.install(machine, ["x"], "x is not there", told, "engine")
    commands = [line.split(" -")[0] for line in machine.ran]
    assert commands == ["apt-get install", "apt-get update", "apt-get install"]


def test_who_is_not_root_is_told_what_to_run(machine: FakeHost, told: Told) -> None:
    """Every command, in order."""
    machine.rooted = False
    machine.path("/run/systemd/system").mkdir(parents=True)
    with pytest.raises(MissingCapabilityError) as caught:
        daemon.provide(machine, daemon.Daemon(), told)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("only root may install one. Run:")
    assert lines[1:4] == [
        "  sudo apt-get update",
        "  sudo apt-get install --no-install-recommends docker.io iptables",
        "  sudo systemctl start docker",
    ]
    assert lines[4].startswith("  sudo usermod -aG docker ")
    assert lines[5] == "then `testbed setup` again."
    assert machine.ran == []


def test_another_distribution_is_told_its_own_command(machine: FakeHost, told: Told) -> None:
    """Testbed installs nothing there, not even for root."""
    machine.write("/etc/os-release", 'PRETTY_NAME="Fedora Linux 40"\nID=fedora\n')
    machine.programs = {"dnf"}
    with pytest.raises(MissingCapabilityError) as caught:
        daemon.provide(machine, daemon.Daemon(), told)
    assert "not on Fedora Linux 40. Run:\n  sudo dnf install moby-engine\n" in str(caught.value)


def test_only_root_starts_an_installed_engine(machine: FakeHost, told: Told) -> None:
    """It is installed; one command is missing."""
    machine.rooted = False
    machine.programs.add("dockerd")
    with pytest.raises(MissingCapabilityError, match="sudo testbed setup"):
        daemon.provide(machine, daemon.Daemon(), told)


def test_modules_that_are_there_are_not_loaded(machine: FakeHost, told: Told) -> None:
    """Built in or loaded: both show in /sys/module."""
    machine.path("/lib/modules/6.1.0-test").mkdir(parents=True)
    machine.path("/sys/module/br_netfilter").mkdir(parents=True)
    machine.answers["modprobe -q vxlan"] = Completed(1, "FATAL: Module vxlan not found.\n")
    assert setup.load_modules(machine, told) == {"vxlan": "FATAL: Module vxlan not found."}
    assert "modprobe -q br_netfilter" not in machine.ran
    assert "kernel: loaded tun" in told.lines


def test_a_kernel_without_modules_is_left_alone(machine: FakeHost, told: Told) -> None:
    """Everything is built in, or not there at all."""
    assert setup.load_modules(machine, told) == {}
    assert machine.ran == []
