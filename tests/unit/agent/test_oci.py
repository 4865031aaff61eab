"""What crun is told: namespaces as the table of Kubernetes' defaults has them."""

from __future__ import annotations

import pytest

from testbed.agent import oci, podfiles
from testbed.agent.attachments import attachment
from tests.unit.agent.fakes import container_spec, pod_spec

SHARED = oci.Shared("/d", "web", False, False, "/var/run/netns/cni-1", False)


def namespaces(config: dict[str, object]) -> dict[str, str]:
    """Kind → path."""
    linux = config["linux"]
    assert isinstance(linux, dict)
    return {entry["type"]: entry.get("path", "") for entry in linux["namespaces"]}


def test_pause_makes_what_the_pod_shares() -> None:
    """It joins the pinned network namespace and runs as 65535 without any capability."""
    config = oci.pause(SHARED, "/pause-root")
    assert namespaces(config) == {
        "pid": "",
        "ipc": "",
        "mount": "",
        "uts": "",
        "network": "/var/run/netns/cni-1",
    }
    assert config["hostname"] == "web"
    assert config["root"] == {"path": "/pause-root", "readonly": True}
    assert config["process"]["user"] == {"uid": 65535, "gid": 65535}
    assert config["process"]["capabilities"]["bounding"] == []
    assert config["linux"]["sysctl"] == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
    }


@pytest.mark.parametrize(
    ("shared", "joined", "own"),
    [
        (SHARED, {"network": "net", "ipc": "ipc", "uts": "uts"}, {"mount", "pid"}),
        (
            SHARED._replace(share_process_namespace=True),
            {"network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid"},
            {"mount"},
        ),
        (SHARED._replace(host_network=True, netns=""), {"ipc": "ipc"}, {"mount", "pid"}),
        (
            SHARED._replace(cgroup_namespace=True),
            {"network": "net", "ipc": "ipc", "uts": "uts"},
            {"mount", "pid", "cgroup"},
        ),
    ],
)
def test_containers_join_pause(shared: oci.Shared, joined: dict[str, str], own: set[str]) -> None:
    """Network, IPC and UTS are pause's; mount and PID their own."""
    config = oci.application(shared, 47, container_spec("app"), "/root", [])
    expected = {kind: f"/proc/47/ns/{file}" for kind, file in joined.items()}
    assert namespaces(config) == {**expected, **dict.fromkeys(own, "")}


def test_pause_of_a_host_network_pod() -> None:
    """Own IPC, the node's network and host name, no sysctls."""
    config = oci.pause(SHARED._replace(host_network=True, netns=""), "/r")
    assert set(namespaces(config)) == {"pid", "ipc", "mount"}
    assert "hostname" not in config
    assert "sysctl" not in config["linux"]


def test_a_containers_process() -> None:
    """Arguments, environment, directory, capabilities and the pod's files."""
    container = {**container_spec("app"), "env": {"A": "b"}, "working_dir": "/tmp"}
    config = oci.application(SHARED, 1, container, "/root", ["CAP_NET_RAW"])
    process = config["process"]
    assert process["args"] == ["netexec"]
    assert process["env"] == [oci.PATH, "HOSTNAME=web", "A=b"]
    assert process["cwd"] == "/tmp"
    assert process["capabilities"]["effective"] == ["CAP_NET_RAW"]
    sources = {mount["destination"]: mount["source"] for mount in config["mounts"]}
    assert sources["/dev/shm"] == "/d/shm"
    assert sources["/etc/hosts"] == "/d/hosts"


def test_capabilities_are_limited_to_what_the_node_has() -> None:
    """The default set has NET_RAW; nothing is asked for that the engine does not allow."""
    assert "CAP_NET_RAW" in oci.capabilities(0xFFFFFFFF)
    assert oci.capabilities(1 << 13 | 1) == ["CAP_CHOWN", "CAP_NET_RAW"]
    assert oci.capabilities(0) == []


def test_hosts_is_kubelets() -> None:
    """Header, the fixed lines, one line per address."""
    assert podfiles.hosts(("10.0.0.2", "fd00::2"), "web") == (
        "# Kubernetes-managed hosts file.\n"
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\n"
        "fe00::0\tip6-mcastprefix\n"
        "fe00::1\tip6-allnodes\n"
        "fe00::2\tip6-allrouters\n"
        "10.0.0.2\tweb\n"
        "fd00::2\tweb\n"
    )
    assert podfiles.host_network_hosts("1.2.3.4 n\n") == (
        "# Kubernetes-managed hosts file (host network).\n1.2.3.4 n\n"
    )


def test_what_cni_is_told_of_a_pod() -> None:
    """Kubernetes' arguments in order; capabilities for eth0 only."""
    port = {"host_port": 80, "container_port": 8080, "protocol": "tcp", "host_ip": ""}
    pod = pod_spec("web", port_mappings=[port], bandwidth={"ingressRate": 1000})
    eth0 = attachment(pod, "ab", "/netns", "eth0", "10.0.0.9")
    assert eth0.args == (
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", "default"),
        ("K8S_POD_NAME", "web"),
        ("K8S_POD_INFRA_CONTAINER_ID", "ab"),
        ("K8S_POD_UID", "uid-web"),
        ("IP", "10.0.0.9"),
    )
    assert eth0.capabilities == {
        "portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": ""}],
        "bandwidth": {"ingressRate": 1000},
    }
    assert attachment(pod, "ab", "/netns", "lo").capabilities == {}
