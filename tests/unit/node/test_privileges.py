"""What node containers are created with, as the engine's own HostConfig spells it."""

from __future__ import annotations

from dataclasses import replace

from testbed.dataplane.features import Features
from testbed.node.privileges import for_features, host_config_arguments


def test_privileged_nodes_need_nothing_else() -> None:
    """Privileged is one key."""
    assert host_config_arguments(privileged=True) == {"Privileged": True}


def test_the_capability_set() -> None:
    """Six capabilities, no filters, an unmasked /proc and the TUN device."""
    assert host_config_arguments(privileged=False) == {
        "Privileged": False,
        "CapAdd": ["NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "SYSLOG", "IPC_LOCK"],
        "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
        "Devices": [
            {
                "PathOnHost": "/dev/net/tun",
                "PathInContainer": "/dev/net/tun",
                "CgroupPermissions": "rwm",
            }
        ],
        "MaskedPaths": [],
        "ReadonlyPaths": [],
    }


def test_cgroup_version_2_gets_a_namespace_of_its_own() -> None:
    """Older engines give privileged containers the host's."""
    for privileged in (True, False):
        found = host_config_arguments(privileged, cgroup_version="2")
        assert found["CgroupnsMode"] == "private"
        assert "CgroupnsMode" not in host_config_arguments(privileged, cgroup_version="1")


def test_a_host_without_tun_is_not_asked_for_it() -> None:
    """The engine would refuse a device that is not there."""
    features = replace(Features.full(), privileged=False, tun=False)
    assert for_features(features)["Devices"] == []


def test_no_caller_can_change_another_ones_arguments() -> None:
    """Each call returns lists of its own."""
    host_config_arguments(privileged=False)["CapAdd"].append("ALL")
    assert "ALL" not in host_config_arguments(privileged=False)["CapAdd"]
