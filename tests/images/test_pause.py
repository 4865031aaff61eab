"""pause: the behaviour of Kubernetes' pause binary."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.images.conftest import Programs

WARNING = "Warning: pause should be the first process\n"


def stopped_by(program: Path, number: signal.Signals) -> tuple[int, str]:
    """Start pause, wait until it sleeps, send the signal; return exit status and stderr."""
    with subprocess.Popen(
        [program], stderr=subprocess.PIPE, text=True, preexec_fn=default_signals
    ) as process:
        try:
            wait_until_it_sleeps(process.pid)
            process.send_signal(number)
            _, errors = process.communicate(timeout=10)
        finally:
            process.kill()
        return process.returncode, errors


def default_signals() -> None:
    """Undo what the tests' own parent may ignore: nohup SIGHUP, a shell's background SIGINT."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def wait_until_it_sleeps(pid: int) -> None:
    """Return once the process handles SIGCHLD, the last handler it installs, and sleeps."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        handled = int(fields["SigCgt"], 16) >> (signal.SIGCHLD - 1) & 1
        if handled and fields["State"].startswith("S"):
            return
        time.sleep(0.001)
    pytest.fail("pause does not sleep")


@pytest.mark.parametrize("flag", ["-v", "-V"])
def test_version(programs: Programs, flag: str) -> None:
    """-v prints the version and exits 0, without any warning."""
    result = subprocess.run([programs.pause, "x", flag], capture_output=True, text=True)

    assert (result.returncode, result.stdout, result.stderr) == (0, "pause.c testbed\n", "")


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGINT, "Interrupt"), (signal.SIGTERM, "Terminated")]
)
def test_shuts_down_on_signal(programs: Programs, number: signal.Signals, name: str) -> None:
    """SIGINT and SIGTERM are named on stderr and end it with status 0, not by the signal."""
    code, errors = stopped_by(programs.pause, number)

    assert code == 0
    assert errors == f"{WARNING}Shutting down, got signal: {name}\n"


def test_other_signals_keep_their_meaning(programs: Programs) -> None:
    """Outside PID 1, SIGHUP has its default effect."""
    code, errors = stopped_by(programs.pause, signal.SIGHUP)

    assert (code, errors) == (-signal.SIGHUP, WARNING)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 2), (signal.SIGCHLD, 3)]
)
def test_exit_code_names_the_missing_handler(
    programs: Programs, number: signal.Signals, code: int
) -> None:
    """A handler that cannot be installed ends it with 1 (INT), 2 (TERM) or 3 (CHLD)."""
    environment = {
        "LD_PRELOAD": str(programs.failing_calls),
        "FAIL_SIGNAL": str(int(number)),
        "ASAN_OPTIONS": "verify_asan_link_order=0",
    }

    result = subprocess.run([programs.pause], env=environment, timeout=10, capture_output=True)

    assert result.returncode == code


def test_reaps_zombies_as_pid_1(programs: Programs) -> None:
    """As PID 1 it does not warn, reaps orphans, and survives SIGHUP."""
    if os.geteuid() != 0:
        pytest.skip("needs root: unshare --pid")
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare(1) of util-linux")
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", str(programs.pause)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as unshare:
        try:
            pause = wait_for_child(unshare.pid)
            wait_until_it_sleeps(pause)
            os.kill(pause, signal.SIGHUP)
            # sh ends at once and leaves "true" as an orphan to PID 1 of the namespace.
            orphans = "(sleep 0.02 & sleep 0.01 & true &) ; exit 0"
            enter = ["nsenter", f"--target={pause}", "--pid", "--mount"]
            subprocess.run([*enter, "sh", "-c", orphans], check=True)
            processes = wait_for_only_one_process(pause)
            os.kill(pause, signal.SIGTERM)
            _, errors = unshare.communicate(timeout=10)
        finally:
            unshare.kill()

    assert processes == ["1"]
    assert errors == "Shutting down, got signal: Terminated\n"
    assert unshare.returncode == 0


def wait_for_child(pid: int) -> int:
    """Return the only child of the process once it exists."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/comm").read_text() == "pause\n":
            return int(children[0])
        time.sleep(0.001)
    pytest.fail("unshare starts nothing")


def wait_for_only_one_process(pid: int) -> list[str]:
    """Return the PIDs in the namespace of `pid`: all of them until only PID 1 is left."""
    deadline = time.monotonic() + 2
    while True:
        entries = Path(f"/proc/{pid}/root/proc").iterdir()
        processes = [entry.name for entry in entries if entry.name.isdigit()]
        if len(processes) == 1 or time.monotonic() > deadline:
            return processes
        time.sleep(0.002)


def test_does_nothing_while_it_waits(programs: Programs) -> None:
    """It holds no files or sockets besides the standard ones."""
    with subprocess.Popen([programs.pause], stderr=subprocess.DEVNULL) as process:
        wait_until_it_sleeps(process.pid)
        descriptors = {entry.name for entry in Path(f"/proc/{process.pid}/fd").iterdir()}
        process.terminate()

    assert descriptors == {"0", "1", "2"}
