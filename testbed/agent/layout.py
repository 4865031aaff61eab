"""Where things are on a node. Names only: whoever starts fast needs nothing else."""

from __future__ import annotations

__all__ = [
    "APPLIED",
    "CNI_BIN",
    "CNI_CONF",
    "CONTAINERS",
    "CRUN",
    "CRUN_STATE",
    "LAST_STATE",
    "NETNS",
    "PAUSE_ROOT",
    "SOCKET",
    "SPEC",
    "STATE",
]

SPEC = "/etc/testbed/spec.json"
"""What the node should hold; the host copies it in before the start."""
STATE = "/var/lib/testbed/state.json"
"""What the node holds; on the root file system, so that the host can copy it out."""
LAST_STATE = "/var/lib/testbed/last-state.json"
"""What an earlier boot left."""
APPLIED = "/var/lib/testbed/applied.json"
"""The spec whose network part was applied last."""
SOCKET = "/run/testbed/agent.sock"
CONTAINERS = "/run/testbed/containers"
"""A tmpfs with a directory for each container and sandbox."""
PAUSE_ROOT = "/usr/lib/testbed/pause-rootfs"
NETNS = "/var/run/netns"
CNI_BIN = "/opt/cni/bin"
CNI_CONF = "/etc/cni/net.d"
CRUN_STATE = "/run/crun"
CRUN = ("crun", "--cgroup-manager=disabled")
"""How crun is called: the node container's cgroup is the engine's and read-only."""
