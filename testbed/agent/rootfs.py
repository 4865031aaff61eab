"""Root file systems of containers: overlays of the node's own root.

The node image is the only image there is, so a container's root is the node's ``/`` as the
overlay's lower layer and a writable layer of its own on a tmpfs: an overlay cannot have another
overlay (which Docker's node root is) as its upper layer, and the kernel stacks two at most.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from . import syscalls
from .layout import CONTAINERS, PAUSE_ROOT

__all__ = ["PAUSE", "directory", "make_overlay", "make_shm", "prepare", "remove", "remove_tree"]

PAUSE = f"{CONTAINERS}/pause"
HINT = "containers need overlayfs on top of the engine's storage driver (overlay2 or plain)"


def directory(identity: str) -> str:
    """Where everything of one container or sandbox is while it exists."""
    return f"{CONTAINERS}/{identity}"


def prepare() -> None:
    """Mount the tmpfs for writable layers and the root of pause (an OCI root must be a mount).

    Raises:
        AgentError: the kernel refused.
    """
    Path(CONTAINERS).mkdir(parents=True, exist_ok=True)
    syscalls.mount("tmpfs", CONTAINERS, "tmpfs", syscalls.MS_NOSUID, "mode=711")
    Path(PAUSE).mkdir()
    syscalls.bind(PAUSE_ROOT, PAUSE)


def make_overlay(identity: str) -> str:
    """Make and mount a container's root; return its path.

    Raises:
        AgentError: the kernel refused the mount.
    """
    place = directory(identity)
    for name in ("upper", "work", "rootfs"):
        Path(place, name).mkdir(parents=True, exist_ok=True)
    options = f"lowerdir=/,upperdir={place}/upper,workdir={place}/work"
    syscalls.mount("overlay", f"{place}/rootfs", "overlay", 0, options, HINT)
    return f"{place}/rootfs"


def make_shm(path: str) -> None:
    """Mount the ``/dev/shm`` that the containers of a pod share: 64 MiB, as containerd does."""
    Path(path).mkdir(parents=True, exist_ok=True)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("shm", path, "tmpfs", flags, "mode=1777,size=65536k")


def remove(identity: str) -> None:
    """Unmount and remove a container's or sandbox's directory, if it exists."""
    place = directory(identity)
    syscalls.unmount(f"{place}/rootfs")
    syscalls.unmount(f"{place}/shm")
    remove_tree(place)


def remove_tree(place: str) -> None:
    """Remove a directory and what is in it, as far as possible; ``shutil`` would cost 1 MiB."""
    for parent, directories, files in os.walk(place, topdown=False):
        for name in files:
            Path(parent, name).unlink(missing_ok=True)
        for name in directories:
            path = Path(parent, name)
            with contextlib.suppress(OSError):  # not empty: something is mounted in it
                path.unlink() if path.is_symlink() else path.rmdir()
    with contextlib.suppress(OSError):
        Path(place).rmdir()
