"""QEMU's command line, and runs that end in time."""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.vm.disks import PARTITION, partition_table
from tests.vm.machine import KVM, TCG, Accelerator, Disk, Emulator, arguments, boot, choose


def values(words: list[str], option: str) -> list[str]:
    """What follows each ``option``."""
    return [value for word, value in pairwise(words) if word == option]


@pytest.mark.parametrize("accelerator", [KVM, TCG], ids=lambda each: each.name)
def test_a_guest_has_no_network_device(accelerator: Accelerator) -> None:
    """Nothing can leave it: neither a device nor a backend for one."""
    words = arguments(accelerator, 2, [Disk("root.img"), Disk("results.tar", kept=True)])
    assert "-nodefaults" in words
    assert not {"-net", "-netdev", "-nic"} & set(words)
    assert [device.partition(",")[0] for device in values(words, "-device")] == [
        "nvme",
        "nvme-ns",
        "nvme-ns",
    ]


def test_only_results_are_kept() -> None:
    """Everything else is written to a temporary file, so that artefacts stay as they were made."""
    words = arguments(TCG, 2, [Disk("root.img"), Disk("results.tar", kept=True)])
    root, results = values(words, "-drive")
    assert "snapshot=on" in root
    assert "snapshot" not in results


def test_disks_are_numbered_as_the_guest_finds_them() -> None:
    """By NVMe namespace, from 1; the root by its partition's name."""
    words = arguments(TCG, 2, [Disk("a"), Disk("b")])
    namespaces = [device for device in values(words, "-device") if device.startswith("nvme-ns")]
    assert namespaces == [
        "nvme-ns,drive=disk1,bus=nvme,nsid=1",
        "nvme-ns,drive=disk2,bus=nvme,nsid=2",
    ]
    assert f" root=PARTUUID={PARTITION} " in values(words, "-append")[0]


def test_each_accelerator_has_its_processor_and_clock() -> None:
    """The host's own with KVM; with software, one whose random numbers do not block."""
    assert values(arguments(KVM, 4, []), "-cpu") == ["host"]
    assert values(arguments(KVM, 4, []), "-smp") == ["4"]
    assert values(arguments(TCG, 2, []), "-cpu") == ["qemu64,+rdrand"]
    assert values(arguments(TCG, 2, []), "-append")[0].endswith("clocksource=tsc")
    assert "clocksource" not in values(arguments(KVM, 2, []), "-append")[0]
    assert TCG.slowness > KVM.slowness


def test_the_partition_table() -> None:
    """One Linux partition from the first mebibyte on, and the signature that PARTUUID shows."""
    record = partition_table(mebibytes=3)
    assert len(record) == 512
    assert record[-2:] == b"\x55\xaa"
    assert f"{int.from_bytes(record[440:444], 'little'):08x}-01" == PARTITION
    entry, rest = record[446:462], record[462:510]
    assert entry[4] == 0x83
    assert int.from_bytes(entry[8:12], "little") == 2048
    assert int.from_bytes(entry[12:16], "little") == 3 * 2048
    assert not any(rest)


def test_the_console_is_shown_as_it_comes(tmp_path: Path) -> None:
    """Both streams, in the folder given."""
    said: list[bytes] = []
    assert boot(["sh", "-c", "pwd; echo problem >&2"], tmp_path, 30, said.append)
    assert b"".join(said).decode() == f"{tmp_path}\nproblem\n"


def test_a_guest_that_hangs_is_stopped(tmp_path: Path) -> None:
    """At the deadline, and nothing of it is left."""
    said: list[bytes] = []
    start = time.monotonic()
    assert not boot(["sh", "-c", "echo $$; exec sleep 60"], tmp_path, 1, said.append)
    assert time.monotonic() - start < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(said[0]), 0)


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        ("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", KVM),
        ("KVM internal error. Suberror: 1", TCG),
        ("", TCG),
    ],
)
def test_kvm_is_used_where_it_boots_a_kernel(
    tmp_path: Path, console: str, expected: Accelerator
) -> None:
    """The device may be there, and nothing run on it."""
    emulator = Emulator(tmp_path)
    program = Path(emulator.argv()[0])
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{console}'\n")
    program.chmod(0o755)
    device = tmp_path / "kvm"
    device.touch()
    assert choose(emulator, tmp_path, device) is expected


def test_no_kvm_device_no_trial(tmp_path: Path) -> None:
    """QEMU, which is not there, is not even started."""
    assert choose(Emulator(tmp_path), tmp_path, tmp_path / "kvm") is TCG


def test_an_emulator_brings_its_own_libraries(tmp_path: Path) -> None:
    """Nothing of it need be installed on the machine."""
    argv = Emulator(tmp_path).argv()
    assert argv[0] == f"{tmp_path}/lib64/ld-linux-x86-64.so.2"
    assert argv[2].split(":")[0] == f"{tmp_path}/usr/lib/x86_64-linux-gnu"
    assert all(word.startswith((str(tmp_path), "-")) for word in argv)
