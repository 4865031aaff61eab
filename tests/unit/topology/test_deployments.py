"""Deployments become pods with names that do not change."""

from __future__ import annotations

import re

import pytest

from testbed.topology.declared import PodDeclaration
from tests.unit.topology.reading import read

KUBECTL_CREATE = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  creationTimestamp: null
  labels:
    app: web
  name: web
spec:
  replicas: 3
  selector:
    matchLabels:
      app: web
  strategy: {}
  template:
    metadata:
      creationTimestamp: null
      labels:
        app: web
    spec:
      containers:
      - image: nginx
        name: nginx
        resources: {}
status: {}
"""


def pods(text: str = KUBECTL_CREATE) -> tuple[PodDeclaration, ...]:
    """The pods of a manifest."""
    return read(text).pods


def test_what_kubectl_create_prints() -> None:
    """``kubectl create deployment web --image=nginx --replicas=3 --dry-run=client -o yaml``."""
    found = pods()
    assert len({pod.name for pod in found}) == 3
    for pod in found:
        match = re.fullmatch(r"web-([bcdf4-9]{10})-[b-df-hj-np-tv-z24-9]{5}", pod.name)
        assert match
        assert pod.labels == {"app": "web", "pod-template-hash": match[1]}
        assert (pod.owner, pod.hostname) == ("web", pod.name)
        assert pod.on("node1").owner == "web"


def test_names_are_stable() -> None:
    """The same at every load, so what is written about them stays true."""
    assert [pod.name for pod in pods()] == [
        "web-498bddbfd8-tgspz",
        "web-498bddbfd8-s4dld",
        "web-498bddbfd8-xtnps",
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_scaling_keeps_the_lower_numbers(count: int) -> None:
    """More replicas are more pods, fewer are the first ones."""
    most = [pod.name for pod in pods(KUBECTL_CREATE.replace("3", "500"))]
    found = [pod.name for pod in pods(KUBECTL_CREATE.replace("3", str(count)))]
    assert found == most[:count]
    assert len(set(most)) == 500


def test_one_replica_is_the_default() -> None:
    """As in Kubernetes."""
    assert len(pods(KUBECTL_CREATE.replace("  replicas: 3\n", ""))) == 1


def test_another_template_makes_other_pods() -> None:
    """But not one that says the same in other words."""
    names = {pod.name for pod in pods()}
    changed = KUBECTL_CREATE.replace("image: nginx", "image: redis")
    assert names.isdisjoint(pod.name for pod in pods(changed))
    same = KUBECTL_CREATE.replace("resources: {}", "imagePullPolicy: Always")
    same = same.replace("    spec:\n", "    spec:\n      restartPolicy: Always\n")
    assert names == {pod.name for pod in pods(same)}


def test_a_long_name_is_cut() -> None:
    """To 58 characters before the last five, as the API server cuts generated names."""
    name = "a" * 60
    (first, *_) = pods(KUBECTL_CREATE.replace("name: web", f"name: {name}"))
    assert first.name[:58] == "a" * 58
    assert len(first.name) == 63
    assert first.owner == name
