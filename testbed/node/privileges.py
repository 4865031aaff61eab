"""What a node container may do: privileged, or the least that pod networking was measured to need.

An engine that itself lacks a capability cannot start privileged containers (``unable to apply caps:
operation not permitted``); nodes then get a set of capabilities and an unmasked ``/proc``. Which of
the two is probed once per engine (:mod:`testbed.node.features`), never guessed.
"""

from __future__ import annotations

from typing import Any

from testbed.dataplane.features import Features

__all__ = ["CAPABILITIES", "for_features", "host_config_arguments"]

CAPABILITIES = ("NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "SYSLOG", "IPC_LOCK")
"""Beyond Docker's default ones."""
_TUN = "/dev/net/tun"


def host_config_arguments(
    privileged: bool, *, cgroup_version: str = "", tun: bool = True
) -> dict[str, Any]:
    """What every node container is created with, as keys of the engine's own ``HostConfig``.

    They are added to what ``client.api.create_host_config(…)`` returns: the SDK has no argument for
    what the command line calls ``systempaths=unconfined``.
    """
    # the engine's default for version 2, but not for privileged containers of older engines
    private = {"CgroupnsMode": "private"} if cgroup_version == "2" else {}
    if privileged:
        return {"Privileged": True, **private}
    device = {"PathOnHost": _TUN, "PathInContainer": _TUN, "CgroupPermissions": "rwm"}
    return {
        "Privileged": False,
        "CapAdd": list(CAPABILITIES),
        "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
        "Devices": [device] if tun else [],
        "MaskedPaths": [],
        "ReadonlyPaths": [],
        **private,
    }


def for_features(features: Features) -> dict[str, Any]:
    """The same, for what was detected of an engine."""
    return host_config_arguments(
        features.privileged, cgroup_version=features.cgroup_version, tun=features.tun
    )
