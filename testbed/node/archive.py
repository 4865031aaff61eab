"""Copying files into and out of node containers, running or not.

Standard input of an exec is unreliable in the Docker SDK, so files are copied instead.
"""

from __future__ import annotations

import io
import secrets
import tarfile
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import docker

__all__ = ["deliver", "fits", "pack", "read", "read_all", "unpack", "write"]

_LONGEST_ARGUMENT = 120_000
"""Bytes; the kernel's limit for one argument is 128 KiB."""


def pack(files: Mapping[str, bytes]) -> bytes:
    """A tar of ``files`` (absolute path → content), with the directories that hold them."""
    buffer = io.BytesIO()
    made: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            for parent in reversed(PurePosixPath(path).parents[:-1]):
                if str(parent) not in made:
                    made.add(str(parent))
                    archive.addfile(_entry(str(parent), tarfile.DIRTYPE, 0o755))
            entry = _entry(path, tarfile.REGTYPE, 0o644)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.type, entry.mode, entry.mtime = kind, mode, int(time.time())
    return entry


def unpack(data: bytes) -> list[bytes]:
    """The contents of the files in a tar, as the engine sends it."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        contents = (archive.extractfile(member) for member in archive)
        return [content.read() for content in contents if content is not None]


def fits(text: str) -> bool:
    """Whether ``text`` may be handed over as an argument, which saves the 40 ms of an archive."""
    return len(text.encode()) <= _LONGEST_ARGUMENT


def deliver(client: docker.DockerClient, container: str, text: str) -> str:
    """Hand ``text`` to a running node; return the argument by which its agent finds it."""
    if fits(text):
        return f"inline:{text}"
    path = f"/var/lib/testbed/delivered-{secrets.token_hex(8)}"
    write(client, container, {path: text.encode()})
    return path


def write(client: docker.DockerClient, container: str, files: Mapping[str, bytes]) -> None:
    """Copy ``files`` (absolute path → content) into a container, making their directories."""
    client.api.put_archive(container, "/", pack(files))


def read(client: docker.DockerClient, container: str, path: str) -> bytes:
    """The content of one file of a container, running or not.

    Raises:
        FileNotFoundError: there is no such file.
    """
    found = read_all(client, container, path)
    if not found:
        raise FileNotFoundError(path)
    return found[0]


def read_all(client: docker.DockerClient, container: str, path: str) -> list[bytes]:
    """The contents of all files below a path of a container, running or not.

    Raises:
        FileNotFoundError: there is no such path.
    """
    from docker.errors import NotFound

    try:
        chunks, _ = client.api.get_archive(container, path)
    except NotFound:
        raise FileNotFoundError(path) from None
    return unpack(b"".join(chunks))
