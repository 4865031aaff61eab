"""Plans of whole topologies, held by golden files, and what no plan may ever do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from testbed.dataplane.features import Features
from testbed.dataplane.spec import NodeSpec
from testbed.dataplane.underlay import Underlay
from testbed.errors import MissingCapabilityError, PlanError
from testbed.plan import assumed_underlay, cnis, plan
from testbed.topology.load import load
from testbed.topology.model import Cluster
from tests.unit.topology.strategies import clusters

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "plan"
UNDERLAY = Underlay.single(IPv4Network("172.18.0.0/16"))
TOPOLOGIES = sorted(path.stem for path in (ROOT / "compose").glob("*.yaml"))


def planned(name: str) -> tuple[Cluster, tuple[NodeSpec, ...]]:
    """A shipped topology and its specs."""
    cluster = load(ROOT / "compose" / f"{name}.yaml", cnis=cnis())
    return cluster, plan(cluster, assumed_underlay(cluster), Features.full())


def readable(spec: NodeSpec) -> str:
    """What a node holds, as ``testbed plan`` prints it, and its pods."""
    parts = [f"### {file.path} {file.mode:o}\n{file.content}" for file in spec.files]
    parts.append("### sysctl\n" + "".join(f"{k} = {v}\n" for k, v in spec.sysctls.items()))
    for tunnel in spec.tunnels:
        parts.append(f"### tunnel {tunnel.name} over {tunnel.uplink}\n")
    for process in spec.processes:
        parts.append(f"### process {process.name}\n{' '.join(process.argv)}\n")
    for pod in json.loads(spec.to_json())["pods"]:
        parts.append(f"### pod {pod['namespace']}/{pod['name']}\n{json.dumps(pod, indent=1)}\n")
    return "\n".join(parts)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_plans_are_golden(name: str, golden: Callable[[Path, str], None]) -> None:
    """Every node of every shipped topology: native files, sysctls, pods."""
    _, specs = planned(name)
    for spec in specs:
        golden(GOLDEN / name / f"{spec.node}.txt", readable(spec))


def test_specs_are_golden(golden: Callable[[Path, str], None]) -> None:
    """The whole text that boots a node."""
    _, specs = planned("flannel")
    golden(GOLDEN / "flannel" / "node1.json", specs[0].to_json())


def test_plans_are_deterministic() -> None:
    """The same topology gives the same bytes: a second ``up`` has nothing to change."""
    assert planned("flannel-pods")[1] == planned("flannel-pods")[1]


def test_a_missing_kernel_feature_is_named() -> None:
    """What is missing, what needs it, and what to do."""
    cluster, _ = planned("flannel")
    features = replace(Features.full(), vxlan=False, kernel_release="6.1.0")
    with pytest.raises(MissingCapabilityError) as caught:
        plan(cluster, UNDERLAY, features)
    assert str(caught.value) == (
        "flannel with backend vxlan needs what kernel 6.1.0 of the Docker host does not have: "
        "vxlan.\nLoad the modules on the host (`modprobe NAME`) or choose another backend; "
        "`testbed doctor` shows what works."
    )


@pytest.mark.parametrize(
    ("subnet", "what"), [("10.244.7.0/24", "cluster_cidr"), ("10.96.0.0/20", "service_cidr")]
)
def test_an_underlay_inside_the_clusters_addresses_is_refused(subnet: str, what: str) -> None:
    """A route to one would hide the other."""
    cluster, _ = planned("flannel")
    with pytest.raises(PlanError, match=f"{what} .* overlaps the node network {subnet}"):
        plan(cluster, Underlay.single(IPv4Network(subnet)), Features.full())


def test_an_underlay_that_is_too_small_is_refused() -> None:
    """Three nodes do not fit into a /30."""
    cluster, _ = planned("flannel")
    with pytest.raises(PlanError, match="has no address for node number 2"):
        plan(cluster, Underlay.single(IPv4Network("172.18.0.0/30")), Features.full())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters())
def test_no_two_objects_share_an_address_or_a_name(cluster: Cluster) -> None:
    """Over random topologies: containers, node addresses, pod CIDRs, VTEPs, pods, host ports."""
    specs = plan(cluster, Underlay.single(IPv4Network("100.64.0.0/16")), Features.full())
    assert_unique(f"{spec.testbed}-{spec.node}" for spec in specs)
    assert_unique(pod.uid for spec in specs for pod in spec.pods)
    assert_unique((pod.namespace, pod.name) for spec in specs for pod in spec.pods)
    assert_unique(address for spec in specs for address in own_addresses(spec))
    assert_unique(mac for spec in specs for mac in own_macs(spec))
    for one in cluster.nodes:
        for other in cluster.nodes:
            assert one is other or not one.pod_cidr.overlaps(other.pod_cidr)
    for spec in specs:
        assert_unique(file.path for file in spec.files)
        assert_unique(json.dumps([item.kind, item.key]) for item in spec.objects)
        assert_unique(
            (mapping.host_ip, mapping.protocol, mapping.host_port)
            for pod in spec.pods
            for mapping in pod.port_mappings
        )


def own_addresses(spec: NodeSpec) -> list[str]:
    """Addresses that the plan gives to the node's own links."""
    return [item.key["local"] for item in spec.objects if item.kind == "address"]


def own_macs(spec: NodeSpec) -> list[str]:
    """MAC addresses that the plan gives to the node's own links."""
    return [item.fixed["address"] for item in spec.objects if item.kind == "link"]


def assert_unique(items: object) -> None:
    """Nothing occurs twice."""
    counted = Counter(items)  # type: ignore[call-overload]
    assert not [item for item, times in counted.items() if times > 1]


def test_underlay_addresses_start_at_two() -> None:
    """The gateway is .1, though nobody answers there."""
    assert UNDERLAY.segments["default"].gateway == IPv4Address("172.18.0.1")
    assert UNDERLAY.address_of("default", 0) == IPv4Address("172.18.0.2")
