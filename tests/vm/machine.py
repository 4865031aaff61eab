"""QEMU: its command line, whether KVM works here, and one run with a deadline."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm.commands import bound
from tests.vm.disks import PARTITION

__all__ = ["KVM", "TCG", "Accelerator", "Disk", "Emulator", "arguments", "boot", "choose"]

_MEBIBYTES = 4096
_TRIAL_SECONDS = 10.0
_NO_ROOT = "VFS: Unable to mount root fs"
"""A kernel without a root ends with this panic, having booted."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """How the guest's instructions are run."""

    name: str
    options: tuple[str, ...]
    kernel: str
    """Kernel arguments of its own."""
    slowness: int
    """What the tests' deadlines are multiplied by."""


KVM = Accelerator("KVM", ("-accel", "kvm", "-cpu", "host"), "", 3)
TCG = Accelerator(
    "software emulation",
    # without rdrand, getrandom() blocks for seconds
    ("-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "qemu64,+rdrand"),
    "tsc=reliable clocksource=tsc",  # reading any other clock is three times as slow
    15,
)


@dataclass(frozen=True, slots=True)
class Disk:
    """A raw image, as the guest's NVMe namespace of the same position."""

    file: str
    kept: bool = False
    """Whether what the guest writes is kept."""


@dataclass(frozen=True, slots=True)
class Emulator:
    """QEMU in a folder of its own, with every library that it needs."""

    folder: Path

    def argv(self) -> list[str]:
        """How it is started on a machine that lacks all of them."""
        usr = self.folder / "usr"
        libraries = [folder / "lib/x86_64-linux-gnu" for folder in (usr, self.folder)]
        return [
            str(self.folder / "lib64/ld-linux-x86-64.so.2"),
            "--library-path",
            ":".join(map(str, libraries)),
            str(usr / "bin/qemu-system-x86_64"),
            *("-L", str(usr / "share/qemu")),
            *("-L", str(usr / "share/seabios")),
        ]


def arguments(accelerator: Accelerator, processors: int, disks: Sequence[Disk]) -> list[str]:
    """QEMU's arguments for a guest with ``disks`` and no network device."""
    kernel = (
        "console=ttyS0 quiet panic=-1 mitigations=off "
        f"root=PARTUUID={PARTITION} rootfstype=ext4 rw init=/guest-init {accelerator.kernel}"
    )
    words = [
        *("-M", "pc,hpet=off"),
        *accelerator.options,
        *("-smp", str(processors), "-m", str(_MEBIBYTES)),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", "vmlinuz", "-append", kernel.strip()),
    ]
    if disks:
        words += ["-device", "nvme,id=nvme,serial=testbed"]
    for number, disk in enumerate(disks, 1):
        how = "cache=unsafe" if disk.kept else "cache=unsafe,snapshot=on"
        words += ["-drive", f"file={disk.file},id=disk{number},if=none,format=raw,{how}"]
        words += ["-device", f"nvme-ns,drive=disk{number},bus=nvme,nsid={number}"]
    return words


def choose(emulator: Emulator, folder: Path, device: Path = Path("/dev/kvm")) -> Accelerator:
    """KVM if it boots the kernel in ``folder``, which the device's presence does not say."""
    if not os.access(device, os.R_OK | os.W_OK):
        return TCG
    said: list[bytes] = []
    # a processor that KVM cannot run stops the guest, not QEMU: hence the deadline
    boot([*emulator.argv(), *arguments(KVM, 1, [])], folder, _TRIAL_SECONDS, said.append)
    return KVM if _NO_ROOT in b"".join(said).decode(errors="replace") else TCG


def boot(
    argv: Sequence[str], folder: Path, seconds: float, show: Callable[[bytes], object]
) -> bool:
    """Run QEMU in ``folder`` to its end, giving its console to ``show``; False: it was too late."""
    deadline = time.monotonic() + seconds
    with subprocess.Popen(
        bound(argv),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for us: we end it
    ) as process:
        assert process.stdout is not None
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                while selector.select(max(0.0, deadline - time.monotonic())):
                    chunk = os.read(process.stdout.fileno(), 65536)
                    if not chunk:
                        return True
                    show(chunk)
            return False
        finally:
            process.kill()
