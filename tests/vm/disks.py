"""Disk images: ext4 file systems made from folders, the first one in a partition."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.vm.commands import run

__all__ = ["PARTITION", "command", "filesystem", "partition_table", "partitioned"]

PARTITION = "7e57bed0-01"
"""PARTUUID of the root. NVMe disks are numbered as they are found, and only a partition has a name
that the kernel can find without an initrd."""
_SECTOR = 512
_START = 2048
_LINUX = 0x83


def command(folder: Path, image: Path, mebibytes: int, offset: int = 0) -> list[str]:
    """How an ext4 file system with the content of ``folder`` is written at ``offset`` of a file.

    The file is made here, sparse: into one that is not there, mke2fs writes its empty tables.
    """
    with image.open("ab") as file:
        file.truncate(offset + mebibytes * 2**20)
    features = "^has_journal,^metadata_csum"  # thrown away, and computed by an emulated processor
    options = ["-E", f"root_owner=0:0,offset={offset}", "-b", "4096", "-m", "0", "-O", features]
    size = f"{mebibytes}M"
    return ["mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", str(folder), str(image), size]


def filesystem(folder: Path, image: Path, mebibytes: int) -> None:
    """Write a disk that is one file system with the content of ``folder``."""
    run(command(folder, image, mebibytes))


def partitioned(folder: Path, image: Path, mebibytes: int) -> None:
    """The same in the only partition of a disk, named ``PARTITION``."""
    image.write_bytes(partition_table(mebibytes))
    run(command(folder, image, mebibytes, offset=_START * _SECTOR))


def partition_table(mebibytes: int) -> bytes:
    """A master boot record with one Linux partition, of the size given, at the first mebibyte."""
    signature = int(PARTITION.split("-")[0], 16)
    chs_unused = b"\xfe\xff\xff"
    entry = struct.pack(
        "<B3sB3sII", 0, chs_unused, _LINUX, chs_unused, _START, mebibytes * 2**20 // _SECTOR
    )
    return struct.pack("<440xIxx16s48x2s", signature, entry, b"\x55\xaa")
