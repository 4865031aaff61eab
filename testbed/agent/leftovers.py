"""What a previous boot of the node left behind.

``docker restart`` ends every process, mount and network namespace of a node but keeps its files:
names in ``/run/netns`` that pin nothing, crun's records, CNI's cache and host-local's leases. A
runtime that starts again finds its sandboxes dead and tears them down with CNI DEL, which gives the
leases back; so does this. Elsewhere ``/run`` is a tmpfs and PID files end with the boot. Here they
would stay, and a daemon whose old ID another process has by now would take that for itself: "daemon
is already running", says keepalived, and ends.
"""

from __future__ import annotations

from pathlib import Path

from . import rootfs, syscalls
from .layout import CONTAINERS, CRUN_STATE, NETNS
from .sandbox import Sandboxes

__all__ = ["clear"]


def clear(sandboxes: Sandboxes) -> int:
    """Remove it all and make the mounts that containers need.

    Returns:
        How many CNI attachments were deleted.

    Raises:
        AgentError: the kernel refused a mount.
    """
    for name in Path(NETNS).glob("cni-*"):
        syscalls.unmount(str(name))
        name.unlink()
    rootfs.remove_tree(CRUN_STATE)
    syscalls.unmount(rootfs.PAUSE)
    syscalls.unmount(CONTAINERS)
    rootfs.remove_tree(CONTAINERS)
    for name in Path("/run").rglob("*.pid"):
        if name.is_file():
            name.unlink()
    deleted = sandboxes.delete_attachments("")
    rootfs.prepare()
    return deleted
