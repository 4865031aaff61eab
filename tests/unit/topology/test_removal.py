"""What ``testbed delete`` leaves of a cluster that runs."""

from __future__ import annotations

import pytest

from testbed.errors import TopologyError
from testbed.topology.changes import applied
from testbed.topology.model import Cluster
from testbed.topology.removal import deleted
from tests.unit.topology.reading import made, objects, service
from tests.unit.topology.test_changes import deployment, names, pod

SLICE = (
    "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
    "metadata: {name: s, labels: {kubernetes.io/service-name: web}}\n"
)
NAMESPACE = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with something of every kind."""
    inside = pod("b", metadata=", namespace: shop")
    return applied(
        made(),
        objects(
            pod("a")
            + deployment(2)
            + service("x")
            + SLICE
            + NAMESPACE
            + inside
            + service("y", namespace="shop")
        ),
    )


def after(cluster: Cluster, *texts: str, missing_ok: bool = False) -> Cluster:
    """The cluster without what manifests name."""
    return deleted(cluster, objects("".join(texts)), missing_ok=missing_ok)


def refused(cluster: Cluster, *texts: str) -> str:
    """What is said about manifests that name what is not there."""
    with pytest.raises(TopologyError) as raised:
        after(cluster, *texts)
    return str(raised.value)


def test_one_of_each_kind(cluster: Cluster) -> None:
    """Only what is named goes; a Deployment takes its pods with it."""
    assert len(names(after(cluster, pod("a")))) == 3
    assert names(after(cluster, deployment(7))) == ["a", "b"]
    assert [each.name for each in after(cluster, service("x")).services] == ["y"]
    assert after(cluster, SLICE).slices == ()


def test_a_namespace_takes_all_that_is_in_it(cluster: Cluster) -> None:
    """As in Kubernetes; one with nothing in it is not known to be there."""
    left = after(cluster, NAMESPACE)
    assert {each.namespace for each in left.pods} == {"default"}
    assert {each.namespace for each in left.services} == {"default"}
    assert after(left, NAMESPACE) == left


def test_namespaces_of_every_cluster_stay(cluster: Cluster) -> None:
    """Kubernetes forbids it, too."""
    message = refused(cluster, NAMESPACE.replace("shop", "default"))
    assert "namespace default is one of every cluster, so it stays" in message


def test_only_the_name_counts(cluster: Cluster) -> None:
    """What is to be deleted need not be valid."""
    wrong = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {port: 1}\n"
    assert len(after(cluster, wrong).services) == 1


def test_what_is_not_there(cluster: Cluster) -> None:
    """The message says what is; an option leaves it at that."""
    assert refused(cluster, service("web"), SLICE.replace("name: s,", "name: t,")) == (
        'f.yaml:4: Service "default/web" is not there: there are default/x, shop/y; correct the '
        "name, or use --ignore-not-found\n"
        'f.yaml:10: EndpointSlice "default/t" is not there: there are default/s; correct the name, '
        "or use --ignore-not-found"
    )
    assert after(cluster, service("web"), missing_ok=True) == cluster
    empty = after(cluster, service("x"), service("y", namespace="shop"))
    assert "there is no Service at all" in refused(empty, service("x"))


def test_a_pod_of_a_deployment_stays(cluster: Cluster) -> None:
    """Its controller would make another; with the Deployment it may go."""
    owned = pod(next(each.name for each in cluster.pods if each.owner))
    assert "is one of Deployment default/web, which would make another" in refused(cluster, owned)
    assert names(after(cluster, owned, deployment(2))) == ["a", "b"]


@pytest.mark.parametrize("metadata", ["", "metadata: {}", "metadata: {name: ''}"])
def test_documents_without_a_name(cluster: Cluster, metadata: str) -> None:
    """They name nothing, not even with --ignore-not-found."""
    with pytest.raises(TopologyError, match="name of what is to be deleted"):
        after(cluster, f"apiVersion: apps/v1\nkind: Deployment\n{metadata}\n", missing_ok=True)
