"""Run live tests under Debian's own kernel, in QEMU: ``make test-vm``.

Exit status: pytest's own; 125 if the guest gave no verdict; 3 if this machine cannot run one.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import tarfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from testbed.errors import MissingCapabilityError, TestbedError
from testbed.node import engine
from tests.vm import machine, payload
from tests.vm.artefacts import DISKS, KERNELS, Maker
from tests.vm.cache import Cache, home
from tests.vm.machine import Accelerator, Disk, Emulator

NO_VERDICT = 125
RESULTS = (
    *("console.log", "dmesg.txt", "dockerd.log", "flight", "junit.xml", "lsmod.txt", "pcaps"),
    "status",
)
"""What a run leaves in its output folder, and the next one replaces."""
_BOOT_SECONDS = 30
"""Of a machine that is not much slower than ours, from power on to tests and back off."""
_RESULTS_BYTES = 2**30
_STARTED = time.monotonic()


def main(argv: Sequence[str]) -> int:
    """Read the command line, run the tests, say what went wrong."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # clean up first
    try:
        return _run(_options(argv))
    except TestbedError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, MissingCapabilityError) else NO_VERDICT
    except KeyboardInterrupt:
        return 130


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make test-vm", description=__doc__)
    parser.add_argument("--kernel", choices=KERNELS, help="default: backports, if there are any")
    parser.add_argument("--output", type=Path, default=payload.TREE / ".vm", metavar="FOLDER")
    parser.add_argument("--seconds", type=int, default=1200, help="for all tests (default: 1200)")
    parser.add_argument("pytest", nargs="*", metavar="ARG", help="pytest's arguments, after --")
    return parser.parse_args(argv)


def _run(options: argparse.Namespace) -> int:
    if platform.machine() != "x86_64" or os.geteuid() != 0:
        raise MissingCapabilityError("the guest needs an x86-64 machine, and root to be made.")
    cache, client = Cache(home()), engine.connect()
    with ExitStack() as run:
        with cache.making(partial(report, "cache", "another process is at it; waiting")):
            folder = run.enter_context(cache.using())
            os.environ["TMPDIR"] = str(folder)  # what killed programs leave goes with the run
            project = folder / "project"
            payload.snapshot(project)
            artefacts = Maker(cache, report).everything(client, project, options.kernel)
            artefacts.link(folder)
        emulator = Emulator(artefacts.emulator)
        accelerator = machine.choose(emulator, folder)
        chosen = payload.selection(options.pytest)
        script = payload.command(chosen, accelerator.slowness, options.seconds)
        payload.write(folder / "payload.tar", project, script)
        return _guest(emulator, accelerator, folder, options)


def _guest(
    emulator: Emulator, accelerator: Accelerator, folder: Path, options: argparse.Namespace
) -> int:
    """Start the guest, show its console, bring its results back; return its verdict."""
    results, output = folder / "results.tar", options.output
    with results.open("wb") as file:
        file.truncate(_RESULTS_BYTES)
    clear(output)
    disks = [*DISKS, Disk("payload.tar"), Disk("results.tar", kept=True)]
    argv = [*emulator.argv(), *machine.arguments(accelerator, os.cpu_count() or 1, disks)]
    limit = options.seconds + payload.GRACE_SECONDS + _BOOT_SECONDS * accelerator.slowness
    report("guest", f"starting it with {accelerator.name}; {limit} s at most")
    with (output / "console.log").open("wb") as console:

        def show(chunk: bytes) -> None:
            console.write(chunk)
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()

        in_time = machine.boot(argv, folder, limit, show)
    if not in_time:
        report("guest", f"stopped after {limit} s")
    verdict = collect(results, output)
    report("guest", f"results are in {output}" if verdict != NO_VERDICT else _silence(output))
    return verdict


def clear(output: Path) -> None:
    """Make a folder for results, without those of the last run."""
    output.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        path = output / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def collect(results: Path, output: Path) -> int:
    """Unpack what the guest wrote; return its verdict."""
    try:
        with tarfile.open(results, "r:") as tar:
            tar.extractall(output, filter="data")
        return int((output / "status").read_text())
    except (tarfile.ReadError, FileNotFoundError, ValueError):
        return NO_VERDICT


def _silence(output: Path) -> str:
    """What is known of a guest that gave no verdict."""
    console = (output / "console.log").read_text(errors="replace").splitlines()
    return "no verdict. Its console ended with:\n" + "\n".join(console[-20:])


def report(step: str, message: str) -> None:
    """Say what happens, and when."""
    print(f"[vm {time.monotonic() - _STARTED:5.1f} s] {step}: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
